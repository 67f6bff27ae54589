//! The approved and blocked machines: the part of [`super::Peers`] that survives a restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hive_net::links::LinkKind;
use hive_net::near::ReachableFrom;
use hive_net::pairing::Code;
use hive_net::{Link, PeerAddr, PeerId, border};
use serde::{Deserialize, Serialize};

use super::rights::Rights;

/// Maximum number of addresses remembered per machine, newest first.
const KEPT_SOCKETS: usize = 8;

/// The owner's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    Approved,
    Blocked,
}

/// A machine that the owner decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) standing: Standing,
    /// Its own name for itself.
    name: String,
    /// This owner's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renamed: Option<String>,
    /// When this was decided, in seconds since 1970.
    since: u64,
    /// Its rights, if it is approved.
    #[serde(default)]
    pub(crate) rights: Rights,
    /// Where it was last reached, on a network of this machine.
    #[serde(default)]
    pub(crate) sockets: Vec<SocketAddr>,
    /// Where it was last reached elsewhere, or where a person said it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) given: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<String>,
    /// The code that both owners compared, as "482 915", so that it can be looked up later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// When it left, in seconds since 1970; none while it is present, and if this node was not there to see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away_since: Option<u64>,
}

impl Entry {
    /// When this was decided, in seconds since 1970.
    pub(crate) fn since_s(&self) -> u64 {
        self.since
    }

    /// When it left, in seconds since 1970, if that is known.
    pub(crate) fn away_since_s(&self) -> Option<u64> {
        self.away_since
    }

    /// Its own name for itself.
    pub(crate) fn own_name(&self) -> &str {
        &self.name
    }

    /// The code that both owners compared.
    pub(crate) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    pub(crate) fn shown_name(&self) -> &str {
        self.renamed.as_deref().unwrap_or(&self.name)
    }
}

/// Machines by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    peers: BTreeMap<PeerId, Entry>,
}

