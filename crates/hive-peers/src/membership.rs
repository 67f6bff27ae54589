//! This machine as a member of the swarm: its identity, how it reaches other machines, and its profile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hive_audit::{Audit, AuditEvent, Machine};
use hive_net::links::{LinkKind, Network, Networks};
use hive_net::{
    Admission, BindError, Endpoint, EndpointOptions, Identity, Incoming, PeerAddr, PeerId, Protocol, Range, Relay,
};
use hive_protocol::{Greeting, Profile, Reply, Request};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::changes::Changes;
use crate::data::{DataError, DataFolder};
use crate::discovery::Search;
use crate::find::{FindPeerError, find};
use crate::identity::{self, OpenError};
use crate::lacks::Lacks;
use crate::pairings::Pairings;
use crate::peers::{Notice, PeerView, Peers, Rights, RightsError};
use crate::reach::{self, Observation};
use crate::tasks::Tasks;
use crate::today::{self, Day, DayWork};
use crate::trust::Trust;

/// Maximum number of addresses of a machine that are taken from another machine's hints.
const HINTED_SOCKETS: usize = 16;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or is not an address of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The identity cannot be read or created.
    #[error(transparent)]
    Identity(#[from] OpenError),
}

impl StartError {
    /// How to fix it, unless the error says so itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Bind(_) => Some("choose another --bind, or leave it out for a free port on every interface"),
            Self::Data(error) => error.hint(),
            Self::Identity(error) => error.hint(),
        }
    }
}

/// How this machine joins the swarm.
pub struct MembershipOptions {
    /// The machine's display name.
    pub name: String,
    /// The address to listen on; an unspecified address means every interface.
    pub bind: SocketAddr,
    /// The data folder. Without one, nothing survives a restart.
    pub data: Option<Arc<DataFolder>>,
    /// The relay that reaches machines on other networks.
    pub relay: Relay,
    /// Whether all traffic must stay on this machine's own networks.
    pub lan_only: bool,
    /// The networks that this machine is on.
    pub networks: Vec<Network>,
    /// Versions of the control protocol that this machine speaks, oldest and newest.
    pub speaks: (u32, u32),
    /// The machine's profile at start.
    pub profile: Profile,
}

/// This machine in the swarm. Clones share it.
#[derive(Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    endpoint: Endpoint,
    peers: Peers,
    pairings: Pairings,
    data: Option<Arc<DataFolder>>,
    audit: Audit,
    speaks: (u32, u32),
    /// Distinguishes this run of the node from earlier ones.
    incarnation: u64,
    profile: watch::Sender<Profile>,
    search: Search,
    trust: Trust,
    lacks: Lacks,
    tasks: Tasks,
    today: Mutex<Day>,
}

impl Membership {
    /// Opens the network. Channels that other machines open arrive on the receiver.
    pub async fn open(options: MembershipOptions) -> Result<(Self, mpsc::Receiver<Incoming>), StartError> {
        let MembershipOptions { name, bind, data, relay, lan_only, networks: own, speaks, profile } = options;
        let identity = match &data {
            Some(data) => identity::open(data)?,
            None => Identity::generate(),
        };
        let (admission, networks) = (Admission::default(), Networks::default());
        networks.set(own);
        let peers = Peers::open(data.clone(), admission.clone())?;
        let audit = Audit::begin(data.as_deref().map(DataFolder::path));
        let pairings = Pairings::open(data.as_deref())?;
        // Damaged, it is not worth a refusal to start.
        let today = data.as_deref().and_then(|data| data.read(today::FILE).ok().flatten());
        let range = match relay {
            Relay::None if lan_only => Range::Link,
            Relay::None => Range::Given,
            Relay::Public | Relay::Own(_) => Range::Anywhere,
        };
        let endpoint_options = EndpointOptions { identity, bind, relay, admission, networks, range };
        // Nothing may fail after this: an endpoint that is dropped without being closed leaves its peers waiting.
        let (endpoint, incoming) = Endpoint::bind(endpoint_options).await?;
        for (addr, reached) in peers.proven() {
            endpoint.vouch(&addr, reached);
        }
        let inner = Inner {
            name,
            endpoint,
            peers,
            pairings,
            data,
            audit,
            speaks,
            incarnation: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
            profile: watch::channel(profile).0,
            search: Search::default(),
            trust: Trust::default(),
            lacks: Lacks::default(),
            tasks: Tasks::default(),
            today: Mutex::new(today.unwrap_or_default()),
        };
        Ok((Self { inner: Arc::new(inner) }, incoming))
    }

