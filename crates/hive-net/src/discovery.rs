//! Discovery of machines on this network, by multicast DNS.
//!
//! A record carries a machine's key, protocol version and name. None of it is secret and none of it is trusted: records
//! outlive crashes and anyone can send them, so a machine is *present* only once it answers. A record says where to
//! dial, and only on the link it was heard on (`Networks::accepts_announced`).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mdns_sd::{DaemonEvent, IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::addr::PeerId;
use crate::border;
use crate::links::Networks;
use crate::lock::lock;

/// The announced service type.
pub const SERVICE: &str = "_hivemind._udp.local.";

/// Interval between checks for new addresses, in seconds. A machine that changes networks is found again within it.
const ADDRESS_CHECK_S: u32 = 1;

/// Capacity of the channel of sightings to the node.
const WAITING_FINDS: usize = 64;

/// Records heard but not read yet. When more arrive at once, everything is browsed again.
const WAITING_RECORDS: usize = 4096;

/// Minimum time between two repeats of the browse.
const REPEAT_PAUSE: Duration = Duration::from_secs(1);

/// Addresses reported per record; receivers keep far fewer.
const NAMED_SOCKETS: usize = 1024;

/// Longest record name that is kept.
const MAX_RECORD_CHARS: usize = 255;

/// A record that appeared or disappeared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A machine announces itself.
    Found {
        /// The record's name; several records may name the same machine.
        record: String,
        /// The machine.
        peer: PeerId,
        /// Its addresses on the link that the record was heard on; empty if the record names only others.
        sockets: Vec<SocketAddr>,
        /// The machine's name, as it announces it.
        name: String,
        /// The protocol version it speaks.
        version: u32,
    },
    /// The record of this name was withdrawn, or expired.
    Gone(String),
    /// The search reports a problem, in words, and continues.
    Trouble(String),
    /// The search has ended, with the reason. Also sent after the search was stopped.
    Ended(String),
}

/// Why discovery cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot search this network for machines: {0}")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// Announces this machine and searches for others until it is dropped.
pub struct Discovery {
    daemon: ServiceDaemon,
    full_name: String,
    repeat: Arc<Notify>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Discovery {
    /// Starts on every interface but loopback. `port` is the UDP port the endpoint listens on; `networks` are the
    /// networks to search.
    pub fn start(
        here: PeerId,
        name: &str,
        port: u16,
        version: u32,
        networks: Networks,
    ) -> Result<(Self, mpsc::Receiver<Sighting>), DiscoveryError> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        daemon.set_ip_check_interval(ADDRESS_CHECK_S)?;
        let service = record(here, name, port, version)?.enable_addr_auto();
        let full_name = service.get_fullname().to_owned();
        let events = daemon.browse(SERVICE)?;
        let monitor = daemon.monitor()?;
        daemon.register(service)?;
        let (sightings, receiver) = mpsc::channel(WAITING_FINDS);
        let watching = watch(monitor, sightings.clone());
        let repeat = Arc::new(Notify::new());
        let follower = Follower { here, networks, repeat: repeat.clone(), sightings };
        let following = follower.follow(daemon.clone(), events);
        #[allow(clippy::disallowed_methods, reason = "they end with the search")]
        let tasks = [tokio::spawn(watching), tokio::spawn(following)].map(AbortOnDropHandle::new);
        Ok((Self { daemon, full_name, repeat, _tasks: tasks }, receiver))
    }

    /// Reports every known record again: this machine's networks have changed, and a record that was on none of them
    /// may be on one now.
    pub fn repeat(&self) {
        self.repeat.notify_one();
    }

    /// Withdraws the record, so that others see immediately that this machine has left.
    pub async fn stop(self) {
        if let Ok(done) = self.daemon.unregister(&self.full_name) {
            let _ = done.recv_async().await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_async().await;
        }
    }
}

/// Records, each once. A withdrawn one has no service.
#[derive(Default)]
struct Waiting {
    records: HashMap<String, Option<Box<ResolvedService>>>,
    order: VecDeque<String>,
}

