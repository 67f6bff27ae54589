//! Finding machines on this network, by multicast DNS.
//!
//! A record carries a machine's key, its protocol version and its name; none of it is secret, and none of it is
//! trusted: records outlive crashes and anyone can send them, so a machine is *present* only once it answers. They say
//! where to knock.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use mdns_sd::{DaemonEvent, IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;

use crate::addr::{PeerAddr, PeerId};
use crate::pairing::tidy;

/// What HiveMind is announced as.
pub const SERVICE: &str = "_hivemind._udp.local.";

/// The version of the protocols spoken here, as the record says it.
pub const PROTOCOL_VERSION: u32 = 2;

/// How often the system is asked for new addresses. A machine that changes networks is found again within this.
const ADDRESS_CHECK_S: u32 = 1;

/// Found machines on their way to the node.
const WAITING_FINDS: usize = 256;

/// A record, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A machine announces itself.
    Found {
        /// Where.
        addr: PeerAddr,
        /// What it calls itself.
        name: String,
        /// The protocol version it speaks.
        version: u32,
    },
    /// A machine took its record back.
    Gone(PeerId),
    /// The search itself has trouble, in words.
    Trouble(String),
}

/// Why machines cannot be searched for.
#[derive(Debug, thiserror::Error)]
#[error("machines on this network cannot be searched for: {0}")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// Announces this machine and looks for others while it lives.
pub struct Discovery {
    daemon: ServiceDaemon,
    full_name: String,
}

impl Discovery {
    /// Starts on every interface but loopback. `port` is the UDP port the endpoint listens on.
    pub fn start(
        here: PeerId,
        name: &str,
        port: u16,
        version: u32,
    ) -> Result<(Self, mpsc::Receiver<Sighting>), DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        daemon.set_ip_check_interval(ADDRESS_CHECK_S)?;
        let id = here.to_text();
        // Names of instances and hosts are ours to choose; people's names for machines collide.
        let instance = &id[..16];
        let name = tidy(name);
        let version = version.to_string();
        let properties = [("id", id.as_str()), ("v", version.as_str()), ("name", name.as_str())];
        let host = format!("hivemind-{instance}.local.");
        let service = ServiceInfo::new(SERVICE, instance, &host, (), port, &properties[..])?.enable_addr_auto();
        let full_name = service.get_fullname().to_owned();
        let events = daemon.browse(SERVICE)?;
        let monitor = daemon.monitor()?;
        daemon.register(service)?;
        let (sightings, receiver) = mpsc::channel(WAITING_FINDS);
        tokio::spawn(watch(monitor, sightings.clone()));
        tokio::spawn(follow(events, here, sightings));
        Ok((Self { daemon, full_name }, receiver))
    }

    /// Takes the record back, so that others see at once that this machine has gone.
    pub async fn stop(self) {
        if let Ok(done) = self.daemon.unregister(&self.full_name) {
            let _ = done.recv_async().await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_async().await;
        }
    }
}

/// Drains the daemon's channel at once: a slow reader would be dropped from it without a word.
async fn follow(events: mdns_sd::Receiver<ServiceEvent>, here: PeerId, sightings: mpsc::Sender<Sighting>) {
    let mut known: HashMap<String, PeerId> = HashMap::new();
    while let Ok(event) = events.recv_async().await {
        let sighting = match event {
            ServiceEvent::ServiceResolved(service) => match read(&service) {
                Some(Sighting::Found { addr, name, version }) if addr.id() != here => {
                    known.insert(service.get_fullname().to_owned(), addr.id());
                    Sighting::Found { addr, name, version }
                }
                _ => continue,
            },
            ServiceEvent::ServiceRemoved(_, full_name) => match known.remove(&full_name) {
                Some(peer) => Sighting::Gone(peer),
                None => continue,
            },
            _ => continue,
        };
        if sightings.try_send(sighting).is_err() {
            tracing::debug!("a sighting was dropped: too many machines announce themselves at once");
        }
    }
}

async fn watch(monitor: mdns_sd::Receiver<DaemonEvent>, sightings: mpsc::Sender<Sighting>) {
    while let Ok(event) = monitor.recv_async().await {
        if let DaemonEvent::Error(error) = event {
            let _ = sightings.try_send(Sighting::Trouble(error.to_string()));
        }
    }
}

/// A record in our terms; `None` for records that are not ours to read.
fn read(service: &ResolvedService) -> Option<Sighting> {
    let text = |key: &str| service.get_property_val_str(key);
    let peer: PeerId = text("id")?.parse().ok()?;
    let port = service.get_port();
    let sockets = service.get_addresses().iter().filter_map(|ip| socket(ip, port));
    Some(Sighting::Found {
        addr: PeerAddr::new(peer, sockets),
        name: tidy(text("name").unwrap_or_default()),
        version: text("v")?.parse().ok()?,
    })
}

/// A link-local IPv6 address means nothing without the interface it was heard on, and iroh does not keep that: the other
/// machine would be reached there, and its answer would not, and the connection would come to nothing.
fn socket(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V4(v4) => Some(SocketAddr::new(IpAddr::V4(*v4.addr()), port)),
        ScopedIp::V6(v6) if !v6.addr().is_unicast_link_local() => Some(SocketAddr::new(IpAddr::V6(*v6.addr()), port)),
        _ => None,
    }
}
