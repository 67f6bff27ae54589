//! This machine's address in the swarm, and the peers it talks to.

mod door;
mod options;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use iroh::endpoint::{Connection, PortmapperConfig, QuicTransportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{EndpointAddr, RelayMode, RelayUrl, TransportAddr};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use crate::addr::{PeerAddr, PeerId};
use crate::admission::Admission;
use crate::links::{LinkKind, Networks, Preference, Rates};
use crate::lock::lock;
use crate::near::{AddressBook, Range, ReachableFrom, Rules};
use crate::protocol::Protocol;
use crate::strangers::Origin;

use door::{Door, Visit};
pub use options::{BindError, ConnectError, EndpointOptions, Relay};

/// Bytes in flight on one stream. A prompt chunk of a large model is tens of megabytes, so more would save it round trips.
/// But a stream with more than [`MOST_GAPS`] in what has come ends the whole connection, and a busy machine drops packets by
/// the hundred.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const MOST_GAPS: u32 = 1024;
const SMALLEST_PACKET_BYTES: u32 = 1200;
const _: () =
    assert!(STREAM_WINDOW_BYTES / (2 * SMALLEST_PACKET_BYTES) < MOST_GAPS, "every second packet may be missing");

/// What a stranger may have in flight: a pairing is a few hundred bytes. Approved peers get more once they are known.
const STRANGER_WINDOW_BYTES: u32 = 16 << 10;
/// Streams a stranger may open at a time: one pairing, and one more while it ends. And over one connection.
const STRANGER_STREAMS: u32 = 2;
const STRANGER_STREAMS_IN_ALL: usize = 16;

/// Streams accepted but not yet taken by the node. More than a swarm ever opens at once.
const WAITING_STREAMS: usize = 256;

/// A handshake that takes longer is no peer of ours.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an endpoint that closes waits for what serves its connections: they are closed, so it ends at once.
const TASKS_END_WITHIN: Duration = Duration::from_secs(2);
/// A dial is answered in one round trip, or a few where packets get lost.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// The round trip that is reckoned with before one was seen: a dial waits three of these before it sends its first packet
/// again, then twice as long each time. Packets are lost where strangers flood a machine, and a second each would be long.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// How often a dial begins anew because the proof of an address was lost ([`lost_proof`]).
const LOST_PROOFS: usize = 8;

/// Two directions of bytes to one peer.
#[derive(Debug)]
pub struct Channel {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// The connection of a stranger, which stays for as long as one of its channels does.
    visit: Option<Arc<Visit>>,
}

impl Channel {
    pub(crate) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, visit: None }
    }

    /// Whoever opened this has said what it wants.
    pub(crate) fn heard(&self) {
        if let Some(visit) = &self.visit {
            visit.heard();
        }
    }

    /// Says that nothing more comes from this side.
    pub fn finish(&mut self) {
        let _ = self.send.finish();
    }

    /// Ends when the other side takes nothing more: it has dropped the channel, or is gone.
    pub fn hung_up(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.send.stopped();
        async move { drop(stopped.await) }
    }
}

/// A channel that a peer has opened.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub peer: PeerId,
    /// What for.
    pub protocol: Protocol,
    /// Where from.
    pub origin: Origin,
    /// The channel.
    pub channel: Channel,
}

/// The path that carries the traffic to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// What it is made of.
    pub kind: LinkKind,
    /// The other end: a socket address, or a relay.
    pub remote: String,
    /// Round trip in microseconds.
    pub round_trip_us: u64,
}

/// This machine in the swarm. Clones share it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: iroh::Endpoint,
    admission: Admission,
    networks: Networks,
    rates: Rates,
    /// The relay of one's own, named in addresses also while it cannot be reached.
    own_relay: Option<String>,
    /// The relays that this machine's owner chose.
    relays: Vec<RelayUrl>,
    /// Which addresses of the others may be dialled.
    range: Range,
    addresses: Arc<StdMutex<AddressBook>>,
    door: Arc<Door>,
    connections: Arc<Mutex<HashMap<(PeerId, Protocol), Connection>>>,
    /// Where what peers open goes.
    incoming: mpsc::Sender<Incoming>,
    /// What accepts and serves connections. All of it ends when the endpoint closes.
    tasks: TaskTracker,
}

