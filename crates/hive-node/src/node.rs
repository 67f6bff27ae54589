//! The node: this machine in the swarm, as a handle.

mod asking;
mod guests;
mod handover;
#[cfg(test)]
mod hostile;
mod hosting;
mod machine;
mod options;
mod orders;
mod room;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hive_net::discovery::{Discovery, Sighting};
use hive_net::links::{LinkKind, Networks};
use hive_net::{
    Admission, Endpoint, EndpointOptions, Frame, Identity, Pace, PeerAddr, PeerId, Range, Relay, fingerprint,
};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, AuditEvent, Log, Machine, Query, Visit};
use crate::catalogue::{self, Catalogue};
use crate::data::{DataError, DataFolder};
use crate::find::FindPeerError;
use crate::having::Lacks;
use crate::openings::Openings;
use crate::peers::pairings::{self, Desk};
use crate::peers::presence;
use crate::peers::sightings::Announcement;
use crate::peers::{Notice, PeerView, Peers, Rights, RightsError};
use crate::reach;
use crate::runtime::aside;
use crate::serve;
use crate::serving::placements::{self, Placements};
use crate::serving::{Serving, moving, restore};
use crate::sharing::{self, Policy, Switches};
use crate::speed::{self, Speed};
use crate::stage::Stage;
use crate::trust::Trust;
use hive_protocol::{Greeting, Profile};
use hive_protocol::{RingId, StageId};
use hive_worker::mlx_library;
use machine::{own_networks, watch_machine};
use orders::Claims;
use room::Promise;

pub(crate) use asking::{NONSENSE, refusal};
pub use options::{NodeOptions, StartError};
pub(crate) use orders::Denied;

/// How the node is, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// This machine's key, as text.
    pub id: String,
    /// Three words of it.
    pub fingerprint: String,
    /// What it says of itself.
    pub profile: Profile,
    /// Whether its owner wants it to share; what keeps it from that is in the profile.
    pub share: bool,
    /// Whether its owner has paused sharing for now.
    pub paused: bool,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Whether machines on this network are searched for, or why not.
    pub discovery: String,
    /// The other machines.
    pub peers: Vec<PeerView>,
    /// Announcements that are not among them: too many machines announce themselves, or from where none can be.
    pub left_out: u64,
    /// Tokens of answers to people and programs here, since the node started.
    pub answered_tokens: u64,
    /// The model in memory, if there is one.
    pub model: Option<crate::serving::ModelView>,
    /// The model on its way into memory, if there is one.
    pub loading: Option<crate::serving::LoadingView>,
}

/// This machine in the swarm. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    endpoint: Endpoint,
    peers: Peers,
    desk: Desk,
    data: Option<Arc<DataFolder>>,
    audit: Audit,
    trust_paths: bool,
    speaks: (u32, u32),
    /// Tells this run of the node from those before.
    life: u64,
    profile: watch::Sender<Profile>,
    discovery: Mutex<(Option<Discovery>, String)>,
    stages: Mutex<HashMap<StageId, Hosted>>,
    /// Memory of stages that are being loaded.
    loading: Mutex<Vec<Promise>>,
    reserving: Mutex<()>,
    guests: Mutex<guests::Watch>,
    /// Stages that this machine has ended, whose they were, and why: their owners ask.
    evicted: Mutex<VecDeque<(StageId, PeerId, guests::Eviction)>>,
    /// Counts the joins of stages and the machines that are wanted: what a stage stream may be waiting for.
    joins: watch::Sender<u64>,
    /// The rings that this node coordinates.
    coordinated: Mutex<HashMap<RingId, Coordinated>>,
    serving: Serving,
    trust: Trust,
    catalogue: Catalogue,
    /// Models that machines have said they do not have.
    lacks: Lacks,
    openings: Openings,
    /// What its owner wants of it.
    owner: Owner,
    switches: watch::Sender<Switches>,
    /// How fast frames go out.
    pace: Pace,
    leaving: AtomicBool,
    answered_tokens: AtomicU64,
    /// Whether answers to people and programs here end with what there is of them.
    ending: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    /// What runs for this node.
    tasks: TaskTracker,
}

/// How long a node that stops waits for its tasks. They end at once: whatever they wait for has ended before.
const TASKS_END_WITHIN: Duration = Duration::from_secs(5);

