//! The node and its own machine: looking at it, sharing it as its owner wishes, keeping it awake.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use hive_host::InterfaceKind;
use hive_net::PeerId;
use hive_net::links::{LinkKind, Network};

use super::guests::{Rules, Tenant};
use super::{Hosted, Node, Owner, lock};
use crate::data::NotKept;
use crate::settings::Settings;
use crate::sharing::{self, Observed, Switches, Why};
use hive_protocol::StageId;
use hive_protocol::offered_bytes;

/// How often the node looks at its own machine.
const LOOK: Duration = Duration::from_secs(1);

/// A change of what is offered that is worth telling; of a small offer, a part of it is.
const OFFER_STEP_BYTES: u64 = 256 << 20;
const OFFER_PART: u64 = 16;

/// Stages whose end is remembered, for their owners to hear why.
const REMEMBERED_EVICTIONS: usize = 64;

/// How long a node that is quit waits for others to take over what it computes for them.
const LEAVING_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether they have.
const LEAVING_PAUSE: Duration = Duration::from_millis(50);

impl Node {
    /// Switches sharing on or off; remembered.
    pub fn share(&self, on: bool) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        self.switch(Switches { share: Some(on), paused_until_s: None, ..before })
    }

    /// Pauses sharing for so long, or, with nothing, ends a pause; remembered.
    pub fn pause(&self, time: Option<Duration>) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        let resumed = Switches { paused_until_s: None, ..before };
        self.switch(time.map_or(resumed, |time| resumed.paused(time, SystemTime::now())))
    }

    /// Gives at most so many bytes of memory, or, with nothing, as many as the settings say; remembered. What is over it
    /// moves to other machines.
    pub fn give_memory(&self, bytes: Option<u64>) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        self.switch(Switches { memory_bytes: bytes, ..before })
    }

    fn switch(&self, switches: Switches) -> Result<(), NotKept> {
        // First of all it counts: an owner who wants to stop must not have to make room on the disk before.
        self.inner.switches.send_replace(switches);
        self.look();
        Ok(self.save(sharing::FILE, &switches)?)
    }

    /// Stops computing for others and waits until they have what they need from elsewhere, or for as long as a person who
    /// quits waits.
    pub async fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
        self.look();
        let until = Instant::now() + LEAVING_PATIENCE;
        let needed = || {
            lock(&self.inner.stages)
                .values()
                .any(|Hosted { claims, .. }| claims.owner != self.id() && self.peers().life(claims.owner).is_some())
        };
        while needed() && Instant::now() < until {
            tokio::time::sleep(LEAVING_PAUSE).await;
        }
    }

    /// Answers that are being computed here now.
    pub(super) fn sessions(&self) -> usize {
        lock(&self.inner.stages).values().map(|hosted| hosted.stage.sessions()).sum()
    }

    /// Reads the owner's settings anew when their file has been written since `read`. One that cannot be read changes
    /// nothing: the owner may be in the middle of writing it.
    fn follow_settings(&self, read: &mut Option<SystemTime>) {
        let Some(data) = &self.inner.data else { return };
        let written = Settings::written(data.path());
        if written == *read {
            return;
        }
        *read = written;
        match Settings::read(data.path()) {
            Ok(settings) => {
                let policy = settings.policy();
                self.inner.pace.limit(policy.bits_per_s);
                *lock(&self.inner.owner.policy) = policy;
            }
            Err(error) => tracing::warn!("the settings stay as they were: {error}"),
        }
    }

    /// Sees what the stages here take.
    fn measure_stages(&self) {
        let stages: Vec<_> = lock(&self.inner.stages).iter().map(|(id, hosted)| (*id, hosted.stage.clone())).collect();
        for (id, stage) in stages {
            let used_bytes = stage.used_bytes();
            if let Some(hosted) = lock(&self.inner.stages).get_mut(&id) {
                hosted.used_bytes = used_bytes;
            }
        }
    }

    /// Ends the stages of other machines that may not stay.
    pub(super) fn evict(&self, shares: bool, cap_bytes: Option<u64>, now: Instant) {
        let tenants: Vec<Tenant> =
            lock(&self.inner.stages).iter().map(|(id, hosted)| self.tenant(*id, hosted)).collect();
        let shares_with = |owner| shares && self.peers().rights(owner).memory;
        let rules = Rules { shares_with: &shares_with, cap_bytes, cap_of: &|owner| self.cap_of(owner) };
        let evictions = lock(&self.inner.guests).evictions(&tenants, &rules, now);
        for (id, why) in evictions {
            let Some(Hosted { claims, stage, .. }) = lock(&self.inner.stages).remove(&id) else { continue };
            let name = self.peers().name(claims.owner);
            tracing::warn!("stage {} of {name} is ended: {why}", id.index);
            let mut evicted = lock(&self.inner.evicted);
            evicted.truncate(REMEMBERED_EVICTIONS - 1);
            evicted.push_front((id, claims.owner, why));
            self.spawn(stage.end(why.to_string()));
        }
    }

    fn tenant(&self, id: StageId, hosted: &Hosted) -> Tenant {
        let owner = hosted.claims.owner;
        Tenant {
            id,
            owner,
            // Nodes of one process are one machine.
            is_guest: owner != self.id() && !self.trusts_paths(),
            // One that does not answer greetings may still be connected.
            owner_is_here: self.peers().life(owner).is_some() || self.is_connected(owner),
            planned_bytes: hosted.bytes,
            used_bytes: hosted.used_bytes,
        }
    }

    /// Why this machine has ended a stage of `owner`, if it has.
    pub(super) fn evicted(&self, owner: PeerId, id: StageId) -> Option<String> {
        let evicted = lock(&self.inner.evicted);
        evicted.iter().find(|(stage, whose, _)| (*stage, *whose) == (id, owner)).map(|(_, _, why)| why.to_string())
    }

    /// Looks at this machine, and says what has changed.
    pub(super) fn look(&self) {
        let host = hive_host::this();
        let Owner { share, memory_cap, policy, .. } = &self.inner.owner;
        let policy = lock(policy).clone();
        let memory_cap = self.inner.switches.borrow().memory_cap(*memory_cap);
        self.measure_stages();
        let taken = self.taken();
        let (held_bytes, planned_bytes) = (taken.stages, self.planned_bytes(|_| true));
        let memory = hive_host::Memory::now();
        let (free_bytes, memory_bytes) = memory.map_or((0, 0), |memory| (memory.available_bytes, memory.total_bytes));
        let (power, heat) = (host.power(), host.heat());
        let idle = policy.only_when_idle.and_then(|_| host.idle());
        let observed = Observed { power, heat, idle, free_bytes, memory_bytes };
        let (switches, leaving) = (*self.inner.switches.borrow(), self.inner.leaving.load(Ordering::Relaxed));
        let sharing_now = self.profile().sharing;
        let decided = sharing::decide(*share, leaving, &policy, switches, observed, sharing_now, SystemTime::now());
        if decided == Err(Why::ShortOfMemory) || memory_cap.is_some_and(|cap| taken.all() > cap) {
            self.drop_copies(|_| true);
        } else if decided.is_err() {
            // Those of this machine's own models are its owner's, shared or not.
            self.drop_copies(|owner| owner != self.id());
        }
        self.drop_copies_past_their_owners_limits();
        self.evict(decided.is_ok(), memory_cap, Instant::now());
        let sessions = self.sessions();
        let changed = self.inner.profile.send_if_modified(|profile| {
            let before = profile.clone();
            profile.memory_bytes = memory_bytes;
            profile.limit_bytes = memory_cap.into_iter().chain(host.gpu_working_set_bytes()).min();
            let offer = offered_bytes(free_bytes, profile.limit_bytes);
            // Free memory changes with every breath; others hear of what matters to them.
            if profile.offered_bytes.abs_diff(offer) > OFFER_STEP_BYTES.min(offer / OFFER_PART) {
                profile.offered_bytes = offer;
            }
            let others_bytes = memory_bytes.saturating_sub(free_bytes).saturating_sub(held_bytes);
            if profile.taken_bytes.abs_diff(others_bytes) > OFFER_STEP_BYTES {
                profile.taken_bytes = others_bytes;
            }
            profile.cap_bytes = memory_cap;
            profile.held_bytes = held_bytes;
            profile.over_cap = memory_cap.is_some_and(|cap| planned_bytes > cap);
            profile.sends_bits_per_s = policy.bits_per_s;
            profile.power = power;
            profile.heat = heat;
            if let Some(told) = self.catalogue().told() {
                (profile.models, profile.copies) = (told.names, Some(told.copies));
            }
            profile.sessions = sessions;
            profile.sharing = decided.is_ok();
            profile.not_sharing = decided.err().map(|why| why.to_string());
            *profile != before
        });
        if changed {
            self.peers().touch();
        }
    }
}

