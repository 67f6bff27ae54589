//! State shared by all routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use hive_mind::Chats;
use hive_node::Node;
use tokio::sync::watch;

use crate::tokens::Tokens;

/// The state available to every request.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) chats: Chats,
    pub(crate) tokens: Arc<Tokens>,
    /// The API's listening address.
    pub(crate) address: SocketAddr,
    /// Becomes true when a client asks this node to stop.
    pub(crate) quit: watch::Sender<bool>,
}

impl FromRef<Shared> for Chats {
    fn from_ref(shared: &Shared) -> Self {
        shared.chats.clone()
    }
}