impl Endpoint {
    /// Listens. Without a relay there is no lookup service and no port mapping either: nothing leaves for anywhere but
    /// the peers that are dialled. What peers open arrives on the receiver.
    pub async fn bind(options: EndpointOptions) -> Result<(Self, mpsc::Receiver<Incoming>), BindError> {
        let EndpointOptions { identity, bind, relay, admission, networks, range } = options;
        let refuse = |why: String| BindError::new(bind, why);
        let bind = one_port(bind).map_err(|error| refuse(error.to_string()))?;
        let relay_mode = match &relay {
            Relay::None => RelayMode::Disabled,
            Relay::Public => RelayMode::Default,
            Relay::Own(url) => {
                let url = RelayUrl::from_str(url).map_err(|error| refuse(format!("the relay {url}: {error}")))?;
                RelayMode::custom([url])
            }
        };
        let relays = relay_mode.relay_map().urls();
        let rates = Rates::default();
        let mut builder = match &relay {
            Relay::Public => iroh::Endpoint::builder(presets::N0),
            Relay::None | Relay::Own(_) => iroh::Endpoint::builder(presets::Minimal),
        };
        builder = builder.clear_ip_transports();
        for address in addresses(bind) {
            builder = builder.bind_addr(address).map_err(|error| refuse(error.to_string()))?;
        }
        let inner = builder
            .secret_key(identity.secret())
            .relay_mode(relay_mode)
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport())
            .path_selector(Arc::new(Preference { networks: networks.clone(), rates: rates.clone() }))
            .hooks(admission.clone())
            .alpns(Protocol::ALL.iter().map(|protocol| protocol.alpn().to_vec()).collect())
            .bind()
            .await
            .map_err(|error| refuse(format!("{error:#}")))?;
        let own_relay = if let Relay::Own(url) = relay { Some(url) } else { None };
        let (incoming, receiver) = mpsc::channel(WAITING_STREAMS);
        let endpoint = Self {
            inner,
            admission,
            networks,
            rates,
            own_relay,
            relays,
            range,
            addresses: Arc::default(),
            door: Arc::default(),
            connections: Arc::default(),
            incoming,
            tasks: TaskTracker::new(),
        };
        endpoint.tasks.spawn(accept_connections(endpoint.clone()));
        Ok((endpoint, receiver))
    }

    /// Who this machine is.
    pub fn id(&self) -> PeerId {
        PeerId(self.inner.id())
    }

    /// Where this machine can be reached: every address it knows of itself, and its relay.
    pub fn addr(&self) -> PeerAddr {
        let bound = self.inner.bound_sockets();
        let usable = |socket: &SocketAddr| !socket.ip().is_unspecified();
        let sockets = bound.into_iter().filter(usable).map(TransportAddr::Ip);
        let mut addr = self.inner.addr();
        addr.addrs.extend(sockets);
        let addr = PeerAddr(addr);
        match &self.own_relay {
            Some(relay) if addr.relay().is_none() => addr.with_relay(relay),
            _ => addr,
        }
    }

    /// The UDP port this machine listens on.
    pub fn port(&self) -> u16 {
        self.inner.bound_sockets().first().map_or(0, SocketAddr::port)
    }

    /// Who may come in.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// This machine's networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// What paths were measured to carry: the choice between them goes by it.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// A person said that a machine is there, or a connection to it was made over these addresses.
    pub fn vouch(&self, addr: &PeerAddr, from: ReachableFrom) {
        let mut addresses = lock(&self.addresses);
        for socket in addr.sockets() {
            addresses.vouch(addr.id(), socket, from);
        }
        if let Some(relay) = addr.0.relay_urls().next() {
            addresses.vouch_relay(addr.id(), relay.clone());
        }
    }

    /// This owner pairs with a machine that may come from these addresses: it does not wait among strangers.
    pub fn expect_from(&self, addr: &PeerAddr) {
        lock(&self.addresses).expect(addr.id(), &addr.sockets(), Instant::now());
    }

    /// This owner wants nothing of a machine any more: who comes from where it was is a stranger.
    pub fn forget(&self, peer: PeerId) {
        lock(&self.addresses).forget(peer);
    }

    /// Tells iroh that the machine's interfaces changed, where the system's own notice may be slow.
    pub async fn network_changed(&self) {
        self.inner.network_change().await;
    }

    /// The path in use to a peer, while there is a connection.
    pub fn link(&self, peer: PeerId) -> Option<Link> {
        let connections = self.admission.connections(peer);
        let links = connections.iter().filter_map(|connection| {
            let paths = connection.paths();
            let path = paths.iter().min_by_key(|path| (!path.is_selected(), path.rtt()))?;
            let (kind, remote) = match path.remote_addr() {
                TransportAddr::Ip(socket) => (self.networks.kind(socket.ip()), socket.to_string()),
                TransportAddr::Relay(url) => (LinkKind::Relay, url.to_string()),
                _ => (LinkKind::Other, String::new()),
            };
            Some(Link { kind, remote, round_trip_us: path.rtt().as_micros() as u64 })
        });
        links.min_by_key(|link| link.round_trip_us)
    }

    /// Opens a channel; a living connection to the peer is used again. The opener must write first.
    pub async fn open(&self, to: &PeerAddr, protocol: Protocol) -> Result<Channel, ConnectError> {
        let peer = to.id();
        if protocol != Protocol::Pair && !self.admission.is_approved(peer) {
            return Err(ConnectError::NotAllowed(peer));
        }
        let connection = self.connection(to, protocol).await?;
        let opened = connection.open_bi().await;
        let (send, recv) = opened.map_err(|error| explain(peer, &connection, &error.to_string()))?;
        Ok(Channel::new(send, recv))
    }

    /// The addresses of a machine that are dialled, of those that were named for it.
    fn dialled(&self, to: &PeerAddr) -> Result<EndpointAddr, ConnectError> {
        let peer = to.id();
        let rules = Rules {
            range: self.range,
            networks: &self.networks,
            loopback: self.inner.bound_sockets().iter().any(|socket| socket.ip().is_loopback()),
            connected: !self.admission.connections(peer).is_empty(),
        };
        let mut addresses = lock(&self.addresses);
        // Relays are a choice of this owner, or of the one who invited, and not of whoever else named the machine.
        let relays = to.0.relay_urls().filter(|url| self.relays.contains(url) || addresses.is_relay_of(peer, url));
        let relayed: Vec<TransportAddr> = relays.cloned().map(TransportAddr::Relay).collect();
        let chosen = match addresses.choose(peer, &to.sockets(), &rules, Instant::now()) {
            Ok(chosen) => chosen,
            Err(_) if !relayed.is_empty() => Vec::new(),
            Err(why) => return Err(ConnectError::NotDialled { peer, why }),
        };
        let direct = chosen.into_iter().map(TransportAddr::Ip);
        Ok(EndpointAddr::from_parts(to.0.id, direct.chain(relayed)))
    }

    async fn connection(&self, to: &PeerAddr, protocol: Protocol) -> Result<Connection, ConnectError> {
        let peer = to.id();
        let alive = |connections: &HashMap<_, Connection>| {
            connections.get(&(peer, protocol)).filter(|connection| connection.close_reason().is_none()).cloned()
        };
        if let Some(known) = alive(&*self.connections.lock().await) {
            return Ok(known);
        }
        // One that the peer has opened serves as well, and may be the only way to a machine behind a router.
        let theirs = self.admission.connections(peer).into_iter().find(|c| c.alpn() == protocol.alpn());
        if let Some(theirs) = theirs.filter(|_| protocol != Protocol::Pair) {
            return Ok(theirs);
        }
        // Not under the lock: a peer that does not answer must not keep others waiting.
        let dial = tokio::time::timeout(DIAL_TIMEOUT, self.dial(self.dialled(to)?, protocol));
        let unreachable = |why: String| ConnectError::unreachable(peer, &why);
        let connection = match dial.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                let why = format!("{error:#}");
                // TLS alert 120: no application protocol in common.
                return Err(if why.contains("120") { ConnectError::OtherVersion(peer) } else { unreachable(why) });
            }
            Err(_) => return Err(unreachable(format!("no answer for {} seconds", DIAL_TIMEOUT.as_secs()))),
        };
        let mut connections = self.connections.lock().await;
        if let Some(known) = alive(&connections) {
            return Ok(known);
        }
        connections.insert((peer, protocol), connection.clone());
        let origin = connection.paths().iter().next().map_or(Origin::RELAYED, |path| path.remote_addr().into());
        self.tasks.spawn(serve_streams(self.clone(), connection.clone(), origin, None));
        Ok(connection)
    }

    async fn dial(&self, to: EndpointAddr, protocol: Protocol) -> Result<Connection, iroh::endpoint::ConnectError> {
        let mut lost = 0;
        loop {
            match self.inner.connect(to.clone(), protocol.alpn()).await {
                Err(error) if lost_proof(&error) && lost < LOST_PROOFS => lost += 1,
                done => return done,
            }
        }
    }

    /// Closes every connection. Await it before the process ends, so that peers notice at once.
    pub async fn close(&self) {
        self.connections.lock().await.clear();
        self.inner.close().await;
        self.tasks.close();
        if tokio::time::timeout(TASKS_END_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} connections were still being served when the endpoint had closed", self.tasks.len());
        }
    }
}