    /// Announces this machine and searches for others.
    pub fn discover(&self) {
        let Inner { search, endpoint, name, speaks, .. } = &*self.inner;
        if let Some(sightings) = search.start(endpoint, name, speaks.1) {
            let member = self.clone();
            self.spawn(async move { member.inner.search.follow(member.peers(), sightings).await });
        }
    }

    /// "on", "off", or the reason why there is no search on this network.
    pub fn discovery(&self) -> String {
        self.inner.search.status()
    }

    /// Call when this machine's networks have changed: announces again and dials every absent machine.
    pub fn rediscover(&self) {
        self.inner.search.repeat();
        self.peers().dial_all();
    }

    /// Withdraws this machine's announcement.
    pub async fn stop_discovery(&self) {
        self.inner.search.stop().await;
    }

    /// Leaves the swarm: writes the last audit entry and closes all connections.
    pub async fn close(&self) {
        self.inner.audit.note(None, AuditEvent::Stopped);
        self.inner.audit.close().await;
        self.inner.endpoint.close().await;
    }

    /// The machine's display name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The address at which other nodes reach this one.
    pub fn addr(&self) -> PeerAddr {
        self.inner.endpoint.addr()
    }

    /// This node's id.
    pub fn id(&self) -> PeerId {
        self.inner.endpoint.id()
    }

    /// Admits another node of this process, in both directions, without an approval by people.
    pub fn allow(&self, peer: &PeerAddr) {
        self.inner.endpoint.admission().approve(peer.id());
    }

