//! This machine as a member of the swarm: who it is, how it reaches others, and what it says of itself.

use std::net::SocketAddr;
use std::sync::Arc;
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
use crate::trust::Trust;

/// Addresses that another machine may add to those that are known of a machine.
const HINTED_SOCKETS: usize = 16;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not this machine's.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] OpenError),
}

impl StartError {
    /// What to do about it, where the error does not say so itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Bind(_) => Some("choose another --bind, or leave it out for a free port on every interface"),
            Self::Data(error) => error.hint(),
            Self::Identity(error) => error.hint(),
        }
    }
}

/// How to become a member.
pub struct MembershipOptions {
    /// The name people see.
    pub name: String,
    /// Where it listens; an unspecified address is every interface.
    pub bind: SocketAddr,
    /// What must survive a restart.
    pub data: Option<Arc<DataFolder>>,
    /// Reaching machines elsewhere.
    pub relay: Relay,
    /// Whether nothing may leave this machine's own networks.
    pub lan_only: bool,
    /// The networks that this machine is in.
    pub networks: Vec<Network>,
    /// Versions of the control protocol spoken.
    pub speaks: (u32, u32),
    /// What the machine says of itself to begin with.
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
    /// Tells this run of the node from those before.
    incarnation: u64,
    profile: watch::Sender<Profile>,
    search: Search,
    trust: Trust,
    lacks: Lacks,
    tasks: Tasks,
}