impl Book {
    /// Cleans the names in a book read from disk, which may be from an older version that did not.
    pub(crate) fn at_the_border(mut self) -> Self {
        for entry in self.peers.values_mut() {
            entry.name = border::name(&entry.name);
        }
        self
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (PeerId, &Entry)> {
        self.peers.iter().map(|(peer, entry)| (*peer, entry))
    }

    pub(crate) fn get(&self, peer: PeerId) -> Option<&Entry> {
        self.peers.get(&peer)
    }

    /// Adds a machine as approved; `addr` is where a person said it is.
    pub(crate) fn approve(&mut self, peer: PeerId, name: &str, addr: Option<&PeerAddr>, now_s: u64) {
        let before = self.peers.get(&peer);
        let renamed = before.and_then(|entry| entry.renamed.clone());
        let approved_before = before.filter(|entry| entry.standing == Standing::Approved);
        let rights = approved_before.map(|entry| entry.rights).unwrap_or_default();
        let mut given = addr.map(PeerAddr::sockets).unwrap_or_default();
        given.truncate(KEPT_SOCKETS);
        let relay = addr.and_then(PeerAddr::relay);
        let (standing, name, sockets) = (Standing::Approved, name.to_owned(), Vec::new());
        let entry = Entry {
            standing,
            name,
            renamed,
            since: now_s,
            rights,
            sockets,
            given,
            relay,
            code: None,
            away_since: None,
        };
        self.peers.insert(peer, entry);
    }

    /// Records the code with which a machine was approved.
    pub(crate) fn paired(&mut self, peer: PeerId, code: Code) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.code = Some(code.to_string());
        }
    }

    /// Another approved machine with this name.
    pub(crate) fn namesake(&self, peer: PeerId, name: &str) -> Option<(PeerId, &Entry)> {
        let plain = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let wanted = plain(name);
        let is_called = |entry: &Entry| plain(&entry.name) == wanted || plain(entry.shown_name()) == wanted;
        let is_it = |(other, entry): &(PeerId, &Entry)| {
            *other != peer && entry.standing == Standing::Approved && is_called(entry)
        };
        self.entries().find(is_it)
    }

    pub(crate) fn block(&mut self, peer: PeerId, name: &str, now_s: u64) {
        let entry = Entry {
            standing: Standing::Blocked,
            name: name.to_owned(),
            renamed: None,
            since: now_s,
            rights: Rights::default(),
            sockets: Vec::new(),
            given: Vec::new(),
            relay: None,
            code: None,
            away_since: None,
        };
        self.peers.insert(peer, entry);
    }

    pub(crate) fn remove(&mut self, peer: PeerId) -> Option<Entry> {
        self.peers.remove(&peer)
    }

    /// Puts a removed machine back as it was.
    pub(crate) fn restore(&mut self, peer: PeerId, entry: Entry) {
        self.peers.insert(peer, entry);
    }

    /// Records when a machine left.
    pub(crate) fn went_away(&mut self, peer: PeerId, now_s: u64) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.away_since = Some(now_s);
        }
    }

    pub(crate) fn rename(&mut self, peer: PeerId, name: &str) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.renamed = Some(border::name(name));
        }
    }

    /// Changes a machine's rights; returns whether it is in the book.
    pub(crate) fn allow(&mut self, peer: PeerId, rights: Rights) -> bool {
        self.peers.get_mut(&peer).map(|entry| entry.rights = rights).is_some()
    }

    /// Records that a machine is present, its name, and how it was reached; returns whether anything changed.
    pub(crate) fn remember(&mut self, peer: PeerId, name: &str, link: Option<(&Link, ReachableFrom)>) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else { return false };
        let before = entry.clone();
        name.clone_into(&mut entry.name);
        entry.away_since = None;
        match link {
            Some((link, _)) if link.kind == LinkKind::Relay => entry.relay = Some(link.remote.clone()),
            Some((link, reached)) => {
                let socket = link.remote.parse().ok();
                // A link-local address is useless without its interface, and interfaces change numbers.
                let usable =
                    |socket: &SocketAddr| !matches!(socket, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
                if let Some(socket) = socket.filter(usable) {
                    let known = match reached {
                        ReachableFrom::OnLink => &mut entry.sockets,
                        ReachableFrom::Anywhere => &mut entry.given,
                    };
                    known.retain(|known| *known != socket);
                    known.insert(0, socket);
                    known.truncate(KEPT_SOCKETS);
                }
            }
            None => {}
        }
        *entry != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_net::Identity;

    #[test]
    fn the_book_is_read_back() {
        let (mut book, one, two) = (Book::default(), Identity::generate().id(), Identity::generate().id());
        book.approve(one, "Mac mini", None, 7);
        book.paired(one, Code::parse("482915").unwrap());
        book.rename(one, "Attic");
        book.block(two, "Stranger", 8);
        let link = |kind, remote: &str| Link { kind, remote: remote.to_owned(), round_trip_us: 1 };
        let mut remember =
            |kind, remote: &str, reached| book.remember(one, "Mac mini", Some((&link(kind, remote), reached)));
        assert!(remember(LinkKind::Ethernet, "10.0.0.1:5", ReachableFrom::OnLink));
        assert!(!remember(LinkKind::Ethernet, "10.0.0.1:5", ReachableFrom::OnLink));
        assert!(!remember(LinkKind::Ethernet, "[fe80::1]:5", ReachableFrom::OnLink));
        assert!(remember(LinkKind::Other, "10.9.0.1:5", ReachableFrom::Anywhere));
        assert!(remember(LinkKind::Relay, "http://relay.example/", ReachableFrom::Anywhere));
        let again: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        assert_eq!(again, book);
        assert_eq!(again.get(one).unwrap().shown_name(), "Attic");
        assert_eq!(again.get(one).unwrap().code(), Some("482 915"));
        assert_eq!(again.get(one).unwrap().sockets, ["10.0.0.1:5".parse().unwrap()]);
        assert_eq!(again.get(one).unwrap().given, ["10.9.0.1:5".parse().unwrap()]);
        assert_eq!(again.get(one).unwrap().relay.as_deref(), Some("http://relay.example/"));
        assert_eq!(again.get(two).unwrap().standing, Standing::Blocked);
    }

    #[test]
    fn names_in_an_older_versions_book_are_shown_as_any_others() {
        let (mut book, one) = (Book::default(), Identity::generate().id());
        book.approve(one, "Mac\u{202e} mini\u{1b}[2J     code 1", None, 7);
        assert_eq!(book.at_the_border().get(one).unwrap().shown_name(), "Mac mini[2J code 1");
    }

    #[test]
    fn a_namesake_is_an_approved_machine_with_another_key() {
        let mut book = Book::default();
        let [one, two, blocked] = [(); 3].map(|()| Identity::generate().id());
        book.approve(one, "Mac mini", None, 7);
        book.rename(one, "Attic");
        book.block(blocked, "Studio", 8);
        let namesake = |peer, name: &str| book.namesake(peer, name).map(|(peer, _)| peer);
        assert_eq!(namesake(two, "mac  MINI"), Some(one));
        assert_eq!(namesake(two, "Attic"), Some(one));
        assert_eq!(namesake(one, "Mac mini"), None, "it is no other than itself");
        assert_eq!(namesake(two, "Studio"), None);
        assert_eq!(namesake(two, "Mac maxi"), None);
    }

    #[test]
    fn a_book_of_an_older_version_is_read() {
        let peer = Identity::generate().id();
        let entry = r#"{"standing":"approved","name":"Mac mini","since":7}"#;
        let book: Book = serde_json::from_str(&format!(r#"{{"peers":{{"{}":{entry}}}}}"#, peer.to_text())).unwrap();
        assert_eq!(book.get(peer).unwrap().code(), None);
    }

    #[test]
    fn a_machine_approved_by_an_older_version_has_both_rights() {
        let peer = Identity::generate().id();
        let older =
            format!(r#"{{"peers":{{"{}":{{"standing":"approved","name":"Attic","since":7}}}}}}"#, peer.to_text());
        let book: Book = serde_json::from_str(&older).unwrap();
        let Rights { memory, prompts, memory_limit_bytes, session_limit } = book.get(peer).unwrap().rights;
        assert_eq!((memory, prompts, memory_limit_bytes, session_limit), (true, true, None, None));
    }

    #[test]
    fn rights_are_read_back_kept_by_another_pairing_and_gone_with_a_removal() {
        let (mut book, peer) = (Book::default(), Identity::generate().id());
        let rights = Rights { prompts: false, memory_limit_bytes: Some(5), ..Rights::default() };
        assert!(!book.allow(peer, rights));
        book.approve(peer, "Attic", None, 7);
        assert_eq!(book.get(peer).unwrap().rights, Rights::default());
        assert!(book.allow(peer, rights));
        let mut again: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        again.approve(peer, "Attic", None, 9);
        assert_eq!(again.get(peer).unwrap().rights, rights);
        again.remove(peer);
        again.approve(peer, "Attic", None, 10);
        assert_eq!(again.get(peer).unwrap().rights, Rights::default());
    }

    #[test]
    fn a_machine_that_pairs_again_keeps_its_nickname() {
        let (mut book, peer) = (Book::default(), Identity::generate().id());
        book.approve(peer, "Mac mini", None, 7);
        book.rename(peer, "Attic");
        book.approve(peer, "Mac mini", None, 9);
        assert_eq!(book.get(peer).unwrap().shown_name(), "Attic");
    }
}
