//! This machine's address in the swarm, and the peers it talks to.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use iroh::endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{EndpointAddr, EndpointId, RelayMode, TransportAddr};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};

/// A prompt chunk of a large model is tens of megabytes; with iroh's 1.25 MB it would wait for a round trip many times.
const STREAM_WINDOW_BYTES: u32 = 32 << 20;

/// Close code for a peer that is not allowed in.
const REFUSED: u32 = 1;

/// Streams accepted but not yet taken by the node. More than a swarm ever opens at once.
const WAITING_STREAMS: usize = 256;

/// Names a machine: its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(EndpointId);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.fmt_short())
    }
}

/// A machine and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddr(EndpointAddr);

impl PeerAddr {
    /// Whose address it is.
    pub fn id(&self) -> PeerId {
        PeerId(self.0.id)
    }
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Questions and answers.
    Control,
    /// Frames of the ring.
    Stage,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Control, Self::Stage];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Control => b"hivemind/control/1",
            Self::Stage => b"hivemind/stage/1",
        }
    }
}

/// One stream to a peer.
#[derive(Debug)]
pub struct Channel {
    /// What this side writes to.
    pub send: SendStream,
    /// What this side reads from.
    pub recv: RecvStream,
}

/// A channel that a peer opened.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub peer: PeerId,
    /// What for.
    pub protocol: Protocol,
    /// The stream.
    pub channel: Channel,
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    address: SocketAddr,
    why: String,
}

/// Why a channel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer is not allowed here.
    #[error("machine {0} is not approved")]
    NotAllowed(PeerId),
    /// It could not be reached.
    #[error("machine {peer} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// The cause.
        why: String,
    },
}

/// This machine in the swarm. Clones share it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: iroh::Endpoint,
    allowed: Arc<RwLock<BTreeSet<PeerId>>>,
    connections: Arc<Mutex<HashMap<(PeerId, Protocol), Connection>>>,
}

impl Endpoint {
    /// Listens on `address`, with no relay, no lookup service and no port mapping: nothing leaves for anywhere but the
    /// peers that are dialled. Port 0 takes a free one. What peers open arrives on the receiver.
    pub async fn bind(address: SocketAddr) -> Result<(Self, mpsc::Receiver<Incoming>), BindError> {
        let refuse = |why: String| BindError { address, why };
        // iroh falls back to another port where the wanted one is taken, which would leave a peer with a wrong address.
        if address.port() != 0 {
            std::net::UdpSocket::bind(address).map_err(|error| refuse(error.to_string()))?;
        }
        let window = VarInt::from_u32(STREAM_WINDOW_BYTES);
        let transport = QuicTransportConfig::builder().stream_receive_window(window).receive_window(window).build();
        let inner = iroh::Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(address)
            .map_err(|error| refuse(error.to_string()))?
            .transport_config(transport)
            .alpns(Protocol::ALL.iter().map(|protocol| protocol.alpn().to_vec()).collect())
            .bind()
            .await
            .map_err(|error| refuse(format!("{error:#}")))?;
        let endpoint = Self { inner, allowed: Arc::default(), connections: Arc::default() };
        let (incoming, receiver) = mpsc::channel(WAITING_STREAMS);
        tokio::spawn(accept_connections(endpoint.clone(), incoming));
        Ok((endpoint, receiver))
    }

    /// Who this machine is.
    pub fn id(&self) -> PeerId {
        PeerId(self.inner.id())
    }

    /// Where this machine can be reached.
    pub fn addr(&self) -> PeerAddr {
        let sockets = self.inner.bound_sockets().into_iter().map(TransportAddr::Ip);
        PeerAddr(EndpointAddr::from_parts(self.inner.id(), sockets))
    }

    /// Lets a peer in.
    pub fn allow(&self, peer: PeerId) {
        self.allowed.write().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    fn is_allowed(&self, peer: PeerId) -> bool {
        self.allowed.read().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    /// Opens a channel; a living connection to the peer is used again. The opener must write first.
    pub async fn open(&self, to: &PeerAddr, protocol: Protocol) -> Result<Channel, ConnectError> {
        let peer = to.id();
        if !self.is_allowed(peer) {
            return Err(ConnectError::NotAllowed(peer));
        }
        let unreachable = |why: String| ConnectError::Unreachable { peer, why };
        let mut connections = self.connections.lock().await;
        let known = connections.get(&(peer, protocol)).filter(|connection| connection.close_reason().is_none());
        let connection = if let Some(connection) = known {
            connection.clone()
        } else {
            let connection = self.inner.connect(to.0.clone(), protocol.alpn()).await;
            let connection = connection.map_err(|error| unreachable(format!("{error:#}")))?;
            connections.insert((peer, protocol), connection.clone());
            connection
        };
        drop(connections);
        let (send, recv) = connection.open_bi().await.map_err(|error| unreachable(error.to_string()))?;
        Ok(Channel { send, recv })
    }

    /// Closes every connection. Await it before the process ends, so that peers notice at once.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

async fn accept_connections(endpoint: Endpoint, incoming: mpsc::Sender<Incoming>) {
    while let Some(connecting) = endpoint.inner.accept().await {
        let (endpoint, incoming) = (endpoint.clone(), incoming.clone());
        tokio::spawn(async move {
            let connection = match connecting.await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!("a handshake failed: {error}");
                    return;
                }
            };
            let peer = PeerId(connection.remote_id());
            let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.alpn() == connection.alpn());
            let Some(protocol) = protocol.filter(|_| endpoint.is_allowed(peer)) else {
                tracing::info!("refused machine {peer}: it is not approved");
                connection.close(VarInt::from_u32(REFUSED), b"not approved");
                return;
            };
            while let Ok((send, recv)) = connection.accept_bi().await {
                let channel = Channel { send, recv };
                if incoming.send(Incoming { peer, protocol, channel }).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn a_peer_that_is_not_allowed_gets_no_channel() {
        let (host, mut incoming) = Endpoint::bind(loopback()).await.unwrap();
        let (stranger, _) = Endpoint::bind(loopback()).await.unwrap();
        assert!(matches!(stranger.open(&host.addr(), Protocol::Stage).await, Err(ConnectError::NotAllowed(_))));

        // Even if the stranger's own side lets it dial.
        stranger.allow(host.id());
        if let Ok(mut channel) = stranger.open(&host.addr(), Protocol::Stage).await {
            let _ = channel.send.write_all(b"hello").await;
            assert!(channel.recv.read_to_end(10).await.is_err(), "the host must close the connection");
        }
        assert!(incoming.try_recv().is_err());

        host.allow(stranger.id());
        let mut channel = stranger.open(&host.addr(), Protocol::Control).await.unwrap();
        channel.send.write_all(b"hello").await.unwrap();
        let accepted = incoming.recv().await.unwrap();
        assert_eq!((accepted.peer, accepted.protocol), (stranger.id(), Protocol::Control));
        host.close().await;
        stranger.close().await;
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let taken = std::net::UdpSocket::bind(loopback()).unwrap();
        let message = Endpoint::bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(message.contains(&taken.local_addr().unwrap().to_string()) && message.contains("in use"), "{message}");
    }
}
