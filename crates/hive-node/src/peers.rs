//! The machines this one knows: found on the network, asked or asking to pair, approved, blocked.
//!
//! [`Peers`] is the state and the only place that changes it; [`book`] is the part of it that survives a restart;
//! [`presence`] keeps in touch with approved machines; [`pairings`] brings strangers to the point where two people can
//! decide. What callers see is a [`PeerView`] ([`view`]).

pub(crate) mod book;
pub(crate) mod pairings;
pub(crate) mod presence;
mod view;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hive_net::{Admission, Link, PeerAddr, PeerId, fingerprint};
use tokio::sync::{Notify, watch};

use crate::data::{DataError, DataFolder};
use crate::find::Called;
use crate::profile::Profile;
use crate::reach::Absence;
use book::{Book, Standing};

pub use view::{MeasuredPath, Notice, PeerState, PeerView};

/// A machine that announces itself on this network.
#[derive(Debug, Clone)]
struct Sighted {
    addr: PeerAddr,
    name: String,
    version: u32,
    announced: bool,
}

/// A code on two screens.
#[derive(Debug)]
struct Pending {
    name: String,
    code: hive_net::pairing::Code,
    asked_by_them: bool,
    approved_here: bool,
    verdict: Option<tokio::sync::oneshot::Sender<bool>>,
}

/// Whether an approved machine answers.
#[derive(Debug, Clone)]
enum Contact {
    Present { life: u64 },
    Away { absence: Absence, since: SystemTime },
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    sighted: BTreeMap<PeerId, Sighted>,
    pending: BTreeMap<PeerId, Pending>,
    contact: BTreeMap<PeerId, Contact>,
    profiles: BTreeMap<PeerId, Profile>,
    paths: BTreeMap<PeerId, Vec<MeasuredPath>>,
    notices: Vec<Notice>,
    noticed: u64,
}

/// Notices kept for listeners that look late.
const KEPT_NOTICES: usize = 64;
/// Strangers remembered from announcements; more is a flood.
const KEPT_SIGHTINGS: usize = 256;

/// The machines this one knows. Clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    state: Arc<Mutex<State>>,
    data: Option<Arc<DataFolder>>,
    admission: Admission,
    changed: watch::Sender<u64>,
    /// Rings when somebody should be dialled at once.
    pub(crate) dial: Arc<Notify>,
}

const BOOK: &str = "peers.json";

impl Peers {
    /// Reads who was approved before.
    pub(crate) fn open(data: Option<Arc<DataFolder>>, admission: Admission) -> Result<Self, DataError> {
        let book: Book = match &data {
            Some(data) => data.read(BOOK)?.unwrap_or_default(),
            None => Book::default(),
        };
        for (peer, entry) in book.entries() {
            match entry.standing {
                Standing::Approved => admission.approve(peer),
                Standing::Blocked => admission.block(peer),
            }
        }
        let state = Arc::new(Mutex::new(State { book, ..State::default() }));
        Ok(Self { state, data, admission, changed: watch::channel(0).0, dial: Arc::default() })
    }

    /// Counts every change; listeners wake on it.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Says that something a view shows has changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Machines that are in.
    pub(crate) fn approved(&self) -> Vec<PeerId> {
        self.lock().book.entries().filter(|(_, e)| e.standing == Standing::Approved).map(|(peer, _)| peer).collect()
    }

    pub(crate) fn is_approved(&self, peer: PeerId) -> bool {
        self.lock().book.get(peer).is_some_and(|entry| entry.standing == Standing::Approved)
    }

    /// Which life of a machine answers; `None` where none does.
    pub(crate) fn life(&self, peer: PeerId) -> Option<u64> {
        match self.lock().contact.get(&peer) {
            Some(Contact::Present { life }) => Some(*life),
            _ => None,
        }
    }

    /// The machines it knows, by what a person may call them.
    pub(crate) fn called(&self) -> Vec<Called> {
        let state = self.lock();
        state.known().into_iter().map(|peer| Called::new(peer, state.name(peer))).collect()
    }

    /// The paths to a machine that were measured.
    pub(crate) fn paths(&self, peer: PeerId) -> Vec<MeasuredPath> {
        self.lock().paths.get(&peer).cloned().unwrap_or_default()
    }

    /// Whether a machine has answered since this node started.
    pub(crate) fn has_met(&self, peer: PeerId) -> bool {
        self.lock().profiles.contains_key(&peer)
    }

