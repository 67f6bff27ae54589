//! The machines this one knows: found on the network, asked or asking to pair, approved, blocked.
//!
//! [`Peers`] is the state and the only place that changes it; [`book`] is the part of it that survives a restart;
//! [`sightings`] is the part that anybody on this network can add to; [`presence`] keeps in touch with approved machines;
//! [`pairings`] brings strangers to the point where two people can decide. What callers see is a [`PeerView`] ([`view`]).

mod book;
mod pending;
pub(crate) mod presence;
mod rights;
mod shown;
pub(crate) mod sightings;
mod state;
mod view;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hive_net::near::ReachableFrom;
use hive_net::{Admission, Link, PeerAddr, PeerId};
use hive_protocol::Profile;
use tokio::sync::{Notify, watch};

use crate::changes::Changes;
use crate::data::{DataError, DataFolder, NotKept};
use crate::find::Called;
use crate::reach::Absence;
use book::{Book, Standing};
pub use pending::DecideError;
pub use rights::{Rights, RightsError};
use sightings::{Announcement, News};
pub(crate) use state::Pending;
use state::{Contact, State, now_s};
pub use view::{MeasuredPath, Notice, Paired, PeerState, PeerView};

/// A machine that this owner has asked or approved has its place for so long: people go from one machine to the other.
const WANTED: Duration = hive_net::pairing::DECISION_TIMEOUT;

/// The machines this one knows. Clones share them.
#[derive(Clone)]
pub struct Peers {
    state: Arc<Mutex<State>>,
    data: Option<Arc<DataFolder>>,
    admission: Admission,
    /// What failover and whoever waits for a machine follow.
    changed: Changes,
    /// What people follow.
    shown: Changes,
}

const BOOK: &str = "peers.json";

impl Peers {
    /// Reads who was approved before.
    pub(crate) fn open(data: Option<Arc<DataFolder>>, admission: Admission) -> Result<Self, DataError> {
        let book: Book = match &data {
            Some(data) => data.read::<Book>(BOOK)?.unwrap_or_default().at_the_border(),
            None => Book::default(),
        };
        for (peer, entry) in book.entries() {
            match entry.standing {
                Standing::Approved => admission.approve(peer),
                Standing::Blocked => admission.block(peer),
            }
        }
        let state = Arc::new(Mutex::new(State { book, ..State::default() }));
        Ok(Self { state, data, admission, changed: Changes::default(), shown: Changes::default() })
    }

    /// Counts every change of the machines; listeners wake on it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Counts whatever people see change, of machines or of anything else.
    pub(crate) fn view_changes(&self) -> &Changes {
        &self.shown
    }

    /// Says that something about machines has changed, this one included.
    pub fn touch(&self) {
        self.changed.notify();
        self.shown.notify();
    }

    /// Machines that are in.
    pub fn approved(&self) -> Vec<PeerId> {
        self.lock().book.entries().filter(|(_, e)| e.standing == Standing::Approved).map(|(peer, _)| peer).collect()
    }

    /// Whether a machine is in.
    pub fn is_approved(&self, peer: PeerId) -> bool {
        self.lock().book.get(peer).is_some_and(|entry| entry.standing == Standing::Approved)
    }

    /// Which life of a machine answers; `None` where none does.
    pub fn incarnation(&self, peer: PeerId) -> Option<u64> {
        match self.lock().contact.get(&peer) {
            Some(Contact::Present { incarnation }) => Some(*incarnation),
            _ => None,
        }
    }

