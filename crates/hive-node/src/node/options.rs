//! How a node is started.

use std::net::SocketAddr;

use hive_net::Relay;
use hive_peers::data::DataFolder;
use hive_protocol::SPEAKS;

use crate::sharing::Policy;

/// How to start a node.
#[allow(clippy::struct_excessive_bools, reason = "each is a request of its own")]
pub struct NodeOptions {
    /// The name people see.
    pub name: String,
    /// Where it listens; an unspecified address is every interface.
    pub bind: SocketAddr,
    /// What must survive a restart; without it the node is nobody in particular, for as long as it runs.
    pub data: Option<DataFolder>,
    /// Whether it announces itself and looks for others on this network.
    pub discover: bool,
    /// Reaching machines elsewhere.
    pub relay: Relay,
    /// Whether nothing may leave this machine's own networks, whoever says where another machine is.
    pub lan_only: bool,
    /// Whether it gives memory to others.
    pub share: bool,
    /// The most memory it gives, in bytes.
    pub memory_cap: Option<u64>,
    /// When it gives memory to others.
    pub policy: Policy,
    /// Whether models that fit on this machine stay on it, whatever the policy says later.
    pub keep_prompts_here: bool,
    /// Whether others may name models by path: only where all nodes are one process.
    pub trust_paths: bool,
    /// Versions of the control protocol spoken; tests start older and newer nodes.
    pub speaks: (u32, u32),
}

impl NodeOptions {
    /// A node that knows nobody and keeps nothing.
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
            policy: Policy::default(),
            keep_prompts_here: false,
            trust_paths: false,
            speaks: SPEAKS,
        }
    }
}
