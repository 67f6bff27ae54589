//! A machine that may hold a part of a model.

use hive_net::PeerAddr;

/// A node that a plan may use.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Its display name.
    pub name: String,
    /// Its address.
    pub addr: PeerAddr,
    /// Whether it computes on a GPU.
    pub gpu: bool,
}
