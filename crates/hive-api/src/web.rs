//! HiveMind's pages for browsers: on this machine, or on the owner's phones and tablets on the same network.
//!
//! Off unless the owner turns it on. Invariants: on this machine the pages come from the API's own address, over plain
//! HTTP on loopback. For other devices a second listener serves them over TLS with a key of this node's own, whose
//! fingerprint the owner sees beside the link ([`certificate`]). There, only tokens of browsers are accepted: not the
//! owner's, and not those of programs. A browser gets its token for a code that is valid once and for ten minutes
//! ([`links`]); the owner sees it among the programs' tokens, and can revoke it there.

mod certificate;
mod links;
mod pages;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hive_node::Node;
use hive_types::{BrowserAccess, BrowserCertificate, BrowserLink};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::api_error::ApiError;
use crate::server::{self, Limits};

pub(crate) use links::Links;
pub use pages::{Page, Pages};

/// Default listening address for other devices.
pub(crate) const DEFAULT_BROWSER_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 4484);

/// The pages that browsers may open.
pub(crate) struct Web {
    /// The data folder, which has the certificate.
    folder: PathBuf,
    /// The API's own address.
    here: SocketAddr,
    links: Arc<Links>,
    state: Mutex<State>,
    /// The listener for other devices. Held over its start and its end, so that one follows the other.
    listener: tokio::sync::Mutex<Option<Listener>>,
    /// Those of the API, which waits for them when it stops.
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    pages: Option<Pages>,
    /// Where the second listener is bound, and its certificate.
    network: Option<(SocketAddr, BrowserCertificate)>,
}

struct Listener {
    /// Dropping it stops the server.
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("here", &self.here).finish_non_exhaustive()
    }
}

impl Web {
    pub(crate) fn new(folder: &Path, here: SocketAddr, links: Arc<Links>, tasks: TaskTracker) -> Self {
        let (state, listener) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { folder: folder.to_owned(), here, links, state, listener, tasks }
    }

    /// Opens or closes the pages. `addresses` are this machine's own, and `app` is what the second listener serves. If
    /// it fails, they are closed.
    pub(crate) async fn open(
        &self,
        access: BrowserAccess,
        bind: SocketAddr,
        pages: Pages,
        addresses: &[IpAddr],
        app: Router,
    ) -> Result<(), ApiError> {
        let mut listener = self.listener.lock().await;
        if let Some(Listener { stop, served }) = listener.take() {
            drop(stop);
            // If it panicked, there is nothing left to wait for.
            let _ = served.await;
        }
        *self.state() = State::default();
        if access != BrowserAccess::Network {
            self.state().pages = Some(pages).filter(|_| access == BrowserAccess::Here);
            return Ok(());
        }
        let known =
            certificate::open(&self.folder, addresses).map_err(|error| ApiError::Browsers(error.to_string()))?;
        let not_bound = |why| ApiError::BindForBrowsers { address: bind, why };
        let socket = TcpListener::bind(bind).await.map_err(not_bound)?;
        let bound = socket.local_addr().map_err(not_bound)?;
        let (stop, stopped) = oneshot::channel();
        let tls = TlsAcceptor::from(known.config);
        let served = self.tasks.spawn(server::serve(socket, Some(tls), app, Limits::default(), stopped));
        *listener = Some(Listener { stop, served });
        *self.state() = State { pages: Some(pages), network: Some((bound, known.view)) };
        Ok(())
    }

    /// Closes the listener for other devices.
    pub(crate) async fn close(&self) {
        *self.state() = State::default();
        if let Some(Listener { stop, served }) = self.listener.lock().await.take() {
            drop(stop);
            // If it panicked, there is nothing left to wait for.
            let _ = served.await;
        }
    }

    /// The page that a request asks for; none if the pages are closed, or the request is for the API.
    pub(crate) fn page(&self, request: &Request) -> Option<Response> {
        let pages = self.state().pages.clone()?;
        pages::page(request, &pages)
    }

    /// Makes a link that lets one browser in; none if the pages are closed. `addresses` are this machine's own now.
    pub(crate) fn link(&self, addresses: &[IpAddr]) -> Option<BrowserLink> {
        let state = self.state();
        state.pages.as_ref()?;
        let code = self.links.make();
        let (base, certificate) = match &state.network {
            Some((bound, certificate)) => {
                let seen = if bound.ip().is_unspecified() { reachable(addresses) } else { bound.ip() };
                (format!("https://{}", SocketAddr::new(seen, bound.port())), Some(certificate.clone()))
            }
            None => (format!("http://{}", self.here), None),
        };
        let valid_for_s = links::VALID.as_secs();
        // Browsers do not send the fragment, so that the code is in no log of a proxy.
        Some(BrowserLink { url: format!("{base}/#in={code}"), certificate, valid_for_s })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This machine's addresses.
pub(crate) fn addresses(node: &Node) -> Vec<IpAddr> {
    node.status().addresses.iter().map(SocketAddr::ip).collect()
}

/// The address that another device on the network would use.
fn reachable(addresses: &[IpAddr]) -> IpAddr {
    let private = |ip: &&IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_private());
    let open = |ip: &&IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    let found = addresses.iter().find(private).or_else(|| addresses.iter().find(open));
    found.copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_sent_to_the_address_of_its_own_network() {
        let ip = |texts: &[&str]| reachable(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(ip(&["127.0.0.1", "fe80::1", "203.0.113.5", "192.168.1.5"]).to_string(), "192.168.1.5");
        assert_eq!(ip(&["127.0.0.1", "203.0.113.5"]).to_string(), "203.0.113.5");
        assert_eq!(ip(&["127.0.0.1"]).to_string(), "127.0.0.1");
        assert_eq!(ip(&[]).to_string(), "127.0.0.1");
    }
}
