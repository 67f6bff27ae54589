//! The local API for other programs: HiveMind's own under `/hive/v1`, and OpenAI's under `/v1`.
//!
//! Invariants: the API listens on loopback only. Every request but [`Hello`](hive_types::Hello) and the exchange of a
//! browser's link carries a token, either
//! the owner's or one that the owner created for a program (`tokens.rs`), and that token has the right that the route
//! requires (`rights.rs`). Requests from web pages of other origins, or for host names other than this machine's, are
//! refused (`guard.rs`) unless the owner has allowed that origin or host (`allowed.rs`). Browsers on other devices are
//! served at an address of their own, over TLS, if the owner turns it on (`web.rs`). The number of connections is
//! bounded and idle ones are closed (`server.rs`). Prompts and answers never appear in logs.

mod allowed;
mod answers;
mod api_error;
mod audited;
mod browsers;
mod conversations;
mod cors;
mod counting;
mod counts;
mod direct;
mod error;
mod farewell;
mod guard;
mod hello;
mod hive;
mod library;
mod openai;
mod paths;
mod presets;
mod programs;
mod quit;
mod rights;
mod routes;
mod server;
mod shared;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod views;
mod web;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use hive_mind::Chats;
use hive_node::Node;
use hive_node::data::DataWarning;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use routes::Routes;
use shared::{Local, Shared};

pub use hive_types::{BrowserAccess, BrowserLink, IssuedToken, PlanView, Right, TokenView};

pub use allowed::{AllowError, Allowed};
pub use answers::chats;
pub use api_error::ApiError;
pub use direct::{CallError, Direct};
pub use token::{Token, nonce};
pub use tokens::{TokenError, today};
pub use views::status;
pub use web::{Page, Pages};

/// Default listening address.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4483);

/// The address of a running node's API, published as `api.json` in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The listening address.
    pub address: SocketAddr,
}

/// File name of [`Location`].
pub const LOCATION_FILE: &str = "api.json";

/// Prefix of HiveMind's own interface.
const OWN: &str = "/hive/v1";

/// The routes that need no network: what [`Direct`] calls.
fn local_routes() -> Routes<Local> {
    let of_chats = conversations::routes().merge(presets::routes());
    hive::routes().merge(library::routes()).merge(counting::routes()).merge(of_chats).under(OWN)
}

/// The routes that belong to the server.
fn server_routes() -> Routes<Shared> {
    let own = hello::routes().merge(tokens::routes()).merge(quit::routes()).merge(browsers::routes());
    own.under(OWN).merge(openai::routes().under("/v1"))
}

/// A running API. Dropping it stops listening, as [`Api::stop`] does; responses in progress have two seconds to finish.
pub struct Api {
    address: SocketAddr,
    warning: Option<DataWarning>,
    tokens: Arc<tokens::Tokens>,
    web: Arc<web::Web>,
    node: Node,
    /// The pages for other devices.
    network: Router,
    /// Dropping it stops the server.
    stop: oneshot::Sender<()>,
    /// The servers here and for other devices; each ends when its last connection has closed.
    tasks: TaskTracker,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Api {
    /// Serves `node` and its owner's conversations on `address`, to programs on this machine and to the `allowed`
    /// origins and hosts. Writes the token and the location to `folder`.
    pub async fn start(
        node: Node,
        chats: Chats,
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
        let audited = axum::middleware::from_fn_with_state(node.clone(), audited::note);
        let farewell = axum::middleware::from_fn_with_state(node.clone(), farewell::in_time);
        let links = Arc::new(web::Links::default());
        let tasks = TaskTracker::new();
        let web = Arc::new(web::Web::new(folder, address, links.clone(), tasks.clone()));
        let local = Local { node: node.clone(), chats };
        let quit = watch::channel(false).0;
        let shared = Shared { node: node.clone(), tokens: tokens.clone(), web: web.clone(), links, address, quit };
        let (router, needs) = local_routes().with_state(local).merge(server_routes()).into_parts();
        let needs = Arc::new(needs);
        let here = guard::Guard::here(tokens.clone(), needs.clone(), web.clone(), address, allowed);
        let network = guard::Guard::network(tokens.clone(), needs, web.clone());
        let app = router
            .fallback(error::not_found)
            .layer(farewell)
            .layer(axum::middleware::map_response(error::in_json))
            .layer(audited)
            .with_state(shared);
        let guarded = |guard| app.clone().layer(axum::middleware::from_fn_with_state(Arc::new(guard), guard::check));
        let (app, network) = (guarded(here), guarded(network));
        let (stop, stopped) = oneshot::channel();
        tasks.spawn(server::serve(listener, None, app, server::Limits::default(), stopped));
        Ok(Self { address, warning, tokens, web, node, network, stop, tasks })
    }

    /// Stops accepting requests and waits up to two seconds for responses in progress. Pending answers return what they
    /// have once the node ends them ([`Node::end_answers`]).
    pub async fn stop(self) {
        drop(self.stop);
        self.web.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Opens HiveMind's pages to browsers, or closes them. `bind` is where other devices reach them; port
    /// 4484 on every address if `None`.
    ///
    /// # Errors
    /// The address for other devices cannot be used, or there is no certificate for it. The pages are closed then.
    pub async fn open_to_browsers(
        &self,
        access: BrowserAccess,
        bind: Option<SocketAddr>,
        pages: Pages,
    ) -> Result<(), ApiError> {
        let (bind, addresses) = (bind.unwrap_or(web::DEFAULT_BROWSER_ADDRESS), web::addresses(&self.node));
        self.web.open(access, bind, pages, &addresses, self.network.clone()).await
    }

    /// Makes a link that lets one browser in; none if the pages are closed.
    pub fn browser_link(&self) -> Option<BrowserLink> {
        self.web.link(&web::addresses(&self.node))
    }

    /// Set if the location could not be written, so that programs may not find the API.
    pub fn warning(&self) -> Option<&DataWarning> {
        self.warning.as_ref()
    }

    /// The listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Publishes the API's address to programs on this machine, unless it is already there. Replacing the file works on a
/// full disk too, since the new one is no larger.
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
