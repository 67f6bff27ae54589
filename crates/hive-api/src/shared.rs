//! What the routes share.

use std::net::SocketAddr;
use std::sync::Arc;

use hive_mind::conversations::Conversations;
use hive_node::Node;
use tokio::sync::watch;

use crate::tokens::Tokens;

/// What every request can reach.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) conversations: Arc<Conversations>,
    pub(crate) tokens: Arc<Tokens>,
    /// Where the API listens.
    pub(crate) address: SocketAddr,
    /// Turns true when somebody asked this node to end.
    pub(crate) quit: watch::Sender<bool>,
}