/// Events from the daemon that nobody has read yet: the latest of each record, in order of arrival. The daemon silently
/// drops a listener that falls a thousand events behind, so every event is stored here immediately.
#[derive(Default)]
struct Heard {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Number of the latest listener with missing events: the buffer overflowed, or the daemon dropped it.
    incomplete: AtomicU64,
}

/// Receives the daemon's events on a thread of its own, until the daemon ends them.
struct Listener {
    /// Counts up from 1.
    number: u64,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Replaces a `former` listener that the daemon no longer serves.
    fn start(
        heard: &Arc<Heard>,
        events: mdns_sd::Receiver<ServiceEvent>,
        former: Option<Self>,
    ) -> std::io::Result<Self> {
        let number = former.as_ref().map_or(1, |former| former.number + 1);
        let writer = heard.clone();
        let thread = std::thread::Builder::new().name("discovery".to_owned()).spawn(move || {
            // The former listener's remaining events come first.
            if let Some(former) = former {
                let _ = former.thread.join();
            }
            while let Ok(event) = events.recv() {
                match event {
                    ServiceEvent::ServiceResolved(service) => {
                        writer.note(number, service.get_fullname().to_owned(), Some(service));
                    }
                    ServiceEvent::ServiceRemoved(_, record) => writer.note(number, record, None),
                    _ => {}
                }
            }
            writer.mark_incomplete(number);
        })?;
        Ok(Self { number, thread })
    }
}

impl Heard {
    fn note(&self, listener: u64, record: String, service: Option<Box<ResolvedService>>) {
        let mut waiting = lock(&self.waiting);
        let is_known = waiting.records.contains_key(&record);
        // A present record can be heard again. A withdrawal is reported once.
        let most = if service.is_some() { WAITING_RECORDS } else { 2 * WAITING_RECORDS };
        if !is_known && waiting.records.len() >= most {
            drop(waiting);
            return self.mark_incomplete(listener);
        }
        if !is_known {
            waiting.order.push_back(record.clone());
        }
        waiting.records.insert(record, service);
        drop(waiting);
        self.news.notify_one();
    }

    fn mark_incomplete(&self, listener: u64) {
        self.incomplete.fetch_max(listener, Ordering::Relaxed);
        self.news.notify_one();
    }

    fn is_incomplete(&self, listener: u64) -> bool {
        self.incomplete.load(Ordering::Relaxed) >= listener
    }

    /// The record that has waited longest.
    fn next(&self) -> Option<(String, Option<Box<ResolvedService>>)> {
        let mut waiting = lock(&self.waiting);
        let record = waiting.order.pop_front()?;
        let service = waiting.records.remove(&record)?;
        Some((record, service))
    }
}

/// Why all records are reported again, or reporting ends.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    /// [`Discovery::repeat`] was called.
    Asked,
    /// Events are missing.
    Incomplete,
    /// The receiver was dropped.
    Unheard,
}

/// Reports the listener's announcements.
struct Follower {
    here: PeerId,
    networks: Networks,
    repeat: Arc<Notify>,
    sightings: mpsc::Sender<Sighting>,
}

impl Follower {
    async fn follow(self, daemon: ServiceDaemon, events: mdns_sd::Receiver<ServiceEvent>) {
        if let Err(why) = self.listen_on(daemon, events).await {
            let why = format!("the search for machines on this network has ended: {why}");
            let _ = self.sightings.send(Sighting::Ended(why)).await;
        }
    }