    /// The machines it knows, by what a person may call them.
    pub fn called(&self) -> Vec<Called> {
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
    pub fn present(&self) -> Vec<(PeerId, Profile)> {
        let state = self.lock();
        let present = state.contact.iter().filter(|(_, contact)| matches!(contact, Contact::Present { .. }));
        present.map(|(peer, _)| (*peer, state.profiles.get(peer).cloned().unwrap_or_default())).collect()
    }

    /// What a machine that is in and answers says of itself.
    pub(crate) fn profile_of_present(&self, peer: PeerId) -> Option<Profile> {
        let state = self.lock();
        let is_present = matches!(state.contact.get(&peer), Some(Contact::Present { .. }));
        is_present.then(|| state.profiles.get(&peer).cloned().unwrap_or_default())
    }

    /// Why a machine does not answer, as far as one can tell.
    pub(crate) fn why_away(&self, peer: PeerId) -> Option<String> {
        match self.lock().contact.get(&peer) {
            Some(Contact::Away { absence, .. }) => Some(absence.why.clone()),
            _ => None,
        }
    }

    /// Everywhere a machine may be: where it was last, where a person said, and where it announces itself. The endpoint
    /// decides which of these are dialled.
    pub fn addr(&self, peer: PeerId) -> PeerAddr {
        let state = self.lock();
        let (entry, invited) = (state.book.get(peer), state.invited.get(&peer));
        let proven = entry.iter().flat_map(|entry| entry.sockets.iter().chain(&entry.given)).copied();
        let given = invited.map(PeerAddr::sockets).unwrap_or_default();
        let announced = state.sightings.get(peer).map(|sighted| sighted.sockets.clone()).unwrap_or_default();
        let addr = PeerAddr::new(peer, proven.chain(given).chain(announced));
        let relay = entry.and_then(|entry| entry.relay.clone()).or_else(|| invited.and_then(PeerAddr::relay));
        match relay {
            Some(relay) => addr.with_relay(&relay),
            None => addr,
        }
    }

    /// Where machines that are in were reached before: on this machine's networks, and elsewhere.
    pub(crate) fn proven(&self) -> Vec<(PeerAddr, ReachableFrom)> {
        let state = self.lock();
        let approved = state.book.entries().filter(|(_, entry)| entry.standing == Standing::Approved);
        let known = approved.flat_map(|(peer, entry)| {
            let given = PeerAddr::new(peer, entry.given.iter().copied());
            let given = match &entry.relay {
                Some(relay) => given.with_relay(relay),
                None => given,
            };
            let near = PeerAddr::new(peer, entry.sockets.iter().copied());
            [(near, ReachableFrom::OnLink), (given, ReachableFrom::Anywhere)]
        });
        known.collect()
    }

    /// The name people see.
    pub fn name(&self, peer: PeerId) -> String {
        self.lock().name(peer)
    }

    /// Whether announcements name this machine, and where.
    pub(crate) fn announced(&self, peer: PeerId) -> Option<Vec<SocketAddr>> {
        self.lock().sightings.get(peer).map(|sighted| sighted.sockets.clone())
    }

    /// Announcements that were left out of late, because too many machines announce themselves.
    pub fn left_out(&self) -> u64 {
        self.lock().sightings.left_out(Instant::now())
    }

    /// Rings when a machine should be dialled at once.
    pub(crate) fn dial_bell(&self, peer: PeerId) -> Arc<Notify> {
        self.lock().dial.entry(peer).or_default().clone()
    }

    /// Has a machine dialled at once, if it is away.
    pub(crate) fn dial(&self, peer: PeerId) {
        if let Some(bell) = self.lock().dial.get(&peer) {
            bell.notify_waiters();
        }
    }

    /// Has every machine that is away dialled at once.
    pub(crate) fn dial_all(&self) {
        self.lock().dial.values().for_each(|bell| bell.notify_waiters());
    }

    /// Every machine, in a steady order; `link` tells the path in use.
    pub(crate) fn views(&self, link: impl Fn(PeerId) -> Option<Link>) -> Vec<PeerView> {
        let state = self.lock();
        state.known().into_iter().map(|peer| state.view(peer, &link)).collect()
    }

    /// What listeners have not seen yet.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.lock().notices.iter().filter(|notice| notice.number > after).cloned().collect()
    }

    /// Tells the owner something of a machine.
    pub fn notice(&self, peer: PeerId, text: String) {
        self.lock().note(peer, text);
        self.touch();
    }

    /// A machine announces itself.
    pub(crate) fn sighted(&self, announcement: Announcement) {
        let (peer, now) = (announcement.peer, Instant::now());
        let mut state = self.lock();
        let State { sightings, book, pending, wanted, dial, .. } = &mut *state;
        let standing = |peer| match book.get(peer).map(|entry| entry.standing) {
            Some(Standing::Approved) => sightings::Standing::Kept,
            Some(Standing::Blocked) => sightings::Standing::Ignored,
            None if pending.contains_key(&peer) || wanted.contains_key(&peer) => sightings::Standing::Kept,
            None => sightings::Standing::Stranger,
        };
        let news = sightings.found(announcement, standing, now);
        if let Some(bell) = dial.get(&peer).filter(|_| news == News::Moved)
            && sightings.may_dial(peer, now)
        {
            bell.notify_waiters();
        }
        drop(state);
        if news >= News::Shown {
            self.touch();
        }
    }

    /// An announcement has ended. A hint like any other: the pulse decides whether the machine is there.
    pub(crate) fn vanished(&self, record: &str) {
        let gone = self.lock().sightings.gone(record);
        if gone {
            self.touch();
        }
    }