    /// The node's tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Spawns a task of this node. The task must end by itself once the node is stopping ([`Self::stopping`]).
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.inner.tasks.spawn(task)
    }

    /// Resolves when the node stops.
    pub async fn stopping(&self) {
        self.inner.tasks.stopping().await;
    }

    /// The network endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The other machines.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn pairings(&self) -> &Pairings {
        &self.inner.pairings
    }

    /// Observations of the other machines: speed, memory, failures.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Models that other machines have reported as missing.
    pub fn lacks(&self) -> &Lacks {
        &self.inner.lacks
    }

    /// Counts an answer to people and programs here for each machine that took part in it. Writes a file.
    pub fn count_answer(&self, machines: impl IntoIterator<Item = PeerId>, tokens: u64) {
        let mut day = self.inner.today.lock().unwrap_or_else(PoisonError::into_inner);
        day.count(today::date(), machines, tokens);
        // Under the lock, so that counts reach the disk in order. A failure to save costs nothing but these figures.
        let _ = self.save(today::FILE, &*day);
        drop(day);
        self.view().notify();
    }

    /// Each machine's answers and tokens of today for people and programs here.
    pub fn today(&self) -> Vec<(PeerId, DayWork)> {
        self.inner.today.lock().unwrap_or_else(PoisonError::into_inner).on(today::date())
    }

    /// The audit log.
    pub fn audit_log(&self) -> &Audit {
        &self.inner.audit
    }

    /// Logs an event about a machine, or about this one (`None`), in the audit log.
    pub fn audit(&self, machine: Option<PeerId>, event: AuditEvent) {
        self.inner.audit.note(machine.map(|peer| self.as_audited(peer)), event);
    }

    /// Logs an event about a machine under the name it had at the time.
    pub fn note_about(&self, machine: Machine, event: AuditEvent) {
        self.inner.audit.note(Some(machine), event);
    }

    /// A machine as the audit log identifies it, under its current name.
    pub fn as_audited(&self, peer: PeerId) -> Machine {
        Machine::new(peer, &self.peers().name(peer))
    }

    /// Writes a file to the data folder; does nothing without one.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataError> {
        self.inner.data.as_ref().map_or(Ok(()), |data| data.write(name, value))
    }

    /// The data folder, if there is one.
    pub fn data(&self) -> Option<&DataFolder> {
        self.inner.data.as_deref()
    }

    /// The other machines, as people and programs see them.
    pub fn peer_views(&self) -> Vec<PeerView> {
        let mut views = self.peers().views(|peer| self.endpoint().link(peer));
        for view in &mut views {
            let relayed = view.link.as_ref().is_some_and(|link| link.kind == LinkKind::Relay);
            if let Some(peer) = view.id.parse().ok().filter(|_| relayed) {
                view.condition = reach::diagnose(self.observe(peer, relayed));
            }
        }
        views
    }

    /// Observations of another machine, to diagnose why it is unreachable.
    pub(crate) fn observe(&self, peer: PeerId, relayed: bool) -> Observation {
        let announced = self.peers().announced(peer);
        let near = announced.iter().flatten().copied().find(|socket| self.endpoint().networks().is_near(socket.ip()));
        Observation {
            announced: announced.is_some(),
            met: self.peers().has_met(peer),
            near: near.is_some(),
            no_route: !relayed && near.is_some_and(reach::has_no_route),
            relayed,
            macos: cfg!(target_os = "macos"),
        }
    }

    /// The machine that a person means: by name, three words, key, or the beginning of its key.
    pub fn find(&self, who: &str) -> Result<PeerId, FindPeerError> {
        find(&self.peers().called(), who)
    }

    /// Notices about machines, after the notice with this number.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.peers().notices(after)
    }

    /// A counter that increases whenever something that people see has changed.
    pub fn view(&self) -> &Changes {
        self.peers().view_changes()
    }

    /// This machine's current profile.
    pub fn profile(&self) -> Profile {
        self.inner.profile.borrow().clone()
    }

    /// Subscribes to this machine's profile.
    pub(crate) fn profiles(&self) -> watch::Receiver<Profile> {
        self.inner.profile.subscribe()
    }

    /// Edits this machine's profile; `change` returns whether anything changed. If so, peers and listeners are
    /// notified.
    pub fn describe(&self, change: impl FnOnce(&mut Profile) -> bool) {
        if self.inner.profile.send_if_modified(change) {
            self.peers().touch();
        }
    }

    /// Versions of the control protocol that this machine speaks, oldest and newest.
    pub(crate) fn speaks(&self) -> (u32, u32) {
        self.inner.speaks
    }

    pub(crate) fn greeting(&self, profile: Profile) -> Greeting {
        Greeting { speaks: self.inner.speaks, incarnation: self.inner.incarnation, profile }
    }

    /// An approved machine's rights; `None` unless it is approved.
    pub fn rights(&self, peer: PeerId) -> Option<Rights> {
        self.peers().is_approved(peer).then(|| self.peers().rights(peer))
    }

    /// Changes an approved machine's rights at once, and saves them. Layers that the new rights forbid are moved, both
    /// its layers here and this machine's layers there.
    pub fn set_rights(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let before = self.rights(peer);
        let changed = self.peers().allow(peer, rights);
        if let Some(rights) = self.rights(peer).filter(|rights| before != Some(*rights)) {
            let Rights { memory, prompts, memory_limit_bytes, session_limit } = rights;
            self.audit(Some(peer), AuditEvent::RightsChanged { memory, prompts, memory_limit_bytes, session_limit });
            // The next heartbeat tells the machine.
            self.inner.profile.send_modify(|_| ());
        }
        changed
    }

    /// Whether a machine may hold layers of models that this machine's owner uses.
    pub fn may_see_prompts(&self, peer: PeerId) -> bool {
        peer == self.id() || self.peers().rights(peer).prompts
    }

    /// Whether a connection to a machine is open.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.endpoint().admission().is_connected(peer)
    }

    /// The measured rate of the path in use to a machine, in bits per second.
    pub fn rate(&self, peer: PeerId) -> Option<u64> {
        let link = self.endpoint().link(peer)?;
        self.peers().paths(peer).into_iter().find(|path| path.link.remote == link.remote).map(|path| path.bits_per_s)
    }

    /// A machine's address: the known ones, plus some of the hints in `of`.
    pub fn latest_addr(&self, of: &PeerAddr) -> PeerAddr {
        let known = self.peers().addr(of.id());
        // Hints come from other machines, and each address costs a packet, so only a few are taken.
        let sockets = known.sockets().into_iter().chain(of.sockets().into_iter().take(HINTED_SOCKETS));
        let addr = PeerAddr::new(of.id(), sockets);
        match known.relay().or_else(|| of.relay()) {
            Some(relay) => addr.with_relay(&relay),
            None => addr,
        }
    }

    /// Sends a request to another node and returns its final reply, which may be a refusal. `progress` gets the layers
    /// loaded so far.
    pub async fn ask_other(
        &self,
        whom: &PeerAddr,
        request: Request,
        mut progress: impl FnMut(usize),
    ) -> Result<Reply, String> {
        let whom = self.latest_addr(whom);
        let mut channel = self.endpoint().open(&whom, Protocol::Control).await.map_err(|error| error.to_string())?;
        channel.write_message(&request).await.map_err(|error| error.to_string())?;
        loop {
            match channel.read_message().await {
                Ok(Some(Reply::Progress(layers))) => progress(layers),
                Ok(Some(answer)) => return Ok(answer.at_the_border()),
                Ok(None) => return Err("it broke off".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