/// What the owner of the machine has set.
struct Owner {
    share: bool,
    memory_cap: Option<u64>,
    keep_prompts_here: bool,
    /// Follows the settings' file.
    policy: Mutex<Policy>,
}

/// A stage that this machine holds.
struct Hosted {
    /// Who has a say over it.
    claims: Claims,
    /// Memory it takes, as planned.
    bytes: u64,
    /// Memory it was last seen to take.
    used_bytes: u64,
    /// Whether it is a copy, which yields.
    standby: bool,
    stage: Stage,
    /// What another machine uses of it, for the audit log.
    _visit: Option<Arc<Visit>>,
}

/// A ring that this node coordinates.
struct Coordinated {
    /// What comes back.
    frames: mpsc::Sender<Frame>,
    /// Who holds which stage of it, or is about to.
    wanted: Vec<(StageId, PeerId)>,
}

impl Node {
    /// Starts a node.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        prepare_process();
        let NodeOptions {
            name,
            bind,
            data,
            discover,
            relay,
            lan_only,
            share,
            memory_cap,
            policy,
            keep_prompts_here,
            trust_paths,
            speaks,
        } = options;
        let identity = match &data {
            Some(data) => crate::identity::open(data)?,
            None => Identity::generate(),
        };
        let data = data.map(Arc::new);
        let (admission, networks) = (Admission::default(), Networks::default());
        networks.set(own_networks());
        let peers = Peers::open(data.clone(), admission.clone())?;
        let audit = Audit::begin(data.as_deref().map(DataFolder::path));
        let desk = pairings::open_desk(data.as_deref())?;
        let range = match relay {
            Relay::None if lan_only => Range::Link,
            Relay::None => Range::Given,
            Relay::Public | Relay::Own(_) => Range::Anywhere,
        };
        let switches: Option<Switches> = data.as_deref().map(|data| data.read(sharing::FILE)).transpose()?.flatten();
        let switches = switches.unwrap_or_default().at_start(share);
        let placed: Option<Placements> = data.as_deref().map(|data| data.read(placements::FILE)).transpose()?.flatten();
        let endpoint_options = EndpointOptions { identity, bind, relay, admission, networks, range };
        // From here on nothing fails: an endpoint that is dropped before it was closed leaves others waiting.
        let (endpoint, incoming) = Endpoint::bind(endpoint_options).await?;
        for (addr, reached) in peers.proven() {
            endpoint.vouch(&addr, reached);
        }
        // Measured before, on this machine and with this version.
        let speed = data.as_deref().and_then(speed::kept);
        let catalogue = data.as_deref().map(Catalogue::kept).unwrap_or_default();
        let (knows_its_disk, pace) = (data.is_some(), Pace::default());
        pace.limit(policy.bits_per_s);
        let find_out = data.is_some() && share && speed.is_none();
        let profile = first_profile(&name, speed.as_ref());
        let inner = Inner {
            name,
            endpoint,
            peers,
            desk,
            data,
            audit,
            trust_paths,
            speaks,
            life: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
            profile: watch::channel(profile).0,
            discovery: Mutex::new((None, "off".to_owned())),
            stages: Mutex::default(),
            loading: Mutex::default(),
            reserving: Mutex::default(),
            guests: Mutex::default(),
            evicted: Mutex::default(),
            joins: watch::channel(0).0,
            coordinated: Mutex::default(),
            serving: Serving::new(placed.unwrap_or_default()),
            trust: Trust::default(),
            catalogue,
            lacks: Lacks::default(),
            openings: Openings::default(),
            owner: Owner { share, memory_cap, keep_prompts_here, policy: Mutex::new(policy) },
            pace,
            switches: watch::channel(switches).0,
            leaving: AtomicBool::new(false),
            answered_tokens: AtomicU64::new(0),
            ending: watch::channel(false).0,
            stopped: watch::channel(false).0,
            tasks: TaskTracker::new(),
        };
        let node = Self { inner: Arc::new(inner) };
        node.look();
        node.spawn(serve::serve(node.clone(), incoming));
        node.spawn(presence::attend(node.clone()));
        node.spawn(presence::tidy_up_here(node.clone()));
        node.spawn(watch_machine(node.clone()));
        node.spawn(moving::attend(node.clone()));
        node.spawn(placements::keep(node.clone()));
        node.spawn(restore::restore(node.clone()));
        if find_out {
            node.spawn(speed::find_out(node.clone()));
        }
        if knows_its_disk {
            node.spawn(catalogue::attend(node.clone()));
        }
        if discover {
            node.discover();
        }
        Ok(node)
    }

    /// Announces this machine and looks for others. Without multicast the node works all the same, by invitation.
    fn discover(&self) {
        let endpoint = &self.inner.endpoint;
        let networks = endpoint.networks().clone();
        let started = Discovery::start(endpoint.id(), self.name(), endpoint.port(), self.inner.speaks.1, networks);
        let mut discovery = lock(&self.inner.discovery);
        match started {
            Ok((found, sightings)) => {
                *discovery = (Some(found), "on".to_owned());
                self.spawn(follow_sightings(self.clone(), sightings));
            }
            Err(error) => {
                tracing::warn!("{error}");
                discovery.1 = error.to_string();
            }
        }
    }

    /// This machine's networks have changed: machines may be on them that were on none before.
    pub(crate) fn look_around(&self) {
        if let Some(discovery) = &lock(&self.inner.discovery).0 {
            discovery.repeat();
        }
        self.peers().dial_all();
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

    /// How the node is.
    pub fn status(&self) -> Status {
        let mut addresses = self.addr().sockets();
        addresses.sort_unstable();
        let switches = *self.inner.switches.borrow();
        Status {
            share: switches.wants_to_share(self.inner.owner.share),
            paused: switches.paused_for_s(SystemTime::now()) > 0,
            id: self.id().to_text(),
            fingerprint: fingerprint(self.id()),
            profile: Profile { sessions: self.sessions(), ..self.profile() },
            addresses,
            discovery: lock(&self.inner.discovery).1.clone(),
            peers: self.peer_views(),
            left_out: self.inner.peers.left_out(),
            answered_tokens: self.inner.answered_tokens.load(Ordering::Relaxed),
            model: self.inner.serving.view(),
            loading: self.inner.serving.loading(),
        }
    }

    /// The other machines.
    pub fn peer_views(&self) -> Vec<PeerView> {
        let mut views = self.inner.peers.views(|peer| self.inner.endpoint.link(peer));
        for view in &mut views {
            let relayed = view.link.as_ref().is_some_and(|link| link.kind == LinkKind::Relay);
            if let Some(peer) = view.id.parse().ok().filter(|_| relayed) {
                view.condition = reach::diagnose(presence::observe(self, peer, relayed));
            }
        }
        views
    }

    /// The machine that a person means: by key or the beginning of it, name, or the three words.
    pub fn find(&self, who: &str) -> Result<PeerId, FindPeerError> {
        crate::find::find(&self.peers().called(), who)
    }

    /// Counts up whenever [`Node::status`] has something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.peers.changes()
    }

    /// What has happened with machines since the notice of this number.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.inner.peers.notices(after)
    }

    /// Notes something about a machine, or about this one, in the audit log.
    pub fn audit(&self, machine: Option<PeerId>, event: AuditEvent) {
        self.inner.audit.note(machine.map(|peer| self.as_audited(peer)), event);
    }

    /// Reads the audit log.
    pub fn audit_log(&self, query: &Query) -> std::io::Result<Log> {
        aside(|| self.inner.audit.read(query))
    }

    /// Notes something about a machine, by the name it had when that happened.
    pub(crate) fn note_about(&self, machine: Machine, event: AuditEvent) {
        self.inner.audit.note(Some(machine), event);
    }

    /// A machine as the audit log names it now.
    pub(crate) fn as_audited(&self, peer: PeerId) -> Machine {
        Machine::new(peer, &self.peers().name(peer))
    }

    /// Ends the answers to people and programs here, with what there is of them.
    pub fn end_answers(&self) {
        self.inner.ending.send_replace(true);
    }

    /// Ends when this node's answers are ended, because it stops.
    pub async fn ending(&self) {
        let _ = self.when_ending().wait_for(|ending| *ending).await;
    }

    /// Turns true when this node's answers are ended.
    pub(crate) fn when_ending(&self) -> watch::Receiver<bool> {
        self.inner.ending.subscribe()
    }

    /// Leaves the swarm: stages end, connections close, the announcement is taken back.
    pub async fn stop(&self) {
        self.end_answers();
        self.inner.stopped.send_replace(true);
        let discovery = lock(&self.inner.discovery).0.take();
        if let Some(discovery) = discovery {
            discovery.stop().await;
        }
        let placements = self.inner.serving.unload().await;
        self.write_placements(placements);
        lock(&self.inner.stages).clear();
        lock(&self.inner.coordinated).clear();
        self.inner.audit.note(None, AuditEvent::Stopped);
        self.inner.audit.close().await;
        self.inner.endpoint.close().await;
        self.inner.tasks.close();
        if tokio::time::timeout(TASKS_END_WITHIN, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("{} tasks of the node had not ended when it stopped", self.tasks());
        }
    }

    /// How many tasks run for this node.
    pub fn tasks(&self) -> usize {
        self.inner.tasks.len()
    }

    /// Runs a task that ends with the node, at the latest when it has stopped.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.inner.tasks.spawn(task)
    }

    /// Ends when the node stops.
    pub(crate) async fn stopping(&self) {
        let mut stopped = self.inner.stopped.subscribe();
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.inner.desk
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// What was seen of the other machines.
    pub(crate) fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    /// What the models on this machine's disk are.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    pub(crate) fn lacks(&self) -> &Lacks {
        &self.inner.lacks
    }

    /// The model this node has in memory for its own people and programs.
    pub fn serving(&self) -> &Serving {
        &self.inner.serving
    }

    /// When conversations began.
    pub(crate) fn openings(&self) -> &Openings {
        &self.inner.openings
    }

    pub(crate) fn trusts_paths(&self) -> bool {
        self.inner.trust_paths
    }

    pub(crate) fn profiles(&self) -> watch::Receiver<Profile> {
        self.inner.profile.subscribe()
    }

    /// What this machine says of itself now.
    pub fn profile(&self) -> Profile {
        self.inner.profile.borrow().clone()
    }

    /// What this machine says of itself to another one: whether it shares, and how much, depends on who asks.
    pub(crate) fn profile_for(&self, peer: PeerId) -> Profile {
        let mut profile = self.profile();
        profile.over_cap |= self.cap_of(peer).is_some_and(|cap| self.planned_bytes(|owner| owner == peer) > cap);
        if profile.sharing && !self.peers().rights(peer).memory {
            profile.sharing = false;
            profile.not_sharing = Some("its owner does not share it with this machine".to_owned());
        }
        profile
    }

    /// What a machine may do; `None` unless it is approved.
    pub fn rights(&self, peer: PeerId) -> Option<Rights> {
        self.peers().is_approved(peer).then(|| self.peers().rights(peer))
    }

    /// Whether a machine may hold layers of models that answer here.
    pub(crate) fn may_see_prompts(&self, peer: PeerId) -> bool {
        peer == self.id() || self.peers().rights(peer).prompts
    }

    /// Whether models that fit on this machine stay on it.
    pub(crate) fn keeps_prompts_here(&self) -> bool {
        self.inner.owner.keep_prompts_here || lock(&self.inner.owner.policy).keep_prompts_here
    }

    /// Changes what an approved machine may do, from now on; remembered. What it has here or holds for this machine moves.
    pub fn set_rights(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let before = self.rights(peer);
        let changed = self.peers().allow(peer, rights);
        let Some(rights) = self.rights(peer).filter(|rights| before != Some(*rights)) else { return changed };
        let Rights { memory, prompts, memory_limit_bytes, session_limit } = rights;
        self.audit(Some(peer), AuditEvent::RightsChanged { memory, prompts, memory_limit_bytes, session_limit });
        // It is told with the next heartbeat.
        self.inner.profile.send_modify(|_| ());
        self.look();
        changed
    }

    pub(crate) fn greeting(&self, to: PeerId) -> Greeting {
        Greeting { speaks: self.inner.speaks, life: self.inner.life, profile: self.profile_for(to) }
    }

    pub(crate) fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataError> {
        self.inner.data.as_ref().map_or(Ok(()), |data| data.write(name, value))
    }

    /// A token of an answer came.
    pub(crate) fn count_token(&self) {
        self.inner.answered_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// What the path in use to a machine carries, in bits per second, once measured.
    pub(crate) fn rate(&self, peer: PeerId) -> Option<u64> {
        let link = self.endpoint().link(peer)?;
        self.peers().paths(peer).into_iter().find(|path| path.link.remote == link.remote).map(|path| path.bits_per_s)
    }

    /// Whether answers are being computed here, or for people here.
    pub(crate) fn is_busy(&self) -> bool {
        self.profile().sessions > 0 || lock(&self.inner.stages).values().any(|hosted| hosted.stage.sessions() > 0)
    }

    /// How fast this machine has turned out to be.
    pub(crate) fn computes_at(&self, speed: &Speed) {
        self.inner.profile.send_modify(|profile| {
            profile.decode_tokens_per_s = Some(speed.decode_tokens_per_s);
            profile.bytes_per_s = Some(speed.bytes_per_s);
            profile.prefill_tokens_per_s = Some(speed.prefill_tokens_per_s);
        });
        self.peers().touch();
    }

    /// Says from now on that this machine is so many times as fast as it said; remembered.
    pub(crate) fn is_faster(&self, times: f64) {
        let Profile { decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s, .. } = self.profile();
        if let (Some(decode), Some(bytes), Some(prefill)) = (decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s) {
            let speed = Speed::here(decode * times, bytes * times, prefill);
            if let Err(error) = self.save(speed::FILE, &speed) {
                tracing::debug!("the speed that was seen was not kept: {error}");
            }
            self.computes_at(&speed);
        }
    }

    pub(crate) fn is_connected(&self, peer: PeerId) -> bool {
        self.endpoint().admission().is_connected(peer)
    }

    /// The stages that this node wants a machine to hold.
    pub(crate) fn wanted_from(&self, machine: PeerId) -> Vec<StageId> {
        let coordinated = lock(&self.inner.coordinated);
        let wanted = coordinated.values().flat_map(|ring| &ring.wanted);
        wanted.filter(|(_, holder)| *holder == machine).map(|(id, _)| *id).collect()
    }

    /// Stages that a machine had loaded here end with its approval.
    pub(crate) fn drop_stages_of(&self, peer: PeerId) {
        lock(&self.inner.stages).retain(|_, hosted| hosted.claims.owner != peer);
    }
}

