//! How a ring begins and how it ends.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hive_peers::Placement;
use hive_plan::Plan;
use hive_protocol::{RingId, StageId, random_id};
use hive_stage::StageHost;
use hive_stage::planning::PLANNED_CONTEXT;
use hive_worker::text::Model;
use tokio::sync::{Semaphore, mpsc, watch};

use super::assembly::{connect, load_stage, spec, unload, watch_prompts};
use super::due::Due;
use super::placed::{RingError, RingOptions, holders};
use super::sessions::{SESSION_QUEUE, dispatch};
use super::state::{Health, State};
use super::{Inner, Ring, lock, mend, standby};
use crate::kept::Kept;

/// Troubles on their way to be mended; one is enough.
const TROUBLES: usize = 8;

impl Ring {
    /// Loads a model as the plan says, over `placements`; `progress` hears how many layers are loaded in all.
    pub async fn load(
        host: &StageHost,
        model: Model,
        plan: &Plan,
        placements: &[Placement],
        options: RingOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, RingError> {
        model.prepare().await?;
        let id = RingId(random_id());
        // Known as wanted before the first stage is there, see `Question::Retain`.
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        host.coordinate(id, frames);
        let mut stages = Vec::with_capacity(plan.stages.len());
        let mut done = 0;
        for (index, stage) in plan.stages.iter().enumerate() {
            let placement = &placements[stage.machine];
            let stage_id = StageId { ring: id, index: index as u32 };
            let loaded = load_stage(host, stage_id, placement, spec(stage, &options), |layers| progress(done + layers));
            match loaded.await {
                Ok(stage) => stages.push(stage),
                Err(error) => {
                    host.retire(id);
                    // The one that failed as well: its connection may have broken when it had loaded.
                    let failed = placement.addr.clone();
                    let holders = stages.iter().map(|stage| stage.placement.addr.clone()).chain([failed]);
                    unload(host, id, holders.enumerate()).await;
                    return Err(error);
                }
            }
            done += stage.layers.len();
        }
        let prompts = match connect(host, id, 0, &stages).await {
            Ok(prompts) => prompts,
            Err((_, error)) => {
                host.retire(id);
                unload(host, id, holders(stages.iter().enumerate())).await;
                return Err(error);
            }
        };
        let all_tokens = (plan.room_tokens as usize).min(Semaphore::MAX_PERMITS / 2);
        let kept_tokens = (all_tokens / 2).min(PLANNED_CONTEXT as usize);
        let room_tokens = all_tokens - kept_tokens;
        let (troubles, waiting) = mpsc::channel(TROUBLES);
        watch_prompts(host, &prompts, 0, &troubles);
        let inner = Arc::new(Inner {
            id,
            host: host.clone(),
            plan: plan.clone(),
            stages: Mutex::new(stages),
            standbys: Mutex::default(),
            state: watch::channel(State { epoch: 0, health: Health::Whole }).0,
            mending: tokio::sync::Mutex::default(),
            checking: Arc::default(),
            heard: Mutex::new(Instant::now()),
            warm_epochs: AtomicU32::new(0),
            spot_check: Due::default(),
            spot_checking: Arc::default(),
            tainted_epochs: AtomicU32::new(0),
            troubles,
            model,
            options,
            prompts: tokio::sync::Mutex::new(prompts),
            sessions: Mutex::default(),
            answers: AtomicU64::new(u64::from(random_id() as u32)),
            opened: AtomicU64::default(),
            kept: Mutex::new(Kept::new(kept_tokens)),
            room: Arc::new(Semaphore::new(room_tokens)),
            room_tokens,
        });
        host.membership().spawn(dispatch(queue, Arc::downgrade(&inner)));
        host.membership().spawn(standby::keep(Arc::downgrade(&inner), host.clone()));
        host.membership().spawn(mend::run(Arc::downgrade(&inner), waiting, host.clone()));
        Ok(Self { inner })
    }

    /// Frees the model everywhere.
    pub async fn unload(&self) {
        self.fail("the model was unloaded");
        self.inner.host.retire(self.inner.id);
        // Whoever mends it sees this and frees what was loaded for that.
        drop(self.inner.mending.lock().await);
        self.unload_all().await;
    }

    pub(super) async fn unload_all(&self) {
        let stages = self.stages();
        let standbys = std::mem::take(&mut *lock(&self.inner.standbys));
        let copies = standbys.iter().map(|standby| (standby.index, &standby.stage));
        // A copy that is still being loaded goes with the next look for such.
        self.inner.host.want_only(self.inner.id, std::iter::empty());
        unload(&self.inner.host, self.inner.id, holders(stages.iter().enumerate().chain(copies))).await;
    }

    /// Waits until it has been given up.
    pub(super) async fn given_up(&self) {
        let _ = self.state().wait_for(|state| matches!(state.health, Health::Lost(_))).await;
    }
}