/// The error of a connection that closed under a stream.
fn explain(peer: PeerId, connection: &Connection, why: &str) -> ConnectError {
    match connection.close_reason() {
        Some(iroh::endpoint::ConnectionError::ApplicationClosed(close))
            if close.reason.starts_with(b"not approved") =>
        {
            ConnectError::Refused(peer)
        }
        _ => ConnectError::unreachable(peer, why),
    }
}

/// Whether a proof of one address was sent from another. Until a handshake has come so far that the peer is known, it goes on
/// by the address that the peer answered from last, and a peer that is dialled at several may answer from each.
fn lost_proof(error: &iroh::endpoint::ConnectError) -> bool {
    use iroh::endpoint::{ConnectError, ConnectingError, ConnectionError, TransportErrorCode};
    let (ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. }
    | ConnectError::Connection { source, .. }) = error
    else {
        return false;
    };
    matches!(source, ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::INVALID_TOKEN)
}

/// How connections are, whoever makes them: small until their maker is known.
///
/// Acknowledgements are left at QUIC's own pace: noq 1.4 writes a request for fewer of them into packets that have no room
/// left, and panics.
pub(crate) fn transport() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .initial_rtt(FIRST_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(STRANGER_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .build()
}

/// An unspecified address stands for every interface, and that includes those of the other family.
fn addresses(bind: SocketAddr) -> Vec<SocketAddr> {
    if bind.ip().is_unspecified() {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        any.map(|ip| SocketAddr::new(ip, bind.port())).to_vec()
    } else {
        vec![bind]
    }
}

/// The address with a port: one that is free for both families where any will do, for a record has one port for both. One
/// that was asked for must be free, since iroh would fall back to another, and leave peers with a wrong address.
fn one_port(bind: SocketAddr) -> std::io::Result<SocketAddr> {
    // One socket for both families takes a port that is free in both; a system without IPv6 has one family only.
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let free = match bind.port() {
        0 if bind.ip().is_unspecified() => UdpSocket::bind(both).or_else(|_| UdpSocket::bind(bind))?,
        _ => UdpSocket::bind(bind)?,
    };
    Ok(SocketAddr::new(bind.ip(), free.local_addr()?.port()))
}

async fn accept_connections(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.inner.accept().await {
        let origin = Origin::from(&incoming.remote_addr());
        let comer = |ip| lock(&endpoint.addresses).comer(ip, Instant::now());
        let Some((incoming, mut handshake)) = endpoint.door.answer(incoming, &endpoint.admission, comer) else {
            continue;
        };
        let endpoint = endpoint.clone();
        endpoint.tasks.clone().spawn(async move {
            let connection = tokio::select! {
                connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming) => match connected {
                    Ok(Ok(connection)) => connection,
                    Ok(Err(error)) => {
                        tracing::debug!("a handshake failed: {error}");
                        return;
                    }
                    Err(_) => return,
                },
                () = handshake.is_evicted() => return,
            };
            drop(handshake);
            receive(endpoint, connection, origin).await;
        });
    }
}

