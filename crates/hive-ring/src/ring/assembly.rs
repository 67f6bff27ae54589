//! Loads the stages of a ring, joins them in a circle, and unloads them.

use std::ops::Range;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hive_net::PeerAddr;
use hive_plan::{Plan, PlannedStage};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use hive_peers::{Failing, Placement};
use hive_protocol::{ModelSource, NONSENSE, Neighbours, Reply, Request, RingId, Role, StageId, StageSpec};
use hive_stage::{Destination, FetchFailure, StageHost};

use super::failover::{FaultOrigin, FaultReport};
use super::placed::{FetchProgress, PlacedStage, RingError, RingOptions, failed};

/// Joining takes one connection to a neighbour. On a bad network, connecting takes a few attempts, but not this long.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// A machine reports each layer that it has loaded. The largest take seconds, and a minute from a slow disk.
const LOAD_TIMEOUT: Duration = Duration::from_mins(2);
/// A machine that is present unloads at once. The caller is about to use the memory.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// How often progress in fetching is reported.
const REPORTS: Duration = Duration::from_millis(250);
/// A machine's profile reaches the others with the next heartbeat, four times a second.
const NEWS_DELAY: Duration = Duration::from_millis(500);

/// A planned stage, as its machine is asked to load it.
pub(super) fn spec(planned: &PlannedStage, options: &RingOptions) -> StageSpec {
    let RingOptions { source, compute, threads, at_load } = options.clone();
    let layers = planned.layers.clone();
    StageSpec { source, layers, compute, threads, bytes: planned.bytes(), standby: false, at_load }
}