    /// Machines that are in and answer, with what they say of themselves.
    pub(crate) fn present(&self) -> Vec<(PeerId, Profile)> {
        let state = self.lock();
        let present = state.contact.iter().filter(|(_, contact)| matches!(contact, Contact::Present { .. }));
        present.map(|(peer, _)| (*peer, state.profiles.get(peer).cloned().unwrap_or_default())).collect()
    }

    /// Everywhere a machine may be: announced, and where it was last.
    pub(crate) fn addr(&self, peer: PeerId) -> PeerAddr {
        let state = self.lock();
        let mut sockets: Vec<SocketAddr> = state.sighted.get(&peer).map(|s| s.addr.sockets()).unwrap_or_default();
        let entry = state.book.get(peer);
        sockets.extend(entry.iter().flat_map(|entry| &entry.sockets));
        let addr = PeerAddr::new(peer, sockets);
        match entry.and_then(|entry| entry.relay.as_deref()) {
            Some(relay) => addr.with_relay(relay),
            None => addr,
        }
    }

    /// The name people see.
    pub(crate) fn name(&self, peer: PeerId) -> String {
        self.lock().name(peer)
    }

    /// Whether announcements name this machine, and with which version.
    pub(crate) fn announced(&self, peer: PeerId) -> Option<(PeerAddr, u32)> {
        let state = self.lock();
        state.sighted.get(&peer).filter(|s| s.announced).map(|s| (s.addr.clone(), s.version))
    }

    /// Every machine, in a steady order; `link` tells the path in use.
    pub(crate) fn views(&self, link: impl Fn(PeerId) -> Option<Link>) -> Vec<PeerView> {
        let state = self.lock();
        state.known().into_iter().map(|peer| state.view(peer, &link)).collect()
    }

    /// What listeners have not seen yet.
    pub(crate) fn notices(&self, after: u64) -> Vec<Notice> {
        self.lock().notices.iter().filter(|notice| notice.number > after).cloned().collect()
    }

    /// Tells the owner something of a machine.
    pub(crate) fn notice(&self, peer: PeerId, text: String) {
        self.lock().note(peer, text);
        self.touch();
    }

    /// A machine announces itself.
    pub(crate) fn sighted(&self, addr: PeerAddr, name: String, version: u32) {
        let peer = addr.id();
        let mut state = self.lock();
        if state.sighted.len() >= KEPT_SIGHTINGS && !state.sighted.contains_key(&peer) {
            return;
        }
        state.sighted.insert(peer, Sighted { addr, name, version, announced: true });
        drop(state);
        self.dial.notify_waiters();
        self.touch();
    }

    /// An announcement was taken back. A hint like any other: the pulse decides whether the machine is there.
    pub(crate) fn vanished(&self, peer: PeerId) {
        if let Some(sighted) = self.lock().sighted.get_mut(&peer) {
            sighted.announced = false;
        }
        self.touch();
    }

    /// An approved machine answers; `link` is where, so that it is found again without announcements.
    pub(crate) fn arrived(&self, peer: PeerId, name: &str, life: u64, link: Option<&Link>) {
        let mut state = self.lock();
        let before = state.contact.insert(peer, Contact::Present { life });
        let changed = state.book.remember(peer, name, link);
        if matches!(before, Some(Contact::Away { .. }) | None) {
            let text = format!("{} is here.", state.name(peer));
            state.note(peer, text);
        }
        drop(state);
        if changed {
            // Where a machine was last is a convenience; nothing is lost without it.
            let _ = self.save();
        }
        self.touch();
    }

    /// An approved machine does not answer.
    pub(crate) fn left(&self, peer: PeerId, absence: Absence) {
        let mut state = self.lock();
        if !state.book.get(peer).is_some_and(|entry| entry.standing == Standing::Approved) {
            return;
        }
        let (since, was_present) = match state.contact.get(&peer) {
            Some(Contact::Away { since, .. }) => (*since, false),
            Some(Contact::Present { .. }) => (SystemTime::now(), true),
            None => (SystemTime::now(), false),
        };
        state.contact.insert(peer, Contact::Away { absence, since });
        if was_present {
            let text = format!("{} left.", state.name(peer));
            state.note(peer, text);
        }
        drop(state);
        self.touch();
    }

    /// What a machine says of itself.
    pub(crate) fn described(&self, peer: PeerId, profile: Profile) {
        let changed = self.lock().profiles.get(&peer) != Some(&profile);
        self.lock().profiles.insert(peer, profile);
        if changed {
            self.touch();
        }
    }

