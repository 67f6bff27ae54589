//! Serves other programs on this machine: HiveMind's own interface under `/hive/v1`, and OpenAI's under `/v1`.
//!
//! What holds: it listens on loopback only; every request carries the token that lies in the data folder, readable by
//! its owner; a request that a web page of another origin makes a browser send is refused, and so is one that came by
//! a name that is not this machine's (`guard.rs`). Prompts and answers are in no log.

mod conversations;
mod error;
mod guard;
mod hive;
mod library;
mod openai;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use hive_mind::conversations::Conversations;
use hive_node::Node;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use guard::Token;

/// Where the API listens unless somebody says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4483);

/// Where a running node's API is, for programs of this machine: `api.json` in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Where it listens.
    pub address: SocketAddr,
}

/// The file of [`Location`].
pub const LOCATION_FILE: &str = "api.json";

/// Why the API does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// An address that others could reach.
    #[error("the API listens on this machine only; {0} can be reached by others")]
    NotLoopback(SocketAddr),
    /// Taken, most likely.
    #[error("the API cannot listen on {address}: {why}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        why: std::io::Error,
    },
    /// The token or the location cannot be kept.
    #[error("cannot write the API's token to {folder}: {why}")]
    Token {
        /// The data folder.
        folder: String,
        /// What the system said.
        why: String,
    },
}

/// What every request can reach.
#[derive(Clone)]
struct Shared {
    node: Node,
    conversations: Arc<Conversations>,
    /// Turns true when somebody asked this node to end.
    quit: watch::Sender<bool>,
}

/// A running API. Dropping it stops the listening.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Api {
    /// Serves `node` and its owner's conversations at `address`; the token and the location go to `folder`.
    pub async fn start(
        node: Node,
        conversations: Arc<Conversations>,
        address: SocketAddr,
        folder: &Path,
    ) -> Result<Self, ApiError> {
        if !address.ip().is_loopback() {
            return Err(ApiError::NotLoopback(address));
        }
        let failed = |why: String| ApiError::Token { folder: folder.display().to_string(), why };
        let token = Token::keep(folder).map_err(|error| failed(error.to_string()))?;
        let listener = TcpListener::bind(address).await.map_err(|why| ApiError::Bind { address, why })?;
        let address = listener.local_addr().map_err(|why| ApiError::Bind { address, why })?;
        let location = serde_json::to_vec(&Location { address }).unwrap_or_default();
        let written = hive_host::folders::write_private(&folder.join(LOCATION_FILE), &location);
        written.map_err(|error| failed(error.to_string()))?;
        let shared = Shared { node, conversations, quit: watch::channel(false).0 };
        let guard = Arc::new(guard::Guard::new(&token, address.port()));
        let app = Router::new()
            .nest("/hive/v1", hive::routes().merge(library::routes()).merge(conversations::routes()))
            .nest("/v1", openai::routes())
            .fallback(error::not_found)
            .layer(axum::middleware::from_fn_with_state(guard, guard::check))
            .with_state(shared);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!("the API ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}
