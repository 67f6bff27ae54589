//! The machine that a person means.

use hive_net::PeerId;

use crate::peers::PeerView;

/// The shortest beginning of a key that counts; shorter ones fit by accident.
const SHORTEST_PREFIX: usize = 4;

/// No machine, or several, by what a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindPeerError {
    /// None.
    #[error("no machine \"{0}\"; `hivemind peers` lists them")]
    None(String),
    /// More than one.
    #[error("\"{who}\" could be any of {}; use the id or the three words", candidates.join(", "))]
    Several {
        /// What was written.
        who: String,
        /// Whom it fits.
        candidates: Vec<String>,
    },
}

/// By key or its beginning, by the three words, or by name; names only where they are unique.
pub(crate) fn find(peers: &[PeerView], who: &str) -> Result<PeerId, FindPeerError> {
    let who = who.trim();
    let words = who.replace(' ', "-").to_lowercase();
    let exact = |peer: &&PeerView| peer.id == who || peer.fingerprint == words;
    let prefix = |peer: &&PeerView| who.len() >= SHORTEST_PREFIX && peer.id.starts_with(&who.to_lowercase());
    let named = |peer: &&PeerView| peer.name.to_lowercase() == who.to_lowercase();
    let tries: [&dyn Fn(&&PeerView) -> bool; 3] = [&exact, &prefix, &named];
    for fits in tries {
        let found: Vec<_> = peers.iter().filter(fits).collect();
        match found.as_slice() {
            [] => {}
            [one] => return one.id.parse().map_err(|_| FindPeerError::None(who.to_owned())),
            several => {
                let candidate = |peer: &&PeerView| format!("{} ({})", peer.name, peer.fingerprint);
                let candidates = several.iter().map(candidate).collect();
                return Err(FindPeerError::Several { who: who.to_owned(), candidates });
            }
        }
    }
    Err(FindPeerError::None(who.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PeerState;
    use hive_net::{Identity, fingerprint};

    fn view(name: &str) -> PeerView {
        let id = Identity::generate().id();
        PeerView {
            id: id.to_text(),
            name: name.to_owned(),
            fingerprint: fingerprint(id),
            state: PeerState::Found,
            link: None,
            condition: None,
            bits_per_s: None,
            other_paths: Vec::new(),
            profile: None,
        }
    }

    #[test]
    fn a_machine_is_found_by_whatever_names_it_alone() {
        let peers = [view("Attic"), view("Mac mini"), view("Mac mini")];
        let id = |n: usize| peers[n].id.parse::<PeerId>().unwrap();
        assert_eq!(find(&peers, "attic"), Ok(id(0)));
        assert_eq!(find(&peers, &peers[1].id), Ok(id(1)));
        assert_eq!(find(&peers, &peers[1].id[..10].to_uppercase()), Ok(id(1)));
        assert_eq!(find(&peers, &peers[2].fingerprint.replace('-', " ")), Ok(id(2)));
        assert_eq!(find(&peers, "nobody"), Err(FindPeerError::None("nobody".to_owned())));
        let message = find(&peers, "Mac mini").unwrap_err().to_string();
        assert!(message.contains(&peers[1].fingerprint) && message.contains(&peers[2].fingerprint), "{message}");
    }
}