    /// Runs until the receiver is dropped or the daemon ends.
    async fn listen_on(
        &self,
        daemon: ServiceDaemon,
        mut events: mdns_sd::Receiver<ServiceEvent>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (heard, mut former) = (Arc::new(Heard::default()), None);
        loop {
            let listener = Listener::start(&heard, events, former)?;
            match self.hand_on(&heard, listener.number).await {
                Pause::Asked => {}
                Pause::Incomplete => {
                    tracing::debug!("too many machines announce themselves at once; everything is heard once more");
                    tokio::time::sleep(REPEAT_PAUSE).await;
                }
                Pause::Unheard => return Ok(()),
            }
            events = loop {
                match daemon.browse(SERVICE) {
                    Ok(again) => break again,
                    // The daemon's queue is full.
                    Err(mdns_sd::Error::Again) => tokio::time::sleep(REPEAT_PAUSE).await,
                    Err(ended) => return Err(ended.into()),
                }
            };
            former = Some(listener);
        }
    }

    async fn hand_on(&self, heard: &Heard, listener: u64) -> Pause {
        loop {
            // Only waiting is cancelled: a record that was taken out of the buffer is always reported.
            tokio::select! {
                () = heard.news.notified() => {}
                () = self.repeat.notified() => return Pause::Asked,
                () = self.sightings.closed() => return Pause::Unheard,
            }
            while let Some((record, service)) = heard.next() {
                let sighting = match service {
                    Some(service) => parse(&service, &self.networks),
                    None => Some(Sighting::Gone(record)),
                };
                let Some(sighting) = sighting else { continue };
                let is_own = matches!(&sighting, Sighting::Found { peer, .. } if *peer == self.here);
                if !is_own && self.sightings.send(sighting).await.is_err() {
                    return Pause::Unheard;
                }
            }
            if heard.is_incomplete(listener) {
                return Pause::Incomplete;
            }
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

/// This machine's record, without addresses. Other versions read it, so its keys stay.
fn record(here: PeerId, name: &str, port: u16, version: u32) -> Result<ServiceInfo, mdns_sd::Error> {
    let id = here.to_text();
    // Instance and host names are derived from the id; people's names for machines collide.
    let instance = &id[..16];
    let name = border::name(name);
    let version = version.to_string();
    let properties = [("id", id.as_str()), ("v", version.as_str()), ("name", name.as_str())];
    let host = format!("hivemind-{instance}.local.");
    ServiceInfo::new(SERVICE, instance, &host, (), port, &properties[..])
}

/// A record as a [`Sighting`]; `None` for foreign records.
fn parse(service: &ResolvedService, networks: &Networks) -> Option<Sighting> {
    let text = |key: &str| service.get_property_val_str(key);
    let record = service.get_fullname();
    if record.chars().count() > MAX_RECORD_CHARS {
        return None;
    }
    let named = service.get_addresses().iter().filter_map(|ip| socket(ip, service.get_port()));
    Some(Sighting::Found {
        record: record.to_owned(),
        peer: text("id")?.parse().ok()?,
        sockets: on_link(named, networks),
        name: border::name(text("name").unwrap_or_default()),
        version: text("v")?.parse().ok()?,
    })
}

/// The sockets of a record that are on the links it was heard on.
fn on_link(named: impl Iterator<Item = (SocketAddr, Vec<String>)>, networks: &Networks) -> Vec<SocketAddr> {
    let near = named.filter(|(socket, interfaces)| networks.accepts_announced(*socket, interfaces));
    let mut near: Vec<SocketAddr> = near.map(|(socket, _)| socket).collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(NAMED_SOCKETS);
    near
}

/// A socket, and the interfaces its address was heard on. Link-local IPv6 addresses are skipped: they mean nothing
/// without an interface, which iroh does not keep, so the other machine would be reached and its answer would not
/// arrive.
fn socket(ip: &ScopedIp, port: u16) -> Option<(SocketAddr, Vec<String>)> {
    match ip {
        ScopedIp::V4(v4) => {
            let interfaces = v4.interface_ids().iter().map(|interface| interface.name.clone()).collect();
            Some((SocketAddr::new(IpAddr::V4(*v4.addr()), port), interfaces))
        }
        ScopedIp::V6(v6) if !v6.addr().is_unicast_link_local() => {
            Some((SocketAddr::new(IpAddr::V6(*v6.addr()), port), vec![v6.scope_id().name.clone()]))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests {
    use super::*;
    use crate::links::{LinkKind, Network};

    #[tokio::test]
    async fn a_record_that_is_taken_back_is_told_of_although_everything_is_heard_once_more() {
        let (sightings, mut told) = mpsc::channel(1);
        let (here, repeat) = (crate::Identity::generate().id(), Arc::new(Notify::new()));
        let follower = Follower { here, networks: Networks::default(), repeat: repeat.clone(), sightings };
        let heard = Arc::new(Heard::default());
        let again = heard.clone();
        let following = tokio::spawn(async move {
            let mut pauses = vec![follower.hand_on(&heard, 1).await];
            heard.note(1, "late".to_owned(), None);
            heard.mark_incomplete(1);
            pauses.push(follower.hand_on(&heard, 2).await);
            pauses
        });
        for record in ["one", "two", "three", "four"] {
            again.note(1, record.to_owned(), None);
        }
        // Requested in the middle of a repeat: the channel has room for one.
        while told.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        repeat.notify_one();
        for record in ["one", "two", "three", "four", "late"] {
            assert_eq!(told.recv().await, Some(Sighting::Gone(record.to_owned())));
        }
        again.mark_incomplete(2);
        assert_eq!(following.await.unwrap(), [Pause::Asked, Pause::Incomplete]);
    }

    #[test]
    fn a_record_has_the_text_that_other_versions_know() {
        let here = crate::Identity::from_text(&format!("1 - {}", "07".repeat(32)), None).unwrap().id();
        let service = record(here, "Attic", 4484, 3).unwrap();
        let id = here.to_text();
        assert_eq!(service.get_type(), "_hivemind._udp.local.");
        assert_eq!(service.get_fullname(), format!("{}._hivemind._udp.local.", &id[..16]));
        assert_eq!(service.get_hostname(), format!("hivemind-{}.local.", &id[..16]));
        let text = service.get_properties().iter().map(|property| format!("{}={}", property.key(), property.val_str()));
        assert_eq!(text.collect::<Vec<_>>(), [format!("id={id}"), "v=3".to_owned(), "name=Attic".to_owned()]);
        let found = parse(&service.as_resolved_service(), &Networks::default());
        let Some(Sighting::Found { peer, name, version, .. }) = &found else { panic!("{found:?}") };
        assert_eq!((*peer, name.as_str(), *version), (here, "Attic", 3));
    }

    #[test]
    fn what_has_gone_has_room_where_there_is_too_much() {
        let heard = Heard::default();
        for n in 0..WAITING_RECORDS + 9 {
            heard.note(1, n.to_string(), None);
        }
        assert!(!heard.is_incomplete(1));
        assert_eq!(std::iter::from_fn(|| heard.next()).count(), WAITING_RECORDS + 9);
        for n in 0..3 * WAITING_RECORDS {
            heard.note(1, n.to_string(), None);
        }
        assert!(heard.is_incomplete(1) && !heard.is_incomplete(2));
    }

    #[test]
    fn a_record_names_only_addresses_of_its_link() {
        let networks = Networks::default();
        let network = |interface: &str, address: &str| Network {
            interface: interface.to_owned(),
            address: address.parse().unwrap(),
            prefix: 24,
            kind: LinkKind::Ethernet,
        };
        networks.set(vec![network("lan", "10.77.0.1"), network("office", "10.78.0.1")]);
        let lan = || vec!["lan".to_owned()];
        let far = (0..1000u32).map(|n| (SocketAddr::from(((0x0808_0000 + n).to_be_bytes(), 4000)), lan()));
        let near = ["10.77.0.2:4000", "10.78.0.2:4000"].map(|socket| (socket.parse().unwrap(), lan()));
        assert_eq!(on_link(far.chain(near), &networks), ["10.77.0.2:4000".parse().unwrap()]);
        let crowd = (0..2000u16).map(|n| (SocketAddr::from(([10, 77, 0, 9], 2000 + n)), lan()));
        assert_eq!(on_link(crowd, &networks).len(), NAMED_SOCKETS);
    }
}