/// Has every machine fetch its missing layers.
pub(super) async fn fetch(
    host: &StageHost,
    plan: &Plan,
    placements: &[Placement],
    source: &ModelSource,
    progress: &mut (impl FnMut(FetchProgress) + Send),
) -> Result<(), RingError> {
    let told: Vec<_> = plan.stages.iter().map(|_| watch::channel((0, 0))).collect();
    let mut all = FuturesUnordered::new();
    for (stage, (tell, _)) in plan.stages.iter().zip(&told) {
        let placement = &placements[stage.machine];
        all.push(async move {
            let progress = |done, of| _ = tell.send_replace((done, of));
            let fetched = host.fetch_on(&placement.addr, source, stage.layers.clone(), progress).await;
            fetched.map_err(|why| {
                // Plans leave it out for a while, whatever is in its way there.
                host.membership().lacks().note(placement.addr.id(), source);
                match why {
                    FetchFailure::Lacks => {
                        let machine = placement.addr.id();
                        RingError::Lacking(host.membership().lacking(machine, &placement.name, source))
                    }
                    why => failed(placement, &stage.layers, why.to_string()),
                }
            })
        });
    }
    let mut timer = tokio::time::interval(REPORTS);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = || {
        let told = told.iter().map(|(tell, _)| *tell.borrow());
        told.fold((0, 0), |a: (u64, u64), b| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)))
    };
    let mut last = (0, 0);
    loop {
        let is_over = tokio::select! {
            fetched = all.next() => match fetched {
                Some(fetched) => { fetched?; continue }
                None => true,
            },
            _ = timer.tick() => false,
        };
        if now() != last {
            last = now();
            progress(FetchProgress { done_bytes: last.0, of_bytes: last.1 });
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Has a machine load a stage.
///
/// A machine that is full although it advertised room is asked again after its next heartbeat: the memory may be about
/// to be freed, as when the ring that uses it has just been abandoned.
pub(super) async fn load_stage(
    host: &StageHost,
    id: StageId,
    placement: &Placement,
    spec: StageSpec,
    mut progress: impl FnMut(usize) + Send,
) -> Result<PlacedStage, RingError> {
    let (machine, layers) = (placement.addr.id(), spec.layers.clone());
    host.lease(id, machine);
    let incarnation = host.membership().peers().incarnation(machine).unwrap_or_default();
    let mut ask = async || {
        let request = Request::Load(id, spec.clone());
        let (reported, mut heard) = watch::channel(());
        let asking = async {
            let progress = |layers| {
                reported.send_replace(());
                progress(layers);
            };
            host.gives(machine, &spec.source);
            if machine == host.membership().id() {
                host.ask(&placement.addr, request, progress).await
            } else {
                host.membership().ask_other(&placement.addr, request, progress).await
            }
        };
        let silent = async { while matches!(tokio::time::timeout(LOAD_TIMEOUT, heard.changed()).await, Ok(Ok(()))) {} };
        tokio::select! {
            asked = asking => asked,
            () = silent => Err(format!("it said nothing for {} s while loading", LOAD_TIMEOUT.as_secs())),
        }
    };
    let advertises_room = async || {
        tokio::time::sleep(NEWS_DELAY).await;
        // A machine need not accept a standby replica.
        !spec.standby && host.membership().advertises_capacity(machine, spec.bytes)
    };
    let mut asked = ask().await;
    if matches!(asked, Ok(Reply::Full(_))) && advertises_room().await {
        asked = ask().await;
    }
    match asked {
        Ok(Reply::Loaded(device)) => Ok(PlacedStage { placement: placement.clone(), layers, device, incarnation }),
        Ok(Reply::Refused(why)) => {
            if advertises_room().await {
                // It refused although it advertises room.
                host.membership().trust().failed(machine, Failing::Loading);
            }
            Err(failed(placement, &layers, why))
        }
        Ok(Reply::Full(why)) => {
            if advertises_room().await {
                host.membership().trust().had_no_room(machine, spec.bytes);
            }
            Err(failed(placement, &layers, why))
        }
        Ok(Reply::Lacks) => {
            host.membership().lacks().note(machine, &spec.source);
            Err(RingError::Lacking(host.membership().lacking(machine, &placement.name, &spec.source)))
        }
        Ok(Reply::Unfit(why)) if machine == host.membership().id() => Err(RingError::Unfit(why)),
        Ok(Reply::Unfit(_)) => {
            let (name, Range { start, end }) = (&placement.name, layers);
            let why =
                format!("its files are at fault in layers {start} to {end}, as {name} found; the log there says how");
            Err(RingError::Unfit(why))
        }
        Ok(Reply::Declined(why)) => Err(failed(placement, &layers, why)),
        other => {
            let why = other.err().unwrap_or_else(|| NONSENSE.to_owned());
            Err(failed(placement, &layers, why))
        }
    }
}

/// Joins the stages in a circle and returns the connection to the first. An error has the index of the stage that could
/// not be joined.
pub(super) async fn connect(
    host: &StageHost,
    id: RingId,
    epoch: u32,
    stages: &[PlacedStage],
) -> Result<Destination, (usize, RingError)> {
    for (index, stage) in stages.iter().enumerate() {
        let next = stages.get(index + 1).map(|next| next.placement.addr.clone());
        let first = next.is_none().then(|| stages[0].placement.addr.clone());
        let previous = stages[(index + stages.len() - 1) % stages.len()].placement.addr.id();
        let neighbours = Neighbours { epoch, next, first, previous, coordinator: host.membership().addr() };
        let stage_id = StageId { ring: id, index: index as u32 };
        // It may have been a standby replica until now. From here on, this machine takes its frames.
        host.lease(stage_id, stage.placement.addr.id());
        let joining = host.ask(&stage.placement.addr, Request::Join(stage_id, neighbours), |_| ());
        let joined = tokio::time::timeout(JOIN_TIMEOUT, joining).await;
        let joined = joined.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        joined.map_err(|why| (index, failed(&stage.placement, &stage.layers, why)))?;
    }
    let first = &stages[0];
    let prompts = host.route(&first.placement.addr, id, host.membership().id(), Role::Stage(0)).await;
    prompts.map_err(|why| (0, failed(&first.placement, &first.layers, why)))
}

/// Reports when the connection to the first stage breaks for good, even while nothing is sent on it.
pub(super) fn watch_prompts(host: &StageHost, prompts: &Destination, epoch: u32, reports: &mpsc::Sender<FaultReport>) {
    if let Destination::Remote(outlet) = prompts {
        let (ended, reports) = (outlet.ended(), reports.downgrade());
        let node = host.membership().tasks().clone();
        host.membership().spawn(async move {
            let ended = tokio::select! {
                ended = ended => ended,
                () = node.stopping() => None,
            };
            let Some(why) = ended else { return };
            let why = format!("the first machine cannot be reached: {why}");
            if let Some(reports) = reports.upgrade() {
                let _ = reports.try_send(FaultReport { epoch, origin: FaultOrigin::Link, why });
            }
        });
    }
}

/// Unloads stages. Machines that are present have freed the memory when this returns; the others are asked in the
/// background.
pub(super) async fn unload(host: &StageHost, id: RingId, stages: impl Iterator<Item = (usize, PeerAddr)>) {
    for (index, addr) in stages {
        let here = addr.id() == host.membership().id() || host.membership().is_connected(addr.id());
        let request = Request::Unload(StageId { ring: id, index: index as u32 });
        let asker = host.clone();
        let asking = host.membership().spawn(async move {
            let _ = asker.ask(&addr, request, |_| ()).await;
        });
        if here {
            let _ = tokio::time::timeout(UNLOAD_TIMEOUT, asking).await;
        }
    }
}