/// Serves a connection that a peer has made, for as long as it may stay.
async fn receive(endpoint: Endpoint, connection: Connection, origin: Origin) {
    let peer = PeerId(connection.remote_id());
    if connection.alpn() != Protocol::Pair.alpn() || endpoint.admission.is_approved(peer) {
        // The hook has let nobody else in.
        return serve_streams(endpoint, connection, origin, None).await;
    }
    let visit = Arc::new(Visit::default());
    let (door, admission) = (endpoint.door.clone(), endpoint.admission.clone());
    tokio::select! {
        () = serve_streams(endpoint, connection.clone(), origin, Some(visit.clone())) => {}
        () = door.should_close(origin, peer, &admission, &visit) => {}
    }
    // A stranger's connection is of no use without the one who serves it.
    if !admission.is_approved(peer) {
        door::evict(&connection);
    }
}

/// Hands on what the peer opens on a connection, whichever side made it.
async fn serve_streams(endpoint: Endpoint, connection: Connection, origin: Origin, visit: Option<Arc<Visit>>) {
    let peer = PeerId(connection.remote_id());
    // The hook has decided; a protocol it does not know never gets here.
    let Some(protocol) = Protocol::from_alpn(connection.alpn()) else { return };
    let mut opened = 0;
    while let Ok((send, recv)) = connection.accept_bi().await {
        opened += 1;
        // A revoke closes the connection; a stream that was under way at that moment must not slip through.
        let permitted = endpoint.admission.still_permits(peer, protocol);
        if !permitted || visit.is_some() && opened > STRANGER_STREAMS_IN_ALL {
            return;
        }
        let channel = Channel { visit: visit.clone(), ..Channel::new(send, recv) };
        if endpoint.incoming.send(Incoming { peer, protocol, origin, channel }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::near::NotDialled;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    async fn bound() -> (Endpoint, mpsc::Receiver<Incoming>) {
        Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback())).await.unwrap()
    }

    #[tokio::test]
    async fn a_peer_that_is_not_allowed_gets_no_channel() {
        let ((host, mut incoming), (stranger, _)) = (bound().await, bound().await);
        assert!(matches!(stranger.open(&host.addr(), Protocol::Stage).await, Err(ConnectError::NotAllowed(_))));

        // Even if the stranger's own side lets it dial.
        stranger.admission().approve(host.id());
        for protocol in [Protocol::Stage, Protocol::Control] {
            if let Ok(mut channel) = stranger.open(&host.addr(), protocol).await {
                let _ = channel.send.write_all(b"hello").await;
                assert!(channel.recv.read_to_end(10).await.is_err(), "the host must close the connection");
            }
        }
        assert!(incoming.try_recv().is_err());

        host.admission().approve(stranger.id());
        let mut channel = stranger.open(&host.addr(), Protocol::Control).await.unwrap();
        channel.send.write_all(b"hello").await.unwrap();
        let accepted = incoming.recv().await.unwrap();
        assert_eq!((accepted.peer, accepted.protocol), (stranger.id(), Protocol::Control));
        host.close().await;
        stranger.close().await;
    }

    #[tokio::test]
    async fn a_revoked_peer_loses_what_it_has_open_and_gets_nothing_new() {
        let ((host, mut incoming), (peer, _)) = (bound().await, bound().await);
        host.admission().approve(peer.id());
        peer.admission().approve(host.id());
        let mut channel = peer.open(&host.addr(), Protocol::Stage).await.unwrap();
        channel.send.write_all(b"hello").await.unwrap();
        let accepted = incoming.recv().await.unwrap();
        assert!(host.admission().is_connected(peer.id()));

        host.admission().revoke(peer.id());
        assert!(channel.recv.read_to_end(10).await.is_err());
        drop(accepted);
        assert!(!host.admission().is_connected(peer.id()));
        if let Ok(mut channel) = peer.open(&host.addr(), Protocol::Stage).await {
            let _ = channel.send.write_all(b"again").await;
            assert!(channel.recv.read_to_end(10).await.is_err());
        }
        assert!(incoming.try_recv().is_err());
        host.close().await;
        peer.close().await;
    }

    #[tokio::test]
    async fn a_stranger_can_pair_but_not_fill_memory() {
        let ((host, mut incoming), (stranger, _)) = (bound().await, bound().await);
        let mut channel = stranger.open(&host.addr(), Protocol::Pair).await.unwrap();
        // Nobody reads on the other side, so the window fills and the writer is left waiting.
        let flood = vec![0; 1 << 20];
        let written = tokio::time::timeout(Duration::from_millis(500), channel.send.write_all(&flood)).await;
        assert!(written.is_err(), "a megabyte went out to a machine that has not approved us");
        assert_eq!(incoming.recv().await.unwrap().protocol, Protocol::Pair);
        host.close().await;
        stranger.close().await;
    }

    #[tokio::test]
    async fn an_address_elsewhere_that_another_machine_names_is_not_dialled() {
        let peer = Identity::generate().id();
        let elsewhere =
            PeerAddr::new(peer, ["8.8.8.8:4000", "[2001:db8::1]:4000"].map(|socket| socket.parse().unwrap()))
                .with_relay("https://relay.example/");
        for range in [Range::Link, Range::Given] {
            let options = EndpointOptions { range, ..EndpointOptions::new(Identity::generate(), loopback()) };
            let (here, _) = Endpoint::bind(options).await.unwrap();
            here.admission().approve(peer);
            if range == Range::Link {
                here.vouch(&PeerAddr::new(peer, elsewhere.sockets()), ReachableFrom::Anywhere);
            }
            for protocol in Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Gauge) {
                let refused = here.open(&elsewhere, protocol).await;
                let far = matches!(refused, Err(ConnectError::NotDialled { why: NotDialled::Far, .. }));
                assert!(far, "{range:?} {protocol:?}: {refused:?}");
            }
            here.close().await;
        }
    }

    #[tokio::test]
    async fn both_families_listen_at_the_one_port_that_is_announced() {
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let (here, _) = Endpoint::bind(EndpointOptions::new(Identity::generate(), anywhere)).await.unwrap();
        let bound = here.inner.bound_sockets();
        assert!(bound.iter().any(SocketAddr::is_ipv4) && bound.iter().any(SocketAddr::is_ipv6), "{bound:?}");
        assert!(bound.iter().all(|socket| socket.port() == here.port()), "{bound:?}");
        here.close().await;
    }

    /// Another address of a host: passes packets on, each as much later as is said by its number, or not at all.
    async fn passage(host: SocketAddr, delay: fn(usize) -> Option<Duration>) -> SocketAddr {
        let [front, back] =
            [tokio::net::UdpSocket::bind(loopback()).await, tokio::net::UdpSocket::bind(loopback()).await];
        let (front, back) = (front.unwrap(), Arc::new(back.unwrap()));
        let address = front.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut there, mut here) = ([0; 2048], [0; 2048]);
            let (mut guest, mut count) = (loopback(), 0);
            loop {
                tokio::select! {
                    Ok((bytes, from)) = front.recv_from(&mut there) => {
                        guest = from;
                        count += 1;
                        let (packet, back) = (there[..bytes].to_vec(), back.clone());
                        if let Some(delay) = delay(count) {
                            tokio::spawn(async move {
                                tokio::time::sleep(delay).await;
                                let _ = back.send_to(&packet, host).await;
                            });
                        }
                    }
                    Ok(bytes) = back.recv(&mut here) => drop(front.send_to(&here[..bytes], guest).await),
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_proof_that_arrives_from_another_address_is_made_anew() {
        let ((host, mut incoming), (stranger, _)) = (bound().await, bound().await);
        let at = SocketAddr::new(loopback().ip(), host.port());
        // Both ask for a proof. What is sent by the first is lost, and comes again by the second.
        let first = passage(at, |count| (count != 2).then_some(Duration::ZERO)).await;
        let second = passage(at, |count| Some(Duration::from_millis(if count == 1 { 50 } else { 0 }))).await;
        let mut channel = stranger.open(&PeerAddr::new(host.id(), [first, second]), Protocol::Pair).await.unwrap();
        channel.write_message(&1u8).await.unwrap();
        assert_eq!(incoming.recv().await.unwrap().peer, stranger.id());
        host.close().await;
        stranger.close().await;
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let taken = std::net::UdpSocket::bind(loopback()).unwrap();
        let options = EndpointOptions::new(Identity::generate(), taken.local_addr().unwrap());
        let message = Endpoint::bind(options).await.unwrap_err().to_string();
        assert!(message.contains(&taken.local_addr().unwrap().to_string()) && message.contains("in use"), "{message}");
    }
}