    /// A path to a machine was measured.
    pub(crate) fn measured(&self, peer: PeerId, path: MeasuredPath) {
        let mut state = self.lock();
        let paths = state.paths.entry(peer).or_default();
        paths.retain(|before| before.link.remote != path.link.remote);
        paths.push(path);
        drop(state);
        self.touch();
    }

    /// A machine an invitation names, which no announcement does.
    pub(crate) fn invited(&self, addr: &PeerAddr) {
        let (peer, name) = (addr.id(), "the machine that invited".to_owned());
        let version = hive_net::discovery::PROTOCOL_VERSION;
        let sighted = Sighted { addr: addr.clone(), name, version, announced: false };
        self.lock().sighted.entry(peer).or_insert(sighted);
    }

    /// Approves a machine without its owners, for tests that begin after that.
    #[cfg(test)]
    pub(crate) fn admit(&self, peer: PeerId, name: &str, addr: Option<&PeerAddr>) -> Result<(), DataError> {
        self.lock().enter(peer, name, addr);
        self.let_in(peer)
    }

    /// Lets in a machine that stands in the book as approved, from now on and after a restart.
    fn let_in(&self, peer: PeerId) -> Result<(), DataError> {
        // On disk before anything is let in: an approval that is forgotten is asked for again, and that is worse.
        self.save()?;
        self.admission.approve(peer);
        self.dial.notify_waiters();
        self.touch();
        Ok(())
    }

    /// Takes a machine out: its connections close, and it has to be approved anew.
    pub(crate) fn remove(&self, peer: PeerId) -> Result<(), DataError> {
        // Cut first; the disk may be slow or full.
        self.admission.revoke(peer);
        self.admission.unblock(peer);
        self.forget(peer, |book| book.remove(peer))
    }

    /// Refuses a machine everything.
    pub(crate) fn block(&self, peer: PeerId) -> Result<(), DataError> {
        self.admission.block(peer);
        let name = self.name(peer);
        self.forget(peer, |book| book.block(peer, &name, now_s()))
    }

    fn forget(&self, peer: PeerId, change: impl FnOnce(&mut Book)) -> Result<(), DataError> {
        let mut state = self.lock();
        // Dropping the verdict's sender is a no to whoever waits.
        state.pending.remove(&peer);
        state.contact.remove(&peer);
        state.profiles.remove(&peer);
        state.paths.remove(&peer);
        change(&mut state.book);
        drop(state);
        self.touch();
        self.save()
    }

    /// Calls a machine otherwise.
    pub(crate) fn rename(&self, peer: PeerId, name: &str) -> Result<(), DataError> {
        self.lock().book.rename(peer, name);
        self.touch();
        self.save()
    }

    fn save(&self) -> Result<(), DataError> {
        match &self.data {
            Some(data) => {
                // Under the lock, so that two changes reach the disk in their order.
                let state = self.lock();
                data.write(BOOK, &state.book)
            }
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes an approval into the book.
    fn enter(&mut self, peer: PeerId, name: &str, addr: Option<&PeerAddr>) {
        self.book.approve(peer, name, addr, now_s());
        let text = format!("{} is approved.", self.name(peer));
        self.note(peer, text);
    }

    /// Every machine, in a steady order.
    fn known(&self) -> Vec<PeerId> {
        let mut ids: Vec<PeerId> = self.book.entries().map(|(peer, _)| peer).collect();
        ids.extend(self.pending.keys().filter(|peer| self.book.get(**peer).is_none()));
        let unknown = |peer: &&PeerId| !ids.contains(peer) && self.sighted[*peer].announced;
        let found: Vec<PeerId> = self.sighted.keys().filter(unknown).copied().collect();
        ids.extend(found);
        ids
    }

    fn name(&self, peer: PeerId) -> String {
        let known = self.book.get(peer).map(book::Entry::shown_name);
        let asking = || self.pending.get(&peer).map(|pending| pending.name.as_str());
        let sighted = || self.sighted.get(&peer).map(|sighted| sighted.name.as_str());
        known.or_else(asking).or_else(sighted).map_or_else(|| fingerprint(peer), str::to_owned)
    }

    fn note(&mut self, peer: PeerId, text: String) {
        self.noticed += 1;
        self.notices.push(Notice { number: self.noticed, peer: peer.to_text(), text });
        if self.notices.len() > KEPT_NOTICES {
            self.notices.remove(0);
        }
    }
}

fn now_s() -> u64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
