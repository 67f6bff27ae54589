//! How the node is, at one moment.

use std::net::SocketAddr;
use std::time::SystemTime;

use hive_net::fingerprint;
use hive_peers::PeerView;
use hive_protocol::Profile;
use hive_types::{LoadingView, ModelView};
use serde::Serialize;

use super::Node;

/// How the node is, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// This machine's key, as text.
    pub id: String,
    /// Three words of it.
    pub fingerprint: String,
    /// What it says of itself.
    pub profile: Profile,
    /// Whether its owner wants it to share; what keeps it from that is in the profile.
    pub share: bool,
    /// Whether its owner has paused sharing for now.
    pub paused: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Whether machines on this network are searched for, or why not.
    pub discovery: String,
    /// The other machines.
    pub peers: Vec<PeerView>,
    /// Announcements that are not among them: too many machines announce themselves, or from where none can be.
    pub left_out: u64,
    /// Tokens of answers to people and programs here, since the node started.
    pub answered_tokens: u64,
    /// The model in memory, if there is one.
    pub model: Option<ModelView>,
    /// The model on its way into memory, if there is one.
    pub loading: Option<LoadingView>,
}

impl Node {
    /// How the node is.
    pub fn status(&self) -> Status {
        let (member, host, serving) = (self.member(), self.host(), &self.inner.serving);
        let mut addresses = member.addr().sockets();
        addresses.sort_unstable();
        let switches = *self.inner.switches.borrow();
        Status {
            share: switches.wants_to_share(self.inner.owner.share),
            paused: switches.paused_for_s(SystemTime::now()) > 0,
            id: member.id().to_text(),
            fingerprint: fingerprint(member.id()),
            profile: Profile { sessions: host.sessions(), ..member.profile() },
            addresses,
            discovery: member.discovery(),
            peers: member.peer_views(),
            left_out: member.peers().left_out(),
            answered_tokens: host.answered_tokens(),
            model: serving.view(),
            loading: serving.loading(),
        }
    }
}
