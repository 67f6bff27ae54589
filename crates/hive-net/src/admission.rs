//! Who may come in: the allow-list, asked after every handshake.
//!
//! What holds: a peer that is not approved gets a pairing stream and nothing else; a blocked one not even that; a
//! revoked one loses its live connections together with its right to new ones, under one lock, so that no handshake
//! slips through between.

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

/// Close code for a peer that is not allowed in.
const REFUSED: u32 = 1;
/// Close code for a peer that was allowed in and is not any more.
const REVOKED: u32 = 2;

/// Close code for a connection that has made room for a newer one.
const TOO_MANY: u32 = 3;

/// Bytes an approved peer may have in flight on a connection: as many as eight streams take.
const APPROVED_WINDOW: u32 = 16 << 20;
/// Streams an approved peer may have open on a connection.
const APPROVED_STREAMS: u32 = 64;
/// Connections of a protocol that a peer may have at a time. One is in use; another may be made before it is known that the
/// former is dead. The oldest makes room.
const CONNECTIONS: usize = 4;

/// How long a key that was lent is good for, and how many a peer has at a time: it measures one path after the other.
const LENT_FOR: Duration = Duration::from_secs(30);
const LENT_KEYS: usize = 8;

/// The list and what is connected. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    inner: Arc<Mutex<Lists>>,
}

#[derive(Debug, Default)]
struct Lists {
    approved: BTreeSet<PeerId>,
    blocked: BTreeSet<PeerId>,
    /// Machines whose pairing this owner has begun or is being shown, and until when.
    expected: BTreeMap<PeerId, Instant>,
    /// Keys that approved peers measure paths with: whose, and until when.
    lent: BTreeMap<PeerId, (PeerId, Instant)>,
    /// Connections, with when each was made.
    live: BTreeMap<PeerId, Vec<(WeakConnectionHandle, Instant)>>,
}

impl Admission {
    /// Lets a peer in.
    pub fn approve(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.blocked.remove(&peer);
        lists.approved.insert(peer);
    }

    /// Refuses a peer from now on and closes what it has open. It may ask to pair again.
    pub fn revoke(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.approved.remove(&peer);
        lists.close(peer);
    }

    /// Refuses a peer everything, pairing included.
    pub fn block(&self, peer: PeerId) {
        let mut lists = self.lock();
        lists.approved.remove(&peer);
        lists.blocked.insert(peer);
        lists.close(peer);
    }

    /// Lets a peer measure paths with another key than its own, for a short while.
    pub fn lend(&self, key: PeerId, to: PeerId) {
        let mut lists = self.lock();
        let now = Instant::now();
        lists.lent.retain(|_, (_, until)| *until > now);
        let held = lists.lent.values().filter(|(holder, _)| *holder == to).count();
        // A machine's own key is not another's to take away with its approval.
        if lists.approved.contains(&to) && !lists.approved.contains(&key) && held < LENT_KEYS {
            lists.lent.insert(key, (to, now + LENT_FOR));
        }
    }

    /// A machine pairs with this one as its owner wishes: for so long, strangers take no place from it.
    pub fn expect(&self, peer: PeerId, time: Duration) {
        let mut lists = self.lock();
        let now = Instant::now();
        lists.expected.retain(|_, until| *until > now);
        lists.expected.insert(peer, now + time);
    }

    /// The pairing of a machine has ended.
    pub fn expect_no_more(&self, peer: PeerId) {
        self.lock().expected.remove(&peer);
    }

    pub(crate) fn is_expected(&self, peer: PeerId) -> bool {
        self.lock().expected.get(&peer).is_some_and(|until| Instant::now() < *until)
    }

    /// Takes a block back.
    pub fn unblock(&self, peer: PeerId) {
        self.lock().blocked.remove(&peer);
    }

    /// Whether a peer is in.
    pub fn is_approved(&self, peer: PeerId) -> bool {
        self.lock().approved.contains(&peer)
    }

    /// Closes the connections with a peer that were made before it was last heard, without changing its rights, so that
    /// the next one finds its way anew. One that the peer has made since has found it already.
    pub fn hang_up(&self, peer: PeerId, last_heard: Instant) {
        self.lock().close_older(peer, last_heard);
    }

    /// Whether a connection is alive. Closed ones are forgotten on the way.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        let mut lists = self.lock();
        lists.prune();
        lists.live.contains_key(&peer)
    }

    /// Every living connection of a peer.
    pub(crate) fn connections(&self, peer: PeerId) -> Vec<Connection> {
        let lists = self.lock();
        let handles = lists.live.get(&peer).into_iter().flatten();
        handles.filter_map(|(handle, _)| handle.upgrade()).filter(|c| c.close_reason().is_none()).collect()
    }

    fn permits(&self, peer: PeerId, alpn: &[u8]) -> bool {
        Protocol::from_alpn(alpn).is_some_and(|protocol| self.lock().permits(peer, protocol))
    }

    /// Whether a peer may have a stream of this protocol now.
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

    /// Closes what a peer has open, with its own key and with those it was lent.
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
        // A fresh one helps only if its path has become the one in use. iroh chooses anew only when a path opens, so
        // one that came while a dead path still looked good would leave that chosen for every dial to come.
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

    /// Closes the oldest connections of a peer where there is no room for another one of this protocol.
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
            // Strangers keep the small windows that every connection begins with.
            connection.set_receive_window(VarInt::from_u32(APPROVED_WINDOW));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(APPROVED_STREAMS));
        } else if protocol != Some(Protocol::Pair) {
            // Revoked since the question above.
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
