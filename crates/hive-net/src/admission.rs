//! The allow-list, checked after every handshake.
//!
//! Invariants: a peer that is not approved gets a pairing stream and nothing else; a blocked peer not even that.
//! Revoking a peer closes its live connections and removes its right to new ones under one lock, so no handshake slips
//! through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use iroh::EndpointAddr;
use iroh::endpoint::{
    AfterHandshakeOutcome, BeforeConnectOutcome, Connection, EndpointHooks, VarInt, WeakConnectionHandle,
};

use crate::addr::PeerId;
use crate::lock::lock;
use crate::protocol::Protocol;

/// Close code for a peer that is not approved.
const REFUSED: u32 = 1;
/// Close code for a peer whose approval was revoked.
const REVOKED: u32 = 2;

/// Close code for a connection evicted by a newer one.
const TOO_MANY: u32 = 3;

/// Bytes an approved peer may have in flight on a connection: enough for eight streams.
const APPROVED_WINDOW: u32 = 16 << 20;
/// Streams an approved peer may have open on a connection.
const APPROVED_STREAMS: u32 = 64;
/// Connections per peer and protocol. One is in use; a second may be made before the first is known to be dead. The
/// oldest is evicted.
const CONNECTIONS: usize = 4;

/// Lifetime of an ephemeral key, and how many a peer has at a time: it measures paths one after the other.
const LENT_FOR: Duration = Duration::from_secs(30);
const LENT_KEYS: usize = 8;

/// The allow-list and the live connections. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    inner: Arc<Mutex<Lists>>,
}

#[derive(Debug, Default)]
struct Lists {
    approved: BTreeSet<PeerId>,
    blocked: BTreeSet<PeerId>,
    /// Machines that this owner is pairing with, and until when.
    expected: BTreeMap<PeerId, Instant>,
    /// Ephemeral keys of approved peers, for measuring paths: whose, and until when.
    lent: BTreeMap<PeerId, (PeerId, Instant)>,
    /// Live connections, with the time each was made.
    live: BTreeMap<PeerId, Vec<(WeakConnectionHandle, Instant)>>,
}

impl Admission {
    /// Approves a peer.
    pub fn approve(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.blocked.remove(&peer);
        lists.approved.insert(peer);
    }

    /// Revokes a peer's approval and closes its connections. It may ask to pair again.
    pub fn revoke(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.approved.remove(&peer);
        lists.close(peer);
    }

    /// Refuses a peer everything, including pairing.
    pub fn block(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.approved.remove(&peer);
        lists.blocked.insert(peer);
        lists.close(peer);
    }

    /// Grants a peer an ephemeral key for measuring paths, valid for 30 seconds.
    pub fn lend(&self, key: PeerId, to: PeerId) {
        let mut lists = self.lock();
        let now = Instant::now();
        lists.lent.retain(|_, (_, until)| *until > now);
        let held = lists.lent.values().filter(|(holder, _)| *holder == to).count();
        // An approved machine's own key cannot be claimed by another: it would disappear with that one's approval.
        if lists.approved.contains(&to) && !lists.approved.contains(&key) && held < LENT_KEYS {
            lists.lent.insert(key, (to, now + LENT_FOR));
        }
    }

    /// This owner is pairing with a machine: for `time`, strangers cannot take its place.
    pub fn expect(&self, peer: PeerId, time: Duration) {
        let mut lists = self.lock();
        let now = Instant::now();
        lists.expected.retain(|_, until| *until > now);
        lists.expected.insert(peer, now + time);
    }

    /// Ends [`Self::expect`]: the pairing is over.
    pub fn expect_no_more(&self, peer: PeerId) {
        self.lock().expected.remove(&peer);
    }

    pub(crate) fn is_expected(&self, peer: PeerId) -> bool {
        self.lock().expected.get(&peer).is_some_and(|until| Instant::now() < *until)
    }

    /// Undoes [`Self::block`].
    pub fn unblock(&self, peer: PeerId) {
        self.lock().blocked.remove(&peer);
    }

    /// Whether a peer is approved.
    pub fn is_approved(&self, peer: PeerId) -> bool {
        self.lock().approved.contains(&peer)
    }

    /// Closes the connections to a peer that were made before `last_heard`, without changing its rights, so that the
    /// next dial finds a new path. A newer connection has found one already and stays.
    pub fn hang_up(&self, peer: PeerId, last_heard: Instant) {
        self.lock().close_older(peer, last_heard);
    }

    /// Whether a peer has a live connection. Forgets closed ones.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        let mut lists = self.lock();
        lists.prune();
        lists.live.contains_key(&peer)
    }

    /// Every live connection of a peer.
    pub(crate) fn connections(&self, peer: PeerId) -> Vec<Connection> {
        let lists = self.lock();
        let handles = lists.live.get(&peer).into_iter().flatten();
        handles.filter_map(|(handle, _)| handle.upgrade()).filter(|c| c.close_reason().is_none()).collect()
    }

    fn permits(&self, peer: PeerId, alpn: &[u8]) -> bool {
        Protocol::from_alpn(alpn).is_some_and(|protocol| self.lock().permits(peer, protocol))
    }

    /// Whether a peer may open a stream of this protocol now.
    pub(crate) fn still_permits(&self, peer: PeerId, protocol: Protocol) -> bool {
        self.lock().permits(peer, protocol)
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        lock(&self.inner)
    }
}