pub(super) async fn watch_machine(node: Node) {
    let mut awake = Awake::default();
    let mut switches = node.inner.switches.subscribe();
    let mut settings = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = switches.changed() => {}
            () = node.stopping() => return,
        }
        let here = node.clone();
        // Asking the system can take a while, on a Mac most of all.
        let looking = tokio::task::spawn_blocking(move || {
            here.follow_settings(&mut settings);
            here.look();
            let profile = here.profile();
            awake.hold(profile.sharing && !profile.power.on_battery);
            (own_networks(), awake, settings)
        });
        let Ok((networks, held, read)) = looking.await else { return };
        (awake, settings) = (held, read);
        if node.endpoint().networks().set(networks) {
            node.endpoint().network_changed().await;
            node.look_around();
        }
    }
}

/// Keeps a machine that shares from falling asleep under the others' answers; on battery it may.
#[derive(Default)]
struct Awake {
    wished: bool,
    held: Option<hive_host::KeepAwake>,
}

impl Awake {
    fn hold(&mut self, wish: bool) {
        if wish == self.wished {
            return;
        }
        self.wished = wish;
        self.held = if wish {
            let asked = hive_host::this().keep_awake("sharing compute with your other machines");
            // A server without a desktop does not fall asleep, and has nobody to ask.
            asked.inspect_err(|error| tracing::debug!("{error}")).ok()
        } else {
            None
        };
    }
}

/// This machine's networks, as the choice of links wants them.
pub(super) fn own_networks() -> Vec<Network> {
    let kind = |kind| match kind {
        InterfaceKind::Loopback => LinkKind::Loopback,
        InterfaceKind::Thunderbolt => LinkKind::Thunderbolt,
        InterfaceKind::Ethernet => LinkKind::Ethernet,
        InterfaceKind::Wifi => LinkKind::Wifi,
        InterfaceKind::Vpn => LinkKind::Vpn,
        InterfaceKind::Other => LinkKind::Other,
    };
    let interfaces = hive_host::this().interfaces().into_iter();
    let networks = interfaces.flat_map(|interface| {
        let (name, kind) = (interface.name, kind(interface.kind));
        let network = move |(address, prefix)| Network { interface: name.clone(), address, prefix, kind };
        interface.addresses.into_iter().map(network)
    });
    networks.collect()
}
