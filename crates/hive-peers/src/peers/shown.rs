//! Turns the record of a machine into a [`PeerView`](super::PeerView).

use hive_net::{Link, PeerId, fingerprint};
use hive_types::Absence;

use super::book::{Entry, Standing};
use super::state::{Contact, State};
use super::view::{MeasuredPath, Paired, PeerState, PeerView};

impl State {
    /// Since when an approved machine is away, in seconds since 1970; 0 if unknown.
    fn away_since_s(&self, peer: PeerId) -> u64 {
        self.book.get(peer).and_then(Entry::away_since_s).unwrap_or_default()
    }

    fn unreachable(&self, peer: PeerId, absence: Absence) -> PeerState {
        PeerState::Unreachable { why: absence.to_string(), absence: Some(absence), since: self.away_since_s(peer) }
    }

    pub(super) fn view(&self, peer: PeerId, link: &impl Fn(PeerId) -> Option<Link>) -> PeerView {
        let contact = self.contact.get(&peer);
        let state = match (self.pending.get(&peer), self.book.get(peer).map(|entry| entry.standing)) {
            (_, Some(Standing::Blocked)) => PeerState::Blocked,
            (Some(pending), _) => PeerState::Pending {
                code: pending.code.to_string(),
                asked_by_them: pending.asked_by_them,
                approved_here: pending.approved_here,
            },
            (None, Some(Standing::Approved)) => match contact {
                Some(Contact::Present { .. }) => PeerState::Approved,
                Some(Contact::Away { absence }) => self.unreachable(peer, absence.clone()),
                None => self.unreachable(peer, Absence::NotHeard),
            },
            (None, None) => PeerState::Found,
        };
        let present = matches!(contact, Some(Contact::Present { .. }));
        let link = present.then(|| link(peer)).flatten();
        let is_in_use = |path: &MeasuredPath| link.as_ref().is_some_and(|link| link.remote == path.link.remote);
        let paths = self.paths.get(&peer).into_iter().flatten();
        let (in_use, other_paths): (Vec<_>, Vec<_>) = paths.cloned().partition(is_in_use);
        PeerView {
            id: peer.to_text(),
            name: self.name(peer),
            fingerprint: fingerprint(peer),
            state,
            paired: self
                .book
                .get(peer)
                .filter(|entry| entry.standing == Standing::Approved)
                .map(|entry| Paired { code: entry.code().map(str::to_owned), at_s: entry.since_s() }),
            bits_per_s: in_use.first().map(|path| path.bits_per_s),
            other_paths,
            condition: match contact {
                Some(Contact::Away { absence: Absence::Hindered { condition } }) => Some(*condition),
                _ => None,
            },
            link,
            profile: present.then(|| self.profiles.get(&peer).cloned()).flatten(),
            rights: self.book.get(peer).filter(|entry| entry.standing == Standing::Approved).map(|entry| entry.rights),
        }
    }
}
