//! The machines this one knows: found on the network, asked or asking to pair, approved, blocked.
//!
//! [`Peers`] holds the state and is the only place that changes it. [`book`] is the part that survives a restart,
//! [`sightings`] the part that anybody on this network can add to. [`presence`] keeps in touch with approved machines;
//! [`pending`] has the pairings in progress. Callers see a [`PeerView`] ([`view`]).

mod book;
mod pending;
pub(crate) mod presence;
mod restored;
mod rights;
mod shown;
pub(crate) mod sightings;
mod state;
mod view;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hive_net::near::ReachableFrom;
use hive_net::{Admission, Link, PeerAddr, PeerId};
use hive_protocol::Profile;
use hive_types::Absence;
use tokio::sync::{Notify, watch};

use crate::changes::Changes;
use crate::data::{DataError, DataFolder, NotKept};
use crate::find::Called;
use book::{Book, Standing};
pub use pending::DecideError;
pub use restored::RestoreError;
pub use rights::{Rights, RightsError};
use sightings::{Announcement, News};
pub(crate) use state::Pending;
use state::{Contact, State, now_s};
pub use view::{MeasuredPath, Notice, Paired, PeerState, PeerView};

/// How long a machine that this owner has asked or approved skips the queue: time to walk between the machines.
const WANTED: Duration = hive_net::pairing::DECISION_TIMEOUT;

/// The machines this one knows. Clones share them.
#[derive(Clone)]
pub struct Peers {
    state: Arc<Mutex<State>>,
    data: Option<Arc<DataFolder>>,
    admission: Admission,
    /// Watched by failover, and by tasks that wait for a machine.
    changed: Changes,
    /// Watched by whatever shows machines to people.
    shown: Changes,
}

const BOOK: &str = "peers.json";

impl Peers {
    /// Reads the book of approved and blocked machines.
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

    /// A counter that increases whenever a machine changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A counter that increases whenever anything that people see changes.
    pub(crate) fn view_changes(&self) -> &Changes {
        &self.shown
    }

    /// Reports that a machine, possibly this one, has changed.
    pub(crate) fn touch(&self) {
        self.changed.notify();
        self.shown.notify();
    }

    /// The approved machines.
    pub(crate) fn approved(&self) -> Vec<PeerId> {
        self.lock().book.entries().filter(|(_, e)| e.standing == Standing::Approved).map(|(peer, _)| peer).collect()
    }

    /// Whether a machine is approved.
    pub(crate) fn is_approved(&self, peer: PeerId) -> bool {
        self.lock().book.get(peer).is_some_and(|entry| entry.standing == Standing::Approved)
    }

    /// The incarnation of a machine that is present; `None` if it is absent.
    pub fn incarnation(&self, peer: PeerId) -> Option<u64> {
        match self.lock().contact.get(&peer) {
            Some(Contact::Present { incarnation }) => Some(*incarnation),
            _ => None,
        }
    }

    /// The known machines with the names that people may call them by.
    pub fn called(&self) -> Vec<Called> {
        let state = self.lock();
        state.known().into_iter().map(|peer| Called::new(peer, state.name(peer))).collect()
    }

    /// The measured paths to a machine.
    pub(crate) fn paths(&self, peer: PeerId) -> Vec<MeasuredPath> {
        self.lock().paths.get(&peer).cloned().unwrap_or_default()
    }

    /// Whether a machine has answered since this node started.
    pub(crate) fn has_met(&self, peer: PeerId) -> bool {
        self.lock().profiles.contains_key(&peer)
    }

    /// The approved machines that are present, with their profiles.
    pub fn present(&self) -> Vec<(PeerId, Profile)> {
        let state = self.lock();
        let present = state.contact.iter().filter(|(_, contact)| matches!(contact, Contact::Present { .. }));
        present.map(|(peer, _)| (*peer, state.profiles.get(peer).cloned().unwrap_or_default())).collect()
    }

    /// The profile of an approved machine that is present.
    pub fn profile_of_present(&self, peer: PeerId) -> Option<Profile> {
        let state = self.lock();
        let is_present = matches!(state.contact.get(&peer), Some(Contact::Present { .. }));
        is_present.then(|| state.profiles.get(&peer).cloned().unwrap_or_default())
    }

    /// Why a machine is absent, if known.
    pub(crate) fn why_away(&self, peer: PeerId) -> Option<Absence> {
        match self.lock().contact.get(&peer) {
            Some(Contact::Away { absence }) => Some(absence.clone()),
            _ => None,
        }
    }

    /// Every known address of a machine: where it was last reached, where a person said it is, and what it announces.
    /// The endpoint decides which of these are dialled.
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

