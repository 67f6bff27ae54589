//! This machine's address in the swarm, and its connections to peers.

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

/// Flow-control window of one stream, in bytes. A prompt chunk of a large model is tens of megabytes, so a larger
/// window would save round trips. But a stream with more than [`MOST_GAPS`] gaps in its received data ends the whole
/// connection, and a busy machine drops packets by the hundred.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const MOST_GAPS: u32 = 1024;
const SMALLEST_PACKET_BYTES: u32 = 1200;
const _: () =
    assert!(STREAM_WINDOW_BYTES / (2 * SMALLEST_PACKET_BYTES) < MOST_GAPS, "every second packet may be missing");

/// Flow-control window of a stranger, in bytes: a pairing is a few hundred bytes. Approved peers get more.
const STRANGER_WINDOW_BYTES: u32 = 16 << 10;
/// Streams a stranger may have open at a time (a pairing, and one that is ending), and per connection in all.
const STRANGER_STREAMS: u32 = 2;
const STRANGER_STREAMS_IN_ALL: usize = 16;

/// Streams accepted but not yet taken by the node. More than a swarm ever opens at once.
const WAITING_STREAMS: usize = 256;

/// No peer's handshake takes longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a closing endpoint waits for its tasks: their connections are closed, so they end at once.
const TASKS_TIMEOUT: Duration = Duration::from_secs(2);
/// A dial is answered in one round trip, or a few with packet loss.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Assumed round trip before the first sample: a dial waits three of these before it retransmits, then twice as long
/// each time. Strangers who flood a machine cause packet loss, and QUIC's default of a second each would be too long.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// How often a dial is retried because its address proof was lost ([`lost_proof`]).
const LOST_PROOFS: usize = 8;

/// A bidirectional stream to one peer.
#[derive(Debug)]
pub struct Channel {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// A stranger's visit, which lasts as long as any of its channels.
    visit: Option<Arc<Visit>>,
}

impl Channel {
    pub(crate) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, visit: None }
    }

    /// Marks that the opener's request has arrived.
    pub(crate) fn heard(&self) {
        if let Some(visit) = &self.visit {
            visit.heard();
        }
    }

    /// Gives this stream a lower priority than all others of the connection.
    pub fn give_way(&self) {
        let _ = self.send.set_priority(-1);
    }

    /// Ends this side's direction of the stream.
    pub fn finish(&mut self) {
        let _ = self.send.finish();
    }

    /// Resolves when the other side stops reading: it has dropped the channel, or is gone.
    pub fn hung_up(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.send.stopped();
        async move { drop(stopped.await) }
    }
}

/// A channel opened by a peer.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it.
    pub peer: PeerId,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where the peer connected from.
    pub origin: Origin,
    /// The channel.
    pub channel: Channel,
}

/// The path that carries the traffic to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its kind.
    pub kind: LinkKind,
    /// The other end: a socket address, or a relay.
    pub remote: String,
    /// Round trip in microseconds.
    pub round_trip_us: u64,
}

/// This machine's endpoint. Clones share it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: iroh::Endpoint,
    admission: Admission,
    networks: Networks,
    rates: Rates,
    /// The owner's own relay, included in addresses even while it is unreachable.
    own_relay: Option<String>,
    /// The relays that this machine's owner chose.
    relays: Vec<RelayUrl>,
    /// Which addresses of other machines may be dialled.
    range: Range,
    addresses: Arc<StdMutex<AddressBook>>,
    door: Arc<Door>,
    connections: Arc<Mutex<HashMap<(PeerId, Protocol), Connection>>>,
    /// Receives the channels that peers open.
    incoming: mpsc::Sender<Incoming>,
    /// Tasks that accept and serve connections. All of them end when the endpoint closes.
    tasks: TaskTracker,
}

impl Endpoint {
    /// Binds and listens. Without a relay there is no lookup service and no port mapping either: packets go only to
    /// dialled peers. Channels opened by peers arrive on the receiver.
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

    /// This machine's id.
    pub fn id(&self) -> PeerId {
        PeerId(self.inner.id())
    }

    /// This machine's address: every socket address it knows of itself, and its relay.
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

    /// The allow-list.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// This machine's networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Measured rates of paths, used to choose between them.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Records that a person named these addresses, or that a connection was made over them.
    pub fn vouch(&self, addr: &PeerAddr, from: ReachableFrom) {
        let mut addresses = lock(&self.addresses);
        for socket in addr.sockets() {
            addresses.vouch(addr.id(), socket, from);
        }
        if let Some(relay) = addr.0.relay_urls().next() {
            addresses.vouch_relay(addr.id(), relay.clone());
        }
    }

