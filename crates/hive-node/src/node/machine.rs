//! The node and its own machine: observing it, sharing it as its owner wishes, keeping it awake.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use hive_host::InterfaceKind;
use hive_net::links::{LinkKind, Network};
use hive_peers::data::NotKept;
use hive_protocol::offered_bytes;
use hive_types::NotSharing;

use super::{Node, Owner, lock};
use crate::settings::Settings;
use crate::sharing::{self, Observed, Switches};

/// Interval between two observations of this machine.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A change in offered memory is announced once it exceeds this many bytes, or one `OFFER_PART`th of the offer if
/// that is less.
const OFFER_STEP_BYTES: u64 = 256 << 20;
const OFFER_PART: u64 = 16;

/// How long a quitting node waits for other machines to take over its stages.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Poll interval while it waits.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

impl Node {
    /// Switches sharing on or off, persistently.
    pub fn share(&self, on: bool) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        self.switch(Switches { share: Some(on), paused_until_s: None, ..before })
    }

    /// Pauses sharing for this long; `None` ends a pause. Persistent.
    pub fn pause(&self, time: Option<Duration>) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        let resumed = Switches { paused_until_s: None, ..before };
        self.switch(time.map_or(resumed, |time| resumed.paused(time, SystemTime::now())))
    }

    /// Sets how many bytes of memory this machine shares; `None` restores the limit in the settings. Persistent. Stages
    /// above the limit move to other machines.
    pub fn give_memory(&self, bytes: Option<u64>) -> Result<(), NotKept> {
        let before = *self.inner.switches.borrow();
        self.switch(Switches { memory_bytes: bytes, ..before })
    }

    fn switch(&self, switches: Switches) -> Result<(), NotKept> {
        // Apply it before saving: an owner must be able to stop sharing even if the disk is full.
        self.inner.switches.send_replace(switches);
        self.look();
        Ok(self.member().save(sharing::FILE, &switches)?)
    }

    /// Stops computing for others. Returns when they have moved their stages elsewhere, or after `DRAIN_TIMEOUT`.
    pub async fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
        self.look();
        let until = Instant::now() + DRAIN_TIMEOUT;
        while self.host().has_guests_present() && Instant::now() < until {
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    }

    /// Rereads the owner's settings if their file has been written since `read`. A file that cannot be read changes
    /// nothing: the owner may be in the middle of writing it.
    fn follow_settings(&self, read: &mut Option<SystemTime>) {
        let Some(data) = self.member().data() else { return };
        let written = Settings::written(data.path());
        if written == *read {
            return;
        }
        *read = written;
        let settings = Settings::read(data.path()).map_err(|error| error.to_string());
        let limited = settings.and_then(|settings| match settings.disk_cap() {
            Ok(disk_cap) => Ok((settings, disk_cap)),
            Err(error) => Err(error.to_string()),
        });
        match limited {
            Ok((settings, disk_cap)) => {
                let policy = settings.policy();
                self.host().limit_disk(disk_cap);
                self.host().limit_rate(policy.bits_per_s);
                self.host().limit_downloads(policy.download_bytes_per_s);
                self.host().catalogue().quantize_at_load(policy.quantize_at_load);
                self.serving().keep_prompts_here(self.inner.owner.keep_prompts_here || policy.keep_prompts_here);
                self.serving().unload_after(policy.unload_after);
                *lock(&self.inner.owner.policy) = policy;
            }
            Err(error) => tracing::warn!("the settings stay as they were: {error}"),
        }
    }

    /// Observes this machine and announces changes.
    pub(super) fn look(&self) {
        let host = hive_host::this();
        let Owner { share, memory_cap, policy, .. } = &self.inner.owner;
        let policy = lock(policy).clone();
        let memory_cap = self.inner.switches.borrow().memory_cap(*memory_cap);
        self.host().limit_memory(memory_cap);
        let held = self.host().measure();
        let memory = hive_host::Memory::now();
        let (free_bytes, memory_bytes) = memory.map_or((0, 0), |memory| (memory.available_bytes, memory.total_bytes));
        let (power, heat) = (host.power(), host.heat());
        let idle = policy.only_when_idle.and_then(|_| host.idle());
        let observed = Observed { power, heat, idle, free_bytes, memory_bytes };
        let (switches, leaving) = (*self.inner.switches.borrow(), self.inner.leaving.load(Ordering::Relaxed));
        let sharing_now = self.profile().sharing;
        let decided = sharing::decide(*share, leaving, &policy, switches, observed, sharing_now, SystemTime::now());
        self.host().settle(decided.is_ok(), decided == Err(NotSharing::ShortOfMemory), Instant::now());
        let sessions = self.host().sessions();
        self.member().describe(|profile| {
            let before = profile.clone();
            profile.memory_bytes = memory_bytes;
            profile.limit_bytes = memory_cap.into_iter().chain(host.gpu_working_set_bytes()).min();
            let offer = offered_bytes(free_bytes, profile.limit_bytes);
            // Free memory changes constantly; only changes that matter are announced.
            if profile.offered_bytes.abs_diff(offer) > OFFER_STEP_BYTES.min(offer / OFFER_PART) {
                profile.offered_bytes = offer;
            }
            let others_bytes = memory_bytes.saturating_sub(free_bytes).saturating_sub(held.stage_bytes);
            if profile.taken_bytes.abs_diff(others_bytes) > OFFER_STEP_BYTES {
                profile.taken_bytes = others_bytes;
            }
            profile.cap_bytes = memory_cap;
            profile.held_bytes = held.stage_bytes;
            profile.over_cap = memory_cap.is_some_and(|cap| held.planned_bytes > cap);
            profile.sends_bits_per_s = policy.bits_per_s;
            profile.power = power;
            profile.heat = heat;
            if let Some(told) = self.host().catalogue().told() {
                (profile.models, profile.copies) = (told.names, Some(told.copies));
            }
            profile.sessions = sessions;
            profile.set_sharing(decided);
            *profile != before
        });
    }
}

pub(super) async fn watch_machine(node: Node) {
    let mut awake = Awake::default();
    let mut switches = node.inner.switches.subscribe();
    let mut settings = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = switches.changed() => {}
            () = node.member().stopping() => return,
        }
        let here = node.clone();
        // Asking the system can take a while, especially on a Mac.
        let looking = tokio::task::spawn_blocking(move || {
            here.follow_settings(&mut settings);
            here.look();
            let profile = here.profile();
            awake.hold(profile.sharing && !profile.power.on_battery);
            (own_networks(), awake, settings)
        });
        let Ok((networks, held, read)) = looking.await else { return };
        (awake, settings) = (held, read);
        if node.member().endpoint().networks().set(networks) {
            node.member().endpoint().network_changed().await;
            node.member().rediscover();
        }
    }
}

/// Keeps a machine awake while it shares; on battery it may sleep.
#[derive(Default)]
struct Awake {
    wished: bool,
    held: Option<hive_host::KeepAwake>,
}

impl Awake {
    fn hold(&mut self, wanted: bool) {
        if wanted == self.wished {
            return;
        }
        self.wished = wanted;
        self.held = if wanted {
            let asked = hive_host::this().keep_awake("sharing compute with your other machines");
            // Expected on a server without a desktop, which does not sleep and has no service to ask.
            asked.inspect_err(|error| tracing::debug!("{error}")).ok()
        } else {
            None
        };
    }
}

/// This machine's networks, for the choice of links.
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
