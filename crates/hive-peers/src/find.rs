//! Finds the machine that a person means.

use hive_net::{PeerId, fingerprint};

/// Minimum length of a key's beginning; a shorter one could match by accident.
const SHORTEST_PREFIX: usize = 4;

/// A name matches no machine, or several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindPeerError {
    /// None.
    #[error("no machine \"{0}\"; `hivemind peers` lists them")]
    None(String),
    /// More than one.
    #[error("\"{who}\" could be any of {}; use the id or the three words", candidates.join(", "))]
    Several {
        /// The name.
        who: String,
        /// The machines that match.
        candidates: Vec<String>,
    },
}

/// The ways to name a machine.
#[derive(Debug)]
pub struct Called {
    /// Its key.
    pub id: PeerId,
    /// Its display name here.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
}

impl Called {
    /// A machine with its display name here.
    pub fn new(id: PeerId, name: String) -> Self {
        Self { id, name, fingerprint: fingerprint(id) }
    }
}

/// Finds a machine by its key or the beginning of it, by its three words, or by a name that only it has.
pub fn find(machines: &[Called], who: &str) -> Result<PeerId, FindPeerError> {
    let who = who.trim();
    let words = who.replace(' ', "-").to_lowercase();
    let exact = |machine: &&Called| machine.id.to_text() == who || machine.fingerprint == words;
    let prefix =
        |machine: &&Called| who.len() >= SHORTEST_PREFIX && machine.id.to_text().starts_with(&who.to_lowercase());
    let named = |machine: &&Called| machine.name.to_lowercase() == who.to_lowercase();
    let tries: [&dyn Fn(&&Called) -> bool; 3] = [&exact, &prefix, &named];
    for fits in tries {
        let found: Vec<_> = machines.iter().filter(fits).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.id),
            several => {
                let candidate = |peer: &&Called| format!("{} ({})", peer.name, peer.fingerprint);
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
    use hive_net::Identity;

    #[test]
    fn a_machine_is_found_by_whatever_names_it_alone() {
        let peers =
            ["Attic", "Mac mini", "Mac mini"].map(|name| Called::new(Identity::generate().id(), name.to_owned()));
        let id = |n: usize| peers[n].id;
        assert_eq!(find(&peers, "attic"), Ok(id(0)));
        assert_eq!(find(&peers, &id(1).to_text()), Ok(id(1)));
        assert_eq!(find(&peers, &id(1).to_text()[..10].to_uppercase()), Ok(id(1)));
        assert_eq!(find(&peers, &peers[2].fingerprint.replace('-', " ")), Ok(id(2)));
        assert_eq!(find(&peers, "nobody"), Err(FindPeerError::None("nobody".to_owned())));
        let message = find(&peers, "Mac mini").unwrap_err().to_string();
        assert!(message.contains(&peers[1].fingerprint) && message.contains(&peers[2].fingerprint), "{message}");
    }
}
