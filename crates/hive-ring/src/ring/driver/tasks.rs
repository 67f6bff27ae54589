//! The tasks of a failover: everything that takes time or depends on the current state of the fleet.

use std::time::Duration;

use hive_net::PeerId;
use hive_peers::Placement;
use hive_protocol::Request;
use hive_stage::Destination;
use tokio::task::JoinHandle;

use crate::ring::assembly::{connect, load_stage, spec};
use crate::ring::checkup::{Checked, check};
use crate::ring::failover::{Check, Departure, Holder, Outcome};
use crate::ring::placed::{PlacedStage, has_left};
use crate::ring::timing::Finding;
use crate::ring::{Inner, Ring};

/// Killing a worker is quick, even if it hangs. If it takes longer than this, the machine starts another worker beside
/// it.
const END_WORKER_TIMEOUT: Duration = Duration::from_secs(3);

/// A machine that is present unloads at once. One that returns later unloads its stages at the next lease renewal.
const UNLOADED_TIMEOUT: Duration = Duration::from_secs(3);

/// How a task finished, and its result.
pub(super) type Finished = (Outcome<PeerId>, Option<Product>);

/// A result that the failover does not need to know.
pub(super) enum Product {
    /// A stage that is loaded on a machine.
    Stage(Holder<PeerId>, Box<PlacedStage>),
    /// The connection to the first stage.
    Prompts(Destination),
}

impl Product {
    fn stage(holder: Holder<PeerId>, stage: PlacedStage) -> Self {
        Self::Stage(holder, Box::new(stage))
    }
}

/// For each machine, why it must not hold its stage any longer.
pub(super) fn observe(ring: &Ring) -> Outcome<PeerId> {
    let member = ring.host().membership();
    let departure = |stage: &PlacedStage| {
        let machine = stage.placement.addr.id();
        if has_left(ring.host(), stage) {
            Some(Departure::Left)
        } else if member.is_leaving(machine) {
            Some(Departure::StoppedSharing)
        } else if !member.may_see_prompts(machine) {
            Some(Departure::MayNotSeePrompts)
        } else if member.is_over_cap(machine) {
            Some(Departure::OverCap)
        } else {
            None
        }
    };
    Outcome::Observed(ring.stages().iter().map(departure).collect())
}

/// Whether the ring is used.
pub(super) fn check_use(ring: &Ring) -> Outcome<PeerId> {
    Outcome::Use(ring.is_busy() || !ring.prefix_cache().is_empty())
}

/// Asks the machine of a stage for a pulse, and judges it.
pub(super) async fn check_stage(ring: Ring, holder: Holder<PeerId>) -> Finished {
    let stage = ring.inner.stages()[holder.stage].clone();
    let answer = match check(ring.host(), &stage, Request::Check(ring.inner.stage_id(holder.stage))).await {
        Checked::Pulse(pulse) => {
            let is_cold = ring.is_cold(ring.inner.state.borrow().epoch);
            match ring.expected().judge(holder.stage, &pulse, is_cold) {
                Finding::Hung(_) => Check::Hung,
                Finding::Working | Finding::Idle | Finding::HeldUp => Check::Working,
            }
        }
        Checked::Gone(why) => Check::Gone(why),
        Checked::Silent => Check::Silent,
    };
    (Outcome::Checked(answer), None)
}

/// Takes the standby replica of a stage, if one can compute.
pub(super) async fn take_standby(ring: Ring, stage: usize) -> Finished {
    let Some(replica) = ring.take_standby(stage).await else { return (Outcome::StandbyTaken(None), None) };
    let holder = Holder { stage, machine: replica.placement.addr.id() };
    tracing::info!("the standby replica of layers {:?} on {} takes over", replica.layers, replica.placement.name);
    (Outcome::StandbyTaken(Some(holder)), Some(Product::stage(holder, replica)))
}

/// Ends the hung worker of a stage on this machine.
pub(super) async fn end_worker(ring: Ring, holder: Holder<PeerId>) -> Finished {
    let addr = ring.inner.stages()[holder.stage].placement.addr.clone();
    let request = Request::Unload(ring.inner.stage_id(holder.stage));
    let _ = tokio::time::timeout(END_WORKER_TIMEOUT, ring.host().ask(&addr, request, |_| ())).await;
    (Outcome::WorkerEnded, None)
}

/// Has a machine load a stage, after any unloading of it (`unloading`) is done: the orders must not overtake each
/// other.
pub(super) async fn load(
    ring: Ring,
    holder: Holder<PeerId>,
    placement: Placement,
    unloading: Option<JoinHandle<()>>,
) -> Finished {
    if let Some(mut unloading) = unloading
        && tokio::time::timeout(UNLOADED_TIMEOUT, &mut unloading).await.is_err()
    {
        unloading.abort();
    }
    let Inner { host, plan, options, .. } = &*ring.inner;
    let (id, spec) = (ring.inner.stage_id(holder.stage), spec(&plan.stages[holder.stage], options));
    match load_stage(host, id, &placement, spec, |_| ()).await {
        Ok(stage) => (Outcome::Loaded(holder), Some(Product::stage(holder, stage))),
        Err(error) => (Outcome::LoadFailed(holder, error.to_string()), None),
    }
}

/// Moves the sessions of a stage from the machine that held it before.
pub(super) async fn drain(ring: Ring, stage: usize, before: PlacedStage) -> Finished {
    let after = ring.inner.stages()[stage].clone();
    ring.drain(stage, &before, &after).await;
    (Outcome::Drained, None)
}

/// Joins the stages in this epoch.
pub(super) async fn join(ring: Ring, epoch: u32) -> Finished {
    match connect(ring.host(), ring.inner.id, epoch, &ring.stages()).await {
        Ok(prompts) => (Outcome::Joined, Some(Product::Prompts(prompts))),
        Err((stage, error)) => (Outcome::NotJoined(stage, error.to_string()), None),
    }
}
