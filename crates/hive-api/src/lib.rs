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
    /// The token cannot be read or made.
    #[error("cannot keep the API's token: {0}")]
    Token(#[from] hive_host::SecretError),
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
            Self::Token(hive_host::SecretError::File { .. }) => {
                Some("make the data folder writable, and free some space on its disk")
            }
            Self::Token(_) => None,
        }
    }
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
    warning: Option<DataWarning>,
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
        let token = Token::keep(folder)?;
        let listener = TcpListener::bind(address).await.map_err(|why| ApiError::Bind { address, why })?;
        let address = listener.local_addr().map_err(|why| ApiError::Bind { address, why })?;
        let warning = say_where(address, folder).err();
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
        Ok(Self { address, warning, task })
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

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}