impl Lists {
    fn permits(&self, peer: PeerId, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Pair => !self.blocked.contains(&peer),
            Protocol::Control | Protocol::Stage => self.approved.contains(&peer),
            Protocol::Gauge => self.lent.get(&peer).is_some_and(|(_, until)| Instant::now() < *until),
        }
    }

    /// Closes all connections of a peer, those of its ephemeral keys included.
    fn close(&mut self, peer: PeerId) {
        let lent: Vec<PeerId> =
            self.lent.iter().filter(|(_, (holder, _))| *holder == peer).map(|(key, _)| *key).collect();
        for key in lent {
            self.lent.remove(&key);
            self.close_older(key, Instant::now());
        }
        self.close_older(peer, Instant::now());
    }

    fn close_older(&mut self, peer: PeerId, than: Instant) {
        let handles = self.live.remove(&peer).unwrap_or_default();
        // A newer connection helps only once its path is selected. iroh selects again only when a path opens, so a
        // connection made while a dead path still looked good would keep that one selected for every later dial.
        let in_use = |handle: &WeakConnectionHandle| {
            handle.upgrade().is_some_and(|c| c.paths().iter().any(|path| path.is_selected()))
        };
        let (old, fresh): (Vec<_>, Vec<_>) =
            handles.into_iter().partition(|(handle, made)| *made <= than || !in_use(handle));
        tracing::debug!("hung up on {peer}: {} connections closed, {} kept", old.len(), fresh.len());
        for connection in old.iter().filter_map(|(handle, _)| handle.upgrade()) {
            connection.close(VarInt::from_u32(REVOKED), b"closed by the other machine");
        }
        if !fresh.is_empty() {
            self.live.insert(peer, fresh);
        }
    }

    /// Closes a peer's oldest connections when it has reached the limit for this protocol.
    fn make_room(&mut self, peer: PeerId, protocol: Protocol) {
        let handles = self.live.get(&peer).into_iter().flatten();
        let open = handles.filter_map(|(handle, made)| Some((handle.upgrade()?, *made)));
        let mut open: Vec<_> =
            open.filter(|(c, _)| c.alpn() == protocol.alpn() && c.close_reason().is_none()).collect();
        open.sort_by_key(|(_, made)| *made);
        let too_many = (open.len() + 1).saturating_sub(CONNECTIONS);
        for (connection, _) in open.into_iter().take(too_many) {
            connection.close(VarInt::from_u32(TOO_MANY), b"too many connections");
        }
    }

    fn prune(&mut self) {
        let open = |(handle, _): &(WeakConnectionHandle, Instant)| {
            handle.upgrade().is_some_and(|c| c.close_reason().is_none())
        };
        self.live.retain(|_, handles| {
            handles.retain(open);
            !handles.is_empty()
        });
    }
}

impl EndpointHooks for Admission {
    async fn before_connect<'a>(&'a self, remote: &'a EndpointAddr, alpn: &'a [u8]) -> BeforeConnectOutcome {
        if self.permits(PeerId::new(remote.id), alpn) {
            BeforeConnectOutcome::Accept
        } else {
            BeforeConnectOutcome::Reject
        }
    }

    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let peer = PeerId::new(connection.remote_id());
        if !self.permits(peer, connection.alpn()) {
            tracing::info!("refused machine {peer}: it is not approved");
            return AfterHandshakeOutcome::Reject {
                error_code: VarInt::from_u32(REFUSED),
                reason: b"not approved".to_vec(),
            };
        }
        let mut lists = self.lock();
        lists.prune();
        let protocol = Protocol::from_alpn(connection.alpn());
        if lists.approved.contains(&peer) || protocol == Some(Protocol::Gauge) && lists.permits(peer, Protocol::Gauge) {
            // Strangers keep the small initial windows.
            connection.set_receive_window(VarInt::from_u32(APPROVED_WINDOW));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(APPROVED_STREAMS));
        } else if protocol != Some(Protocol::Pair) {
            // Revoked since the check above.
            return AfterHandshakeOutcome::Reject {
                error_code: VarInt::from_u32(REFUSED),
                reason: b"not approved".to_vec(),
            };
        }
        if let Some(protocol) = protocol {
            lists.make_room(peer, protocol);
        }
        lists.live.entry(peer).or_default().push((connection.weak_handle(), Instant::now()));
        AfterHandshakeOutcome::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn strangers_may_pair_and_nothing_else() {
        let (admission, peer) = (Admission::default(), Identity::generate().id());
        let may = |protocol: Protocol| admission.permits(peer, protocol.alpn());
        assert!(may(Protocol::Pair) && !may(Protocol::Control) && !may(Protocol::Stage));
        assert!(!admission.permits(peer, b"iroh-bytes/4"), "unknown protocols are for nobody");
        admission.approve(peer);
        assert!(may(Protocol::Control) && may(Protocol::Stage));
        admission.revoke(peer);
        assert!(may(Protocol::Pair) && !may(Protocol::Control));
        admission.block(peer);
        assert!(!may(Protocol::Pair));
        admission.unblock(peer);
        assert!(may(Protocol::Pair) && !may(Protocol::Control));
    }

    #[test]
    fn a_lent_key_measures_and_nothing_else_while_its_holder_is_in() {
        let admission = Admission::default();
        let (peer, key) = (Identity::generate().id(), Identity::generate().id());
        let may = |protocol| admission.still_permits(key, protocol);
        admission.lend(key, peer);
        assert!(!may(Protocol::Gauge), "its holder is a stranger");
        admission.approve(peer);
        admission.lend(key, peer);
        assert!(may(Protocol::Gauge) && !may(Protocol::Control) && !may(Protocol::Stage));
        let third = Identity::generate().id();
        admission.approve(third);
        admission.lend(third, peer);
        assert!(!admission.still_permits(third, Protocol::Gauge));
        for _ in 0..2 * LENT_KEYS {
            admission.lend(Identity::generate().id(), peer);
        }
        assert_eq!(admission.lock().lent.len(), LENT_KEYS);
        admission.revoke(peer);
        assert!(!may(Protocol::Gauge));
    }
}