    /// Lets a machine that this owner is pairing with connect from these addresses without queueing among strangers.
    pub fn expect_from(&self, addr: &PeerAddr) {
        lock(&self.addresses).expect(addr.id(), &addr.sockets(), Instant::now());
    }

    /// Forgets a peer's addresses: connections from there count as a stranger's again.
    pub fn forget(&self, peer: PeerId) {
        lock(&self.addresses).forget(peer);
    }

    /// Tells iroh that the machine's interfaces changed, in case the system's notification is slow.
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

    /// Opens a channel, over a live connection to the peer if there is one. The opener must write first.
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

    /// The subset of a machine's named addresses that may be dialled.
    fn dialled(&self, to: &PeerAddr) -> Result<EndpointAddr, ConnectError> {
        let peer = to.id();
        let rules = Rules {
            range: self.range,
            networks: &self.networks,
            loopback: self.inner.bound_sockets().iter().any(|socket| socket.ip().is_loopback()),
            connected: !self.admission.connections(peer).is_empty(),
        };
        let mut addresses = lock(&self.addresses);
        // Relays are chosen by this owner or by the inviter, not by whoever else named the machine.
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
        // A connection opened by the peer serves as well, and may be the only way to a machine behind a router.
        let theirs = self.admission.connections(peer).into_iter().find(|c| c.alpn() == protocol.alpn());
        if let Some(theirs) = theirs.filter(|_| protocol != Protocol::Pair) {
            return Ok(theirs);
        }
        // Not under the lock: a peer that does not answer must not block others.
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
        if tokio::time::timeout(TASKS_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} connections were still being served when the endpoint had closed", self.tasks.len());
        }
    }
}

/// The error for a connection that closed under a stream.
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

/// Whether an address proof was sent from another address. Until the peer is authenticated, a handshake continues over
/// the address that answered last, and a peer dialled at several addresses may answer from each.
fn lost_proof(error: &iroh::endpoint::ConnectError) -> bool {
    use iroh::endpoint::{ConnectError, ConnectingError, ConnectionError, TransportErrorCode};
    let (ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. }
    | ConnectError::Connection { source, .. }) = error
    else {
        return false;
    };
    matches!(source, ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::INVALID_TOKEN)
}

/// Transport settings for every connection: small windows until the peer is known.
///
/// The acknowledgement frequency stays at QUIC's default: noq 1.4 writes the request to change it into packets that
/// have no room left, and panics.
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

/// An unspecified address covers every interface, those of the other family included.
fn addresses(bind: SocketAddr) -> Vec<SocketAddr> {
    if bind.ip().is_unspecified() {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        any.map(|ip| SocketAddr::new(ip, bind.port())).to_vec()
    } else {
        vec![bind]
    }
}

/// The address with its port resolved. Port 0 becomes one that is free in both families, since a record has one port
/// for both. A requested port must be free: iroh would fall back to another, and leave peers with a wrong address.
fn one_port(bind: SocketAddr) -> std::io::Result<SocketAddr> {
    // A dual-stack socket takes a port that is free in both families; a system without IPv6 has one family only.
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

/// Serves a connection opened by a peer, for as long as it may stay.
async fn receive(endpoint: Endpoint, connection: Connection, origin: Origin) {
    let peer = PeerId(connection.remote_id());
    if connection.alpn() != Protocol::Pair.alpn() || endpoint.admission.is_approved(peer) {
        // The admission hook lets nobody else in.
        return serve_streams(endpoint, connection, origin, None).await;
    }
    let visit = Arc::new(Visit::default());
    let (door, admission) = (endpoint.door.clone(), endpoint.admission.clone());
    tokio::select! {
        () = serve_streams(endpoint, connection.clone(), origin, Some(visit.clone())) => {}
        () = door.should_close(origin, peer, &admission, &visit) => {}
    }
    // A stranger's connection does not outlive its task.
    if !admission.is_approved(peer) {
        door::evict(&connection);
    }
}

/// Passes on the streams that a peer opens on a connection, whichever side made it.
async fn serve_streams(endpoint: Endpoint, connection: Connection, origin: Origin, visit: Option<Arc<Visit>>) {
    let peer = PeerId(connection.remote_id());
    // The admission hook has checked the ALPN; unknown protocols never get here.
    let Some(protocol) = Protocol::from_alpn(connection.alpn()) else { return };
    let mut opened = 0;
    while let Ok((send, recv)) = connection.accept_bi().await {
        opened += 1;
        // A revoke closes the connection; a stream opened at that moment must not slip through.
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
        // The other side does not read, so the window fills and the writer blocks.
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

    /// A proxy for a host: forwards each packet after the delay that `delay` gives for its number, or drops it.
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
        // Both ask for a proof. The first path loses it; the retry over the second arrives.
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
