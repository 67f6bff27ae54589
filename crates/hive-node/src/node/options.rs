//! The options of a node.

use std::net::SocketAddr;

use hive_net::Relay;
use hive_peers::data::DataFolder;
use hive_protocol::SPEAKS;
use hive_stage::Fetches;

use crate::sharing::Policy;

/// The options of a node.
#[allow(clippy::struct_excessive_bools, reason = "each is a request of its own")]
pub struct NodeOptions {
    /// The display name.
    pub name: String,
    /// The address to listen on; an unspecified address means every interface.
    pub bind: SocketAddr,
    /// The data folder. Without one, the node has a new identity, which lasts as long as it runs.
    pub data: Option<DataFolder>,
    /// Whether it announces itself and discovers others on this network.
    pub discover: bool,
    /// How to reach machines on other networks.
    pub relay: Relay,
    /// Whether nothing may leave this machine's own networks, whoever supplies an address.
    pub lan_only: bool,
    /// Whether it shares memory with others.
    pub share: bool,
    /// The most memory it shares, in bytes.
    pub memory_cap: Option<u64>,
    /// The most disk for fetched parts of models, in bytes.
    pub disk_cap: Option<u64>,
    /// When it shares.
    pub policy: Policy,
    /// Whether models that fit on this machine stay on it, regardless of the policy.
    pub keep_prompts_here: bool,
    /// Whether others may name models by path: only if all nodes are one process.
    pub trust_paths: bool,
    /// The sources of its missing layers.
    pub fetches: Fetches,
    /// Versions of the control protocol that it speaks; tests start older and newer nodes.
    pub speaks: (u32, u32),
}

impl NodeOptions {
    /// A node that knows no other machine and stores nothing.
    pub fn new(name: String, bind: SocketAddr) -> Self {
        Self {
            name,
            bind,
            data: None,
            discover: false,
            relay: Relay::None,
            lan_only: false,
            share: true,
            memory_cap: None,
            disk_cap: None,
            policy: Policy::default(),
            keep_prompts_here: false,
            trust_paths: false,
            fetches: Fetches::Nothing,
            speaks: SPEAKS,
        }
    }
}
