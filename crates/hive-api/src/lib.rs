//! Serves other programs on this machine: HiveMind's own interface under `/hive/v1`, and OpenAI's under `/v1`.
//!
//! What holds: it listens on loopback only; every request but [`Hello`] carries a token, the owner's or one that the owner
//! made for a program (`tokens.rs`), and that token has the right that the route needs (`rights.rs`); a request that a
//! web page of another origin makes a browser send is refused, and so is one that came by a name that is not this
//! machine's (`guard.rs`). Connections are few and none is idle for long (`server.rs`). Prompts and answers are in no log.

mod conversations;
mod error;
mod guard;
mod hello;
mod hive;
mod library;
mod openai;
mod rights;
mod server;
#[cfg(test)]
mod tests;
mod token;
mod tokens;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use hive_mind::conversations::Conversations;
use hive_node::Node;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

pub use hello::Hello;
pub use rights::Right;
pub use token::{NONCE_BYTES, Token, nonce};

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
    /// The tokens cannot be read or made.
    #[error("the API's tokens cannot be used: {0}")]
    Tokens(String),
    /// Nobody would find it.
    #[error("cannot write where the API is to {path}: {why}")]
    Location {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// What every request can reach.
#[derive(Clone)]
struct Shared {
    node: Node,
    conversations: Arc<Conversations>,
    tokens: Arc<tokens::Tokens>,
    /// Where the API listens.
    address: SocketAddr,
    /// Turns true when somebody asked this node to end.
    quit: watch::Sender<bool>,
}

/// A running API. Dropping it stops the listening; what is being answered then may end within two seconds.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    /// Dropping it tells the server to stop.
    _stop: oneshot::Sender<()>,
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
        let tokens = tokens::Tokens::open(folder).map_err(|error| ApiError::Tokens(error.to_string()))?;
        let tokens = Arc::new(tokens);
        let listener = TcpListener::bind(address).await.map_err(|why| ApiError::Bind { address, why })?;
        let address = listener.local_addr().map_err(|why| ApiError::Bind { address, why })?;
        let location = serde_json::to_vec(&Location { address }).unwrap_or_default();
        let path = folder.join(LOCATION_FILE);
        let written = hive_host::folders::write_private(&path, &location);
        written.map_err(|why| ApiError::Location { path: path.display().to_string(), why })?;
        let guard = Arc::new(guard::Guard::new(tokens.clone(), address));
        let shared = Shared { node, conversations, tokens, address, quit: watch::channel(false).0 };
        let app = Router::new()
            .nest(
                "/hive/v1",
                hive::routes()
                    .merge(hello::routes())
                    .merge(library::routes())
                    .merge(conversations::routes())
                    .merge(tokens::routes()),
            )
            .nest("/v1", openai::routes())
            .fallback(error::not_found)
            .layer(axum::middleware::from_fn_with_state(guard, guard::check))
            .with_state(shared);
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server::serve(listener, app, server::Limits::default(), stopped));
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
