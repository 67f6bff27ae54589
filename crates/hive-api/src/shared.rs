//! State of the routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use hive_mind::Chats;
use hive_node::Node;
use tokio::sync::watch;

use crate::tokens::Tokens;
use crate::web::{Links, Web};

/// What the owner's machine has: state of the routes that need no network ([`crate::Direct`]).
#[derive(Clone)]
pub(crate) struct Local {
    pub(crate) node: Node,
    pub(crate) chats: Chats,
}

impl FromRef<Local> for Node {
    fn from_ref(local: &Local) -> Self {
        local.node.clone()
    }
}

impl FromRef<Local> for Chats {
    fn from_ref(local: &Local) -> Self {
        local.chats.clone()
    }
}

/// State of the routes that belong to the server.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) web: Arc<Web>,
    /// The links that let browsers in.
    pub(crate) links: Arc<Links>,
    /// The API's listening address.
    pub(crate) address: SocketAddr,
    /// Becomes true when a client asks this node to stop.
    pub(crate) quit: watch::Sender<bool>,
}