impl Membership {
    /// Opens the network; what others open arrives on the receiver.
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
        let range = match relay {
            Relay::None if lan_only => Range::Link,
            Relay::None => Range::Given,
            Relay::Public | Relay::Own(_) => Range::Anywhere,
        };
        let endpoint_options = EndpointOptions { identity, bind, relay, admission, networks, range };
        // From here on nothing fails: an endpoint that is dropped before it was closed leaves others waiting.
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
        };
        Ok((Self { inner: Arc::new(inner) }, incoming))
    }

    /// Announces this machine and looks for others.
    pub fn discover(&self) {
        let Inner { search, endpoint, name, speaks, .. } = &*self.inner;
        if let Some(sightings) = search.start(endpoint, name, speaks.1) {
            let member = self.clone();
            self.spawn(async move { member.inner.search.follow(member.peers(), sightings).await });
        }
    }

    /// "on", "off", or why no machines are searched for on this network.
    pub fn discovery(&self) -> String {
        self.inner.search.status()
    }

    /// This machine's networks have changed: machines may be on them that were on none before.
    pub fn look_around(&self) {
        self.inner.search.repeat();
        self.peers().dial_all();
    }

    /// Takes the announcement back.
    pub async fn stop_discovery(&self) {
        self.inner.search.stop().await;
    }

    /// Leaves: the last entry of the audit log is written, and connections close.
    pub async fn close(&self) {
        self.inner.audit.note(None, AuditEvent::Stopped);
        self.inner.audit.close().await;
        self.inner.endpoint.close().await;
    }

    /// The name people see.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where other nodes reach this one.
    pub fn addr(&self) -> PeerAddr {
        self.inner.endpoint.addr()
    }

    /// Who this node is.
    pub fn id(&self) -> PeerId {
        self.inner.endpoint.id()
    }

    /// Lets another node of this process ask this one for work, and be asked.
    pub fn allow(&self, peer: &PeerAddr) {
        self.inner.endpoint.admission().approve(peer.id());
    }

    /// What runs for this node.
    pub fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    /// Runs a task that ends with the node, at the latest when it has stopped.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.inner.tasks.spawn(task)
    }

    /// Ends when the node stops.
    pub async fn stopping(&self) {
        self.inner.tasks.stopping().await;
    }

    /// The network.
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

    /// What was seen of the other machines.
    pub fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// Models that machines have said they do not have.
    pub fn lacks(&self) -> &Lacks {
        &self.inner.lacks
    }

    /// The audit log.
    pub fn audit_log(&self) -> &Audit {
        &self.inner.audit
    }

    /// Notes something about a machine, or about this one, in the audit log.
    pub fn audit(&self, machine: Option<PeerId>, event: AuditEvent) {
        self.inner.audit.note(machine.map(|peer| self.as_audited(peer)), event);
    }

    /// Notes something about a machine, by the name it had when that happened.
    pub fn note_about(&self, machine: Machine, event: AuditEvent) {
        self.inner.audit.note(Some(machine), event);
    }

    /// A machine as the audit log names it now.
    pub fn as_audited(&self, peer: PeerId) -> Machine {
        Machine::new(peer, &self.peers().name(peer))
    }

    /// Writes a file of the data folder, if there is one.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataError> {
        self.inner.data.as_ref().map_or(Ok(()), |data| data.write(name, value))
    }

    /// What must survive a restart, where anything is to.
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

    /// What can be seen of a machine from here.
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

    /// The machine that a person means: by key or the beginning of it, name, or the three words.
    pub fn find(&self, who: &str) -> Result<PeerId, FindPeerError> {
        find(&self.peers().called(), who)
    }

    /// What has happened with machines since the notice of this number.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.peers().notices(after)
    }

    /// Counts up whenever something that people see has changed.
    pub fn view(&self) -> &Changes {
        self.peers().view_changes()
    }

    /// What this machine says of itself now.
    pub fn profile(&self) -> Profile {
        self.inner.profile.borrow().clone()
    }

    /// Follows what this machine says of itself.
    pub(crate) fn profiles(&self) -> watch::Receiver<Profile> {
        self.inner.profile.subscribe()
    }

    /// Changes what this machine says of itself; `change` tells whether there is anything to say.
    pub fn describe(&self, change: impl FnOnce(&mut Profile) -> bool) {
        if self.inner.profile.send_if_modified(change) {
            self.peers().touch();
        }
    }

    /// Versions of the control protocol that this machine speaks.
    pub(crate) fn speaks(&self) -> (u32, u32) {
        self.inner.speaks
    }

    pub(crate) fn greeting(&self, profile: Profile) -> Greeting {
        Greeting { speaks: self.inner.speaks, incarnation: self.inner.incarnation, profile }
    }

    /// What a machine may do; `None` unless it is approved.
    pub fn rights(&self, peer: PeerId) -> Option<Rights> {
        self.peers().is_approved(peer).then(|| self.peers().rights(peer))
    }

    /// Changes what an approved machine may do, from now on; remembered. What it has here or holds for this machine moves.
    pub fn set_rights(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let before = self.rights(peer);
        let changed = self.peers().allow(peer, rights);
        if let Some(rights) = self.rights(peer).filter(|rights| before != Some(*rights)) {
            let Rights { memory, prompts, memory_limit_bytes, session_limit } = rights;
            self.audit(Some(peer), AuditEvent::RightsChanged { memory, prompts, memory_limit_bytes, session_limit });
            // It is told with the next heartbeat.
            self.inner.profile.send_modify(|_| ());
        }
        changed
    }

    /// Whether a machine may hold layers of models that answer here.
    pub fn may_see_prompts(&self, peer: PeerId) -> bool {
        peer == self.id() || self.peers().rights(peer).prompts
    }

    /// Whether a connection to a machine is open.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.endpoint().admission().is_connected(peer)
    }

    /// What the path in use to a machine carries, in bits per second, once measured.
    pub fn rate(&self, peer: PeerId) -> Option<u64> {
        let link = self.endpoint().link(peer)?;
        self.peers().paths(peer).into_iter().find(|path| path.link.remote == link.remote).map(|path| path.bits_per_s)
    }

    /// What is known of a machine's addresses now, and what was said of them before.
    pub fn latest_addr(&self, of: &PeerAddr) -> PeerAddr {
        let known = self.peers().addr(of.id());
        // What others say of a machine's addresses is a hint, and each one more is a packet to somewhere.
        let sockets = known.sockets().into_iter().chain(of.sockets().into_iter().take(HINTED_SOCKETS));
        let addr = PeerAddr::new(of.id(), sockets);
        match known.relay().or_else(|| of.relay()) {
            Some(relay) => addr.with_relay(&relay),
            None => addr,
        }
    }

    /// Asks another node and gives its last answer; what it refuses is an answer, too. `progress` hears the ones before.
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