    /// The addresses at which approved machines were reached: on this machine's networks, and elsewhere.
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

    /// A machine's display name.
    pub fn name(&self, peer: PeerId) -> String {
        self.lock().name(peer)
    }

    /// The addresses that a machine announces; `None` if it announces nothing.
    pub(crate) fn announced(&self, peer: PeerId) -> Option<Vec<SocketAddr>> {
        self.lock().sightings.get(peer).map(|sighted| sighted.sockets.clone())
    }

    /// The number of announcements dropped recently because too many machines announce themselves.
    pub fn left_out(&self) -> u64 {
        self.lock().sightings.left_out(Instant::now())
    }

    /// The bell that rings when a machine should be dialled at once.
    pub(crate) fn dial_bell(&self, peer: PeerId) -> Arc<Notify> {
        self.lock().dial.entry(peer).or_default().clone()
    }

    /// Dials a machine at once, if it is absent.
    pub(crate) fn dial(&self, peer: PeerId) {
        if let Some(bell) = self.lock().dial.get(&peer) {
            bell.notify_waiters();
        }
    }

    /// Dials every absent machine at once.
    pub(crate) fn dial_all(&self) {
        self.lock().dial.values().for_each(|bell| bell.notify_waiters());
    }

    /// All machines, in a stable order; `link` returns the path in use.
    pub(crate) fn views(&self, link: impl Fn(PeerId) -> Option<Link>) -> Vec<PeerView> {
        let state = self.lock();
        state.known().into_iter().map(|peer| state.view(peer, &link)).collect()
    }

    /// The notices after the one with this number.
    pub(crate) fn notices(&self, after: u64) -> Vec<Notice> {
        self.lock().notices.iter().filter(|notice| notice.number > after).cloned().collect()
    }

    /// Notifies the owner about a machine.
    pub fn notice(&self, peer: PeerId, text: String) {
        self.lock().note(peer, text);
        self.touch();
    }

    /// Handles an announcement.
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

    /// Handles the end of an announcement. It is only a hint: heartbeats decide whether the machine is present.
    pub(crate) fn vanished(&self, record: &str) {
        let gone = self.lock().sightings.gone(record);
        if gone {
            self.touch();
        }
    }

    /// Records that this owner asks to pair with a machine, or approves it.
    pub(crate) fn want(&self, peer: PeerId) {
        let now = Instant::now();
        let mut state = self.lock();
        state.wanted.retain(|_, since| now.saturating_duration_since(*since) < WANTED);
        state.wanted.insert(peer, now);
        drop(state);
        self.admission.expect(peer, WANTED);
    }

    /// Whether this owner has recently asked or approved a machine.
    pub(crate) fn is_wanted(&self, peer: PeerId) -> bool {
        self.lock().wanted.get(&peer).is_some_and(|since| since.elapsed() < WANTED)
    }