#[cfg(test)]
impl Node {
    /// Holds a stage that does nothing, of this owner. Its orders are read by nobody, but the pipe must live.
    pub(crate) fn host_idle(&self, id: StageId, owner: PeerId) -> std::io::PipeReader {
        let (stage, orders) = Stage::idle();
        let claims = Claims::of(owner);
        let hosted = Hosted { claims, bytes: 1_000_000, used_bytes: 0, standby: false, stage, _visit: None };
        lock(&self.inner.stages).insert(id, hosted);
        orders
    }

    /// The stages that are here.
    pub(crate) fn hosted(&self) -> Vec<StageId> {
        lock(&self.inner.stages).keys().copied().collect()
    }
}

/// What a node wants of the process it lives in, before it opens or starts anything.
fn prepare_process() {
    crate::open_files::allow_many();
    hive_worker::prepare();
}

/// What this machine says of itself before its first look around.
fn first_profile(name: &str, speed: Option<&Speed>) -> Profile {
    Profile {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chip: hive_host::this().chip(),
        gpu: mlx_library::computes_on_gpu(),
        os: std::env::consts::OS.to_owned(),
        threads: hive_host::threads(),
        // Decided at the first look.
        sharing: false,
        decode_tokens_per_s: speed.map(|speed| speed.decode_tokens_per_s),
        bytes_per_s: speed.map(|speed| speed.bytes_per_s),
        prefill_tokens_per_s: speed.map(|speed| speed.prefill_tokens_per_s),
        ..Profile::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single map operation, so a poisoned map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow_sightings(node: Node, mut sightings: mpsc::Receiver<Sighting>) {
    while let Some(sighting) = sightings.recv().await {
        match sighting {
            Sighting::Found { record, peer, sockets, name, version } => {
                node.peers().sighted(Announcement { record, peer, sockets, name, version });
            }
            Sighting::Gone(record) => node.peers().vanished(&record),
            Sighting::Trouble(why) => tracing::debug!("searching for machines: {why}"),
            Sighting::Ended(why) => {
                let mut discovery = lock(&node.inner.discovery);
                // Not where this node has stopped it.
                if discovery.0.take().is_some() {
                    tracing::warn!("{why}");
                    discovery.1 = why;
                }
            }
        }
    }
}
