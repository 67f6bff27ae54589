//! A machine that may take a part of a model.

use hive_net::PeerAddr;

/// A node that a plan may use.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The name people see.
    pub name: String,
    /// Where it is.
    pub addr: PeerAddr,
}
