//! Serves other programs on this machine: HiveMind's own interface under `/hive/v1`, and OpenAI's under `/v1`.
//!
//! What holds: it listens on loopback only; every request but [`Hello`](hive_types::Hello) carries a token, the owner's or
//! one that the owner made for a program (`tokens.rs`), and that token has the right that the route needs (`rights.rs`); a
//! request that a web page of another origin makes a browser send is refused, and so is one that came by a name that is not this
//! machine's (`guard.rs`), unless the owner has named that origin or host (`allowed.rs`). Connections are few and none is
//! idle for long (`server.rs`). Prompts and answers are in no log.

mod allowed;
mod audited;
mod conversations;
mod cors;
mod error;
mod farewell;
mod guard;
mod hello;
mod hive;
mod library;
mod openai;
mod paths;
mod rights;
mod server;
mod shared;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod views;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use hive_mind::conversations::Conversations;
use hive_node::Node;
use hive_node::data::DataWarning;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use shared::Shared;

pub use allowed::{AllowError, Allowed};
pub use token::{NONCE_BYTES, Token, nonce};
pub use tokens::today;
pub use views::status;

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
}

impl ApiError {
    /// What to do about it, where the error does not say so itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotLoopback(_) => Some("leave --api out, or give an address like 127.0.0.1:4483"),
            Self::Bind { why, .. } if why.kind() == ErrorKind::AddrInUse => {
                Some("another HiveMind may run; choose another --api address")
            }
            Self::Bind { .. } => Some("choose another --api address, or leave it out for 127.0.0.1:4483"),
            Self::Tokens(_) => Some("make the data folder writable, and free some space on its disk"),
        }
    }
}

/// A running API. Dropping it stops the listening, as [`Api::stop`] does; what is being answered then may end within two
/// seconds.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    warning: Option<DataWarning>,
    /// Dropping it tells the server to stop.
    stop: oneshot::Sender<()>,
    /// Ends when the last connection has ended.
    served: JoinHandle<()>,
}

impl Api {
    /// Serves `node` and its owner's conversations at `address`, to programs of this machine and whom its owner has
    /// `allowed`; the token and the location go to `folder`.
    pub async fn start(
        node: Node,
        conversations: Arc<Conversations>,
        address: SocketAddr,
        allowed: Allowed,
        folder: &Path,
    ) -> Result<Self, ApiError> {
        if !address.ip().is_loopback() {
            return Err(ApiError::NotLoopback(address));
        }
        let tokens = tokens::Tokens::open(folder).map_err(|error| ApiError::Tokens(error.to_string()))?;
        let tokens = Arc::new(tokens);
        let listener = TcpListener::bind(address).await.map_err(|why| ApiError::Bind { address, why })?;
        let address = listener.local_addr().map_err(|why| ApiError::Bind { address, why })?;
        let warning = say_where(address, folder).err();
        let guard = Arc::new(guard::Guard::new(tokens.clone(), address, allowed));
        let audited = axum::middleware::from_fn_with_state(node.clone(), audited::note);
        let farewell = axum::middleware::from_fn_with_state(node.clone(), farewell::in_time);
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
            .layer(farewell)
            .layer(axum::middleware::map_response(error::in_json))
            .layer(audited)
            .layer(axum::middleware::from_fn_with_state(guard, guard::check))
            .with_state(shared);
        let (stop, stopped) = oneshot::channel();
        #[allow(clippy::disallowed_methods, reason = "whoever stops the interface waits for it")]
        let served = tokio::spawn(server::serve(listener, app, server::Limits::default(), stopped));
        Ok(Self { address, warning, stop, served })
    }

    /// Takes no request any more, and waits until what is being answered has ended, for two seconds at most. Those who wait
    /// for an answer hear what there is of it once the node's answers have ended ([`Node::end_answers`]).
    pub async fn stop(self) {
        drop(self.stop);
        // Where it has panicked, nothing is left to wait for.
        let _ = self.served.await;
    }

    /// What its owner should know: that programs may not find it, where its location could not be written.
    pub fn warning(&self) -> Option<&DataWarning> {
        self.warning.as_ref()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Writes the location for programs of this machine, unless it stands there already. On a full disk it takes the place of the
/// one before, which needs no more room than that had.
fn say_where(address: SocketAddr, folder: &Path) -> Result<(), DataWarning> {
    let path = folder.join(LOCATION_FILE);
    let location = serde_json::to_vec(&Location { address }).unwrap_or_default();
    if std::fs::read(&path).is_ok_and(|before| before == location) {
        return Ok(());
    }
    let Err(error) = hive_host::folders::write_private(&path, &location) else { return Ok(()) };
    let in_place = || {
        let mut file = std::fs::OpenOptions::new().write(true).open(&path)?;
        file.write_all(&location)?;
        file.set_len(location.len() as u64)
    };
    in_place().map_err(|_| DataWarning::Unwritable { path: path.clone(), error })
}
