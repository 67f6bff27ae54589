//! Stages onto their machines, joined in a circle, and off them again.

use std::ops::Range;
use std::time::Duration;

use hive_net::PeerAddr;
use hive_plan::PlannedStage;
use tokio::sync::{mpsc, watch};

use hive_peers::{Failing, Placement};
use hive_protocol::{Answer, NONSENSE, Neighbours, Question, RingId, Role, StageId, StageSpec};
use hive_stage::{Destination, Fault, StageHost};

use super::placed::{PlacedStage, RingError, RingOptions, failed};
use super::state::{Cause, Trouble};

/// A stage is joined as soon as its neighbours are reached.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// A machine that loads says so with every layer; the largest take seconds, from a slow disk a minute.
const LOAD_PATIENCE: Duration = Duration::from_mins(2);
/// A machine that is here frees a stage at once.
const UNLOAD_PATIENCE: Duration = Duration::from_secs(1);
/// What a machine's owner has just changed is known to the others after this time.
const NEWS_DELAY: Duration = Duration::from_millis(500);

/// A planned stage, as its machine is asked to load it.
pub(super) fn spec(planned: &PlannedStage, options: &RingOptions) -> StageSpec {
    let RingOptions { source, compute, threads, .. } = options.clone();
    StageSpec { source, layers: planned.layers.clone(), compute, threads, bytes: planned.bytes(), standby: false }
}

/// Has a machine load a stage.
///
/// One that is full although it says it has room is asked once more when its news is here: what takes the room may be on its
/// way out, as the stages of a ring are that was given up a moment ago.
pub(super) async fn load_stage(
    host: &StageHost,
    id: StageId,
    placement: &Placement,
    spec: StageSpec,
    mut progress: impl FnMut(usize),
) -> Result<PlacedStage, RingError> {
    let (machine, layers) = (placement.addr.id(), spec.layers.clone());
    host.want(id, machine);
    let life = host.membership().peers().life(machine).unwrap_or_default();
    let mut ask = async || {
        let question = Question::Load(id, spec.clone());
        let (told, mut heard) = watch::channel(());
        let asking = async {
            let progress = |layers| {
                told.send_replace(());
                progress(layers);
            };
            if machine == host.membership().id() {
                host.ask(&placement.addr, question, progress).await
            } else {
                host.membership().ask_other(&placement.addr, question, progress).await
            }
        };
        let silent =
            async { while matches!(tokio::time::timeout(LOAD_PATIENCE, heard.changed()).await, Ok(Ok(()))) {} };
        tokio::select! {
            asked = asking => asked,
            () = silent => Err(format!("it said nothing for {} s while loading", LOAD_PATIENCE.as_secs())),
        }
    };
    let says_it_has_room = async || {
        tokio::time::sleep(NEWS_DELAY).await;
        // A copy is a favour.
        !spec.standby && host.membership().says_it_has_room(machine, spec.bytes)
    };
    let mut asked = ask().await;
    if matches!(asked, Ok(Answer::Full(_))) && says_it_has_room().await {
        asked = ask().await;
    }
    match asked {
        Ok(Answer::Loaded(device)) => Ok(PlacedStage { placement: placement.clone(), layers, device, life }),
        Ok(Answer::Refused(why)) => {
            if says_it_has_room().await {
                // It goes on saying so, and was here to say no: that counts against it.
                host.membership().trust().failed(machine, Failing::Loading);
            }
            Err(failed(placement, &layers, why))
        }
        Ok(Answer::Full(why)) => {
            if says_it_has_room().await {
                host.membership().trust().had_no_room(machine, spec.bytes);
            }
            Err(failed(placement, &layers, why))
        }
        Ok(Answer::Lacks) => {
            host.membership().lacks().note(machine, &spec.source);
            Err(RingError::Lacking(host.membership().lacking(machine, &placement.name, &spec.source)))
        }
        Ok(Answer::Unfit(why)) if machine == host.membership().id() => Err(RingError::Unfit(why)),
        Ok(Answer::Unfit(_)) => {
            let (name, Range { start, end }) = (&placement.name, layers);
            let why =
                format!("its files are at fault in layers {start} to {end}, as {name} found; the log there says how");
            Err(RingError::Unfit(why))
        }
        Ok(Answer::Declined(why)) => Err(failed(placement, &layers, why)),
        other => {
            let why = other.err().unwrap_or_else(|| NONSENSE.to_owned());
            Err(failed(placement, &layers, why))
        }
    }
}

/// Joins the stages in a circle and gives the way to the first. An error names the stage that could not be joined.
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
        // It may have been a copy until now; from here on this host takes its frames.
        host.want(stage_id, stage.placement.addr.id());
        let joining = host.ask(&stage.placement.addr, Question::Join(stage_id, neighbours), |_| ());
        let joined = tokio::time::timeout(JOIN_PATIENCE, joining).await;
        let joined = joined.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        joined.map_err(|why| (index, failed(&stage.placement, &stage.layers, why)))?;
    }
    let first = &stages[0];
    let prompts = host.route(&first.placement.addr, id, host.membership().id(), Role::Stage(0)).await;
    prompts.map_err(|why| (0, failed(&first.placement, &first.layers, why)))
}

/// Hears when the way to the first stage breaks for good while nothing is being sent on it.
pub(super) fn watch_prompts(host: &StageHost, prompts: &Destination, epoch: u32, troubles: &mpsc::Sender<Trouble>) {
    if let Destination::Remote(outlet) = prompts {
        let (ended, troubles) = (outlet.ended(), troubles.downgrade());
        host.membership().spawn(async move {
            let why = format!("the first machine cannot be reached: {}", ended.await);
            if let Some(troubles) = troubles.upgrade() {
                let _ = troubles.try_send(Trouble { epoch, cause: Cause::Fault(Fault::Link), why });
            }
        });
    }
}

/// Machines that are here free their memory before this returns; the others are told when they can be.
pub(super) async fn unload(host: &StageHost, id: RingId, stages: impl Iterator<Item = (usize, PeerAddr)>) {
    for (index, addr) in stages {
        let here = addr.id() == host.membership().id() || host.membership().is_connected(addr.id());
        let question = Question::Unload(StageId { ring: id, index: index as u32 });
        let asker = host.clone();
        let telling = host.membership().spawn(async move {
            let _ = asker.ask(&addr, question, |_| ()).await;
        });
        if here {
            let _ = tokio::time::timeout(UNLOAD_PATIENCE, telling).await;
        }
    }
}