    /// Records that an approved machine has answered. `link` is kept, so that the machine is found again without
    /// announcements. Returns the other approved machine of that name, if this one has only now taken the name.
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
            // A failure to save costs nothing but a faster reconnect.
            let _ = self.save();
        }
        self.touch();
        namesake
    }

    /// Records that an approved machine is absent.
    pub(crate) fn left(&self, peer: PeerId, absence: Absence) {
        let mut state = self.lock();
        if !state.book.get(peer).is_some_and(|entry| entry.standing == Standing::Approved) {
            return;
        }
        let before = state.contact.insert(peer, Contact::Away { absence });
        let was_present = matches!(before, Some(Contact::Present { .. }));
        if was_present {
            state.book.went_away(peer, now_s());
            let text = format!("{} left.", state.name(peer));
            state.note(peer, text);
        }
        drop(state);
        self.touch();
        if was_present {
            // Saved after everybody was told: if it fails, the next run does not know since when the machine is away.
            let _ = self.save();
        }
    }

    /// Takes in a machine's profile.
    pub fn described(&self, peer: PeerId, profile: Profile) {
        let profile = profile.at_the_border();
        let changed = self.lock().profiles.get(&peer) != Some(&profile);
        self.lock().profiles.insert(peer, profile);
        if changed {
            self.touch();
        }
    }

    /// Takes in the measurement of a path.
    pub(crate) fn measured(&self, peer: PeerId, path: MeasuredPath) {
        let mut state = self.lock();
        let paths = state.paths.entry(peer).or_default();
        paths.retain(|before| before.link.remote != path.link.remote);
        paths.push(path);
        drop(state);
        self.touch();
    }

    /// Records the address from an invitation that was used here.
    pub(crate) fn invited(&self, addr: &PeerAddr) {
        self.lock().invited.insert(addr.id(), addr.clone());
    }

    /// For tests: approves a machine without asking its owners.
    #[cfg(any(test, feature = "testing"))]
    pub fn admit(&self, peer: PeerId, name: &str, addr: Option<&PeerAddr>) -> Result<(), DataError> {
        self.lock().enter(peer, name, addr);
        self.let_in(peer)
    }

    /// Admits a machine that the book lists as approved.
    fn let_in(&self, peer: PeerId) -> Result<(), DataError> {
        // Saved before it is admitted: a lost approval would have to be asked for again, which is worse.
        self.save()?;
        self.admission.approve(peer);
        self.dial(peer);
        self.touch();
        Ok(())
    }

    /// Removes a machine: closes its connections; it must be approved again to return, unless this is undone soon.
    pub(crate) fn remove(&self, peer: PeerId) -> Result<(), DataError> {
        // Cut off first; the disk may be slow or full.
        self.admission.revoke(peer);
        self.admission.unblock(peer);
        self.forget(peer, |state| {
            if let Some(entry) = state.book.remove(peer) {
                state.set_aside(peer, entry);
            }
        })
    }

    /// Blocks a machine.
    pub(crate) fn block(&self, peer: PeerId) -> Result<(), DataError> {
        self.admission.block(peer);
        let name = self.name(peer);
        self.forget(peer, |state| {
            state.removed.remove(&peer);
            state.book.block(peer, &name, now_s());
        })
    }

    fn forget(&self, peer: PeerId, change: impl FnOnce(&mut State)) -> Result<(), DataError> {
        let mut state = self.lock();
        // Dropping the verdict's sender tells the waiting request that the answer is no.
        state.pending.remove(&peer);
        state.contact.remove(&peer);
        state.profiles.remove(&peer);
        state.paths.remove(&peer);
        state.invited.remove(&peer);
        state.wanted.remove(&peer);
        state.dial.remove(&peer);
        state.sightings.forget_dials(peer);
        change(&mut state);
        drop(state);
        self.touch();
        self.save()
    }

    /// Gives a machine another display name.
    pub(crate) fn rename(&self, peer: PeerId, name: &str) -> Result<(), DataError> {
        self.lock().book.rename(peer, name);
        self.touch();
        self.save()
    }

    /// A machine's rights. A machine that is not in the book, such as another node of this process, has no limits.
    pub fn rights(&self, peer: PeerId) -> Rights {
        self.lock().book.get(peer).map(|entry| entry.rights).unwrap_or_default()
    }

    /// Changes an approved machine's rights and saves them. Rights that are withdrawn end at once; new ones apply once
    /// they are on disk.
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

    /// Callers hold the lock, so that changes reach the disk in order.
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

    /// When the only machine went away, in seconds since 1970; 0 if unknown.
    fn away_since(peers: &Peers) -> u64 {
        match peers.views(|_| None).remove(0).state {
            PeerState::Unreachable { since, .. } => since,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn since_when_a_machine_is_away_is_known_only_if_it_was_seen_to_leave_but_then_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let data = Some(Arc::new(DataFolder::open(folder.path()).unwrap()));
            Peers::open(data, Admission::default()).unwrap()
        };
        let attic = Identity::generate().id();
        let peers = open();
        peers.admit(attic, "Attic", None).unwrap();
        peers.left(attic, Absence::Silent);
        assert_eq!(away_since(&peers), 0, "it was not here in this run");
        peers.arrived(attic, "Attic", 1, None);
        peers.left(attic, Absence::Silent);
        let since = away_since(&peers);
        assert!(since > 0);
        peers.lock().book.went_away(attic, since - 60);
        peers.left(attic, Absence::Silent);
        assert_eq!(away_since(&peers), since - 60, "it is away for as long as before");
        peers.save().unwrap();
        drop(peers);
        let peers = open();
        assert_eq!(away_since(&peers), since - 60);
        peers.arrived(attic, "Attic", 2, None);
        drop(peers);
        assert_eq!(away_since(&open()), 0, "it was here when this node ended");
    }

    #[test]
    fn a_full_disk_keeps_nobody_from_taking_rights_away_and_gives_nobody_more() {
        let folder = tempfile::tempdir().unwrap();
        let data = Some(Arc::new(DataFolder::open(folder.path()).unwrap()));
        let (peers, peer) = (Peers::open(data, Admission::default()).unwrap(), Identity::generate().id());
        peers.lock().book.approve(peer, "bob", None, 0);
        peers.save().unwrap();
        // A folder in the file's place makes writing fail, as a full disk would.
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