    /// This owner asks or approves a machine.
    pub(crate) fn want(&self, peer: PeerId) {
        let now = Instant::now();
        let mut state = self.lock();
        state.wanted.retain(|_, since| now.saturating_duration_since(*since) < WANTED);
        state.wanted.insert(peer, now);
        drop(state);
        self.admission.expect(peer, WANTED);
    }

    /// Whether this owner has asked or approved a machine of late.
    pub(crate) fn is_wanted(&self, peer: PeerId) -> bool {
        self.lock().wanted.get(&peer).is_some_and(|since| since.elapsed() < WANTED)
    }

    /// An approved machine answers; `link` is where, so that it is found again without announcements.
    /// Gives the other approved machine of that name, if it calls itself so only now.
    pub(crate) fn arrived(
        &self,
        peer: PeerId,
        name: &str,
        incarnation: u64,
        link: Option<(&Link, ReachableFrom)>,
    ) -> Option<PeerId> {
        let mut state = self.lock();
        let is_new_name = state.book.get(peer).is_some_and(|entry| entry.own_name() != name);
        let namesake = if is_new_name { state.note_namesake(peer, name) } else { None };
        let before = state.contact.insert(peer, Contact::Present { incarnation });
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
        namesake
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
    pub fn described(&self, peer: PeerId, profile: Profile) {
        let profile = profile.at_the_border();
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

    /// An invitation of a machine was taken up here.
    pub(crate) fn invited(&self, addr: &PeerAddr) {
        self.lock().invited.insert(addr.id(), addr.clone());
    }

    /// Approves a machine without its owners, for tests that begin after that.
    #[cfg(any(test, feature = "testing"))]
    pub fn admit(&self, peer: PeerId, name: &str, addr: Option<&PeerAddr>) -> Result<(), DataError> {
        self.lock().enter(peer, name, addr);
        self.let_in(peer)
    }

    /// Lets in a machine that stands in the book as approved, from now on and after a restart.
    fn let_in(&self, peer: PeerId) -> Result<(), DataError> {
        // On disk before anything is let in: an approval that is forgotten is asked for again, and that is worse.
        self.save()?;
        self.admission.approve(peer);
        self.dial(peer);
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
        state.invited.remove(&peer);
        state.wanted.remove(&peer);
        state.dial.remove(&peer);
        state.sightings.forget_dials(peer);
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

    /// What a machine may do. One that is not in the book, as those of one process are not, has no limits.
    pub fn rights(&self, peer: PeerId) -> Rights {
        self.lock().book.get(peer).map(|entry| entry.rights).unwrap_or_default()
    }

    /// Changes what an approved machine may do; remembered. What is taken from the machine counts at once, what it is given
    /// only once that is on the disk.
    pub(crate) fn allow(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let mut state = self.lock();
        let before = state.book.get(peer).map(|entry| entry.rights).unwrap_or_default();
        let least = before.common(rights);
        let mut wished = state.book.clone();
        wished.allow(peer, rights);
        let written = self.write(&wished);
        if written.is_ok() {
            state.book = wished;
        } else {
            state.book.allow(peer, least);
        }
        drop(state);
        self.touch();
        written
            .map_err(|error| if least == rights { NotKept::from(error).into() } else { RightsError::NotGiven(error) })
    }

    fn save(&self) -> Result<(), DataError> {
        self.write(&self.lock().book)
    }

    /// To be called under the lock, so that two changes reach the disk in their order.
    fn write(&self, book: &Book) -> Result<(), DataError> {
        self.data.as_ref().map_or(Ok(()), |data| data.write(BOOK, book))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hive_net::Identity;

    use super::*;

    #[test]
    fn a_full_disk_keeps_nobody_from_taking_rights_away_and_gives_nobody_more() {
        let folder = tempfile::tempdir().unwrap();
        let data = Some(Arc::new(DataFolder::open(folder.path()).unwrap()));
        let (peers, peer) = (Peers::open(data, Admission::default()).unwrap(), Identity::generate().id());
        peers.lock().book.approve(peer, "bob", None, 0);
        peers.save().unwrap();
        // A folder in the way of the file stands for a disk that takes nothing.
        let book = folder.path().join(BOOK);
        std::fs::remove_file(&book).unwrap();
        std::fs::create_dir_all(book.join("in the way")).unwrap();
        let less = Rights { prompts: false, session_limit: Some(1), ..Rights::default() };
        assert!(matches!(peers.allow(peer, less), Err(RightsError::NotKept(_))));
        assert_eq!(peers.rights(peer), less);
        let other = Rights { memory: false, ..Rights::default() };
        assert!(matches!(peers.allow(peer, other), Err(RightsError::NotGiven(_))));
        assert_eq!(peers.rights(peer), Rights { memory: false, ..less });
    }
}
