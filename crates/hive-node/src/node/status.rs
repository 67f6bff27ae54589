//! The state of a node at one moment.

use std::net::SocketAddr;
use std::time::SystemTime;

use hive_net::{PeerId, fingerprint};
use hive_peers::{DayWork, PeerView};
use hive_protocol::Profile;
use hive_types::{LoadingView, MachineWork, ModelView};
use serde::Serialize;

use super::Node;

/// The state of a node at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// This machine's key, as text.
    pub id: String,
    /// Its three words.
    pub fingerprint: String,
    /// Its profile.
    pub profile: Profile,
    /// Whether its owner wants it to share; the profile says what prevents it.
    pub share: bool,
    /// Whether its owner has paused sharing.
    pub paused: bool,
    /// The addresses it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Whether discovery runs on this network, or why not.
    pub discovery: String,
    /// The other machines.
    pub peers: Vec<PeerView>,
    /// Announcements not listed there: too many machines announce themselves, or they come from an impossible address.
    pub left_out: u64,
    /// Tokens of answers to people and programs here since the node started.
    pub answered_tokens: u64,
    /// Each machine's work of today for people and programs here.
    pub today: Vec<MachineWork>,
    /// The loaded model, if any.
    pub model: Option<ModelView>,
    /// The models being fetched or loaded, the one that began first first.
    pub loads: Vec<LoadingView>,
}

impl Node {
    /// The node's current state.
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
            today: member.today().into_iter().map(work).collect(),
            model: serving.view(),
            loads: serving.loads(),
        }
    }
}

fn work((machine, DayWork { answers, tokens }): (PeerId, DayWork)) -> MachineWork {
    MachineWork { id: machine.to_text(), answers, tokens }
}
