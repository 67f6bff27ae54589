//! Machine ids and addresses.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::str::FromStr;

use iroh::{EndpointAddr, EndpointId, RelayUrl, TransportAddr};
use serde::{Deserialize, Serialize};

/// A machine's id: its public key.
#[derive(Debug, Clone, Copy, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerId(pub(crate) EndpointId);

/// Compares bytes. Keys themselves compare in constant time, as secrets do, which is slow with many machines.
impl PartialEq for PeerId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Hash for PeerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PeerId {
    pub(crate) fn new(id: EndpointId) -> Self {
        Self(id)
    }

    /// The key's bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The whole key as text, which [`FromStr`] parses.
    pub fn to_text(self) -> String {
        self.0.to_string()
    }
}

/// The first characters of the key: enough to tell machines apart in a list or a log.
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.fmt_short())
    }
}

impl FromStr for PeerId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        text.parse().map(Self).map_err(|_| NotAnId)
    }
}

/// Text that is not a machine id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a machine's id")]
pub struct NotAnId;

/// A machine and the addresses to reach it at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddr(pub(crate) EndpointAddr);

impl PeerAddr {
    /// A machine at these addresses.
    pub fn new(peer: PeerId, sockets: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(EndpointAddr::from_parts(peer.0, sockets.into_iter().map(TransportAddr::Ip)))
    }

    /// The machine's id.
    pub fn id(&self) -> PeerId {
        PeerId(self.0.id)
    }

    /// Its socket addresses.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.0.ip_addrs().copied().collect()
    }

    /// Its relay, as text.
    pub fn relay(&self) -> Option<String> {
        self.0.relay_urls().next().map(ToString::to_string)
    }

    /// The same machine, reachable through a relay as well.
    #[must_use]
    pub fn with_relay(self, relay: &str) -> Self {
        match RelayUrl::from_str(relay) {
            Ok(url) => Self(self.0.with_relay_url(url)),
            Err(_) => self,
        }
    }
}
