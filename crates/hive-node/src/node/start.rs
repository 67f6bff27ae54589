//! Starting a node.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use hive_peers::{Membership, MembershipOptions, Speed, StartError};
use hive_protocol::Profile;
use hive_serving::{MARKS_FILE, Marks, PLACEMENTS_FILE, Placements, Serving};
use hive_stage::{HostOptions, StageHost, aside};
use hive_worker::mlx_library;
use tokio::sync::watch;

use super::machine::{own_networks, watch_machine};
use super::options::NodeOptions;
use super::{Inner, Node, Owner};
use crate::sharing::{self, Switches};
use crate::speed;

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
            disk_cap,
            policy,
            keep_prompts_here,
            trust_paths,
            fetches,
            speaks,
        } = options;
        let data = data.map(Arc::new);
        let switches: Option<Switches> = data.as_deref().map(|data| data.read(sharing::FILE)).transpose()?.flatten();
        let switches = switches.unwrap_or_default().at_start(share);
        let placed: Option<Placements> = data.as_deref().map(|data| data.read(PLACEMENTS_FILE)).transpose()?.flatten();
        let marks: Option<Marks> = data.as_deref().map(|data| data.read(MARKS_FILE)).transpose()?.flatten();
        // Measured earlier, on this machine and with this version.
        let speed = data.as_deref().and_then(Speed::kept);
        let is_unmeasured = data.is_some() && share && speed.is_none();
        let profile = first_profile(&name, speed.as_ref());
        let networks = own_networks();
        let knows_its_disk = data.is_some();
        let membership = MembershipOptions { name, bind, data, relay, lan_only, networks, speaks, profile };
        let (member, incoming) = Membership::open(membership).await?;
        let memory_cap_now = switches.memory_cap(memory_cap);
        let limits = HostOptions {
            memory_cap: memory_cap_now,
            bits_per_s: policy.bits_per_s,
            trust_paths,
            fetches,
            disk_cap,
            download_bytes_per_s: policy.download_bytes_per_s,
        };
        let host = StageHost::new(member.clone(), limits);
        host.catalogue().quantize_at_load(policy.quantize_at_load);
        let keeps_prompts_here = keep_prompts_here || policy.keep_prompts_here;
        let (placed, marks) = (placed.unwrap_or_default(), marks.unwrap_or_default());
        let serving = Serving::new(host.clone(), placed, marks, keeps_prompts_here);
        serving.unload_after(policy.unload_after);
        let inner = Inner {
            member,
            host,
            serving,
            owner: Owner { share, memory_cap, keep_prompts_here, policy: Mutex::new(policy) },
            switches: watch::channel(switches).0,
            leaving: AtomicBool::new(false),
        };
        let node = Self { inner: Arc::new(inner) };
        node.look();
        node.read_hub_token();
        node.member().run(&node.host().local(), incoming);
        node.run(is_unmeasured, knows_its_disk);
        if discover {
            node.member().discover();
        }
        Ok(node)
    }

    /// Starts the node's own tasks, which run until it stops.
    fn run(&self, is_unmeasured: bool, knows_its_disk: bool) {
        let (member, host, serving) = (self.member(), self.host(), self.serving());
        member.spawn(watch_machine(self.clone()));
        member.spawn({
            let host = host.clone();
            async move { host.renew_own_leases().await }
        });
        member.spawn({
            let serving = serving.clone();
            async move { serving.move_to_better_plans().await }
        });
        member.spawn({
            let serving = serving.clone();
            async move { serving.keep_placements().await }
        });
        member.spawn({
            let serving = serving.clone();
            async move { serving.unload_idle().await }
        });
        member.spawn({
            let serving = serving.clone();
            async move { serving.restore().await }
        });
        if is_unmeasured {
            member.spawn(speed::find_out(host.clone()));
        }
        if knows_its_disk {
            let host = host.clone();
            member.spawn(async move {
                aside(|| host.remove_orphaned_parts());
                host.catalogue().run(host.membership()).await;
            });
        }
    }
}

/// Prepares the process, before the node opens or starts anything.
fn prepare_process() {
    crate::open_files::allow_many();
    hive_worker::prepare();
}

/// This machine's profile before its first observation.
fn first_profile(name: &str, speed: Option<&Speed>) -> Profile {
    Profile {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chip: hive_host::this().chip(),
        gpu: mlx_library::computes_on_gpu(),
        os: std::env::consts::OS.to_owned(),
        threads: hive_host::threads(),
        // Decided by the first observation.
        sharing: false,
        decode_tokens_per_s: speed.map(|speed| speed.decode_tokens_per_s),
        bytes_per_s: speed.map(|speed| speed.bytes_per_s),
        prefill_tokens_per_s: speed.map(|speed| speed.prefill_tokens_per_s),
        ..Profile::default()
    }
}
