//! The beginning and the end of a ring: loading and unloading.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hive_peers::Placement;
use hive_plan::Plan;
use hive_protocol::{ModelSource, RingId, StageId, random_id};
use hive_stage::StageHost;
use hive_stage::planning::{self, PLANNED_CONTEXT};
use hive_worker::text::Model;
use tokio::sync::{Semaphore, mpsc, watch};

use super::assembly::{connect, fetch, load_stage, spec, unload, watch_prompts};
use super::driver::Driver;
use super::due::Due;
use super::placed::{FetchProgress, RingError, RingOptions, holders};
use super::sessions::{SESSION_QUEUE, dispatch};
use super::state::{Health, State};
use super::{Inner, Ring, lock, standby};
use crate::prefix_cache::PrefixCache;

/// Capacity for fault reports to the failover. One is enough to have every stage checked.
const REPORT_QUEUE: usize = 8;

/// Ends a ring's leases, unless it is loaded: its request may have been cancelled.
struct Coordinated<'a> {
    host: &'a StageHost,
    id: RingId,
    is_loaded: bool,
}

impl Drop for Coordinated<'_> {
    fn drop(&mut self) {
        if !self.is_loaded {
            self.host.retire(self.id);
        }
    }
}

impl Ring {
    /// Has every machine of a plan fetch its missing layers, all at the same time.
    pub async fn fetch(
        host: &StageHost,
        plan: &Plan,
        placements: &[Placement],
        source: &ModelSource,
        mut progress: impl FnMut(FetchProgress) + Send,
    ) -> Result<(), RingError> {
        fetch(host, plan, placements, source, &mut progress).await
    }

    /// Loads a model over `placements`, as the plan says; `progress` is given the number of layers loaded so far.
    pub async fn load(
        host: &StageHost,
        model: Model,
        plan: &Plan,
        placements: &[Placement],
        options: RingOptions,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<Self, RingError> {
        model.prepare().await?;
        let options = RingOptions { at_load: model.at_load(), ..options };
        let id = RingId(random_id());
        // The leases exist before the first stage is loaded, see `Request::RenewLeases`.
        let (frames, queue) = mpsc::channel(SESSION_QUEUE);
        host.coordinate(id, frames);
        let mut coordinated = Coordinated { host, id, is_loaded: false };
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
                    // Including the one that failed: its connection may have broken after it had loaded.
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
        let all_tokens = (plan.room_tokens as usize).min(MOST_TOKENS);
        let own_tokens = (plan.own_tokens as usize).min(MOST_TOKENS);
        let prefix_tokens = prefix_tokens(all_tokens, own_tokens, model.card().max_context);
        let room_tokens = all_tokens - prefix_tokens;
        let gpu = plan.stages.iter().all(|stage| placements[stage.machine].gpu);
        let (fault_reports, reported) = mpsc::channel(REPORT_QUEUE);
        watch_prompts(host, &prompts, 0, &fault_reports);
        let inner = Arc::new(Inner {
            id,
            host: host.clone(),
            plan: plan.clone(),
            stages: Mutex::new(stages),
            standbys: Mutex::default(),
            state: watch::channel(State { epoch: 0, health: Health::Whole }).0,
            failing_over: Arc::default(),
            checking: Arc::default(),
            heard: Mutex::new(Instant::now()),
            warm_epochs: AtomicU32::new(0),
            spot_check: Due::default(),
            spot_checking: Arc::default(),
            tainted_epochs: AtomicU32::new(0),
            fault_reports,
            model,
            options,
            prompts: tokio::sync::Mutex::new(prompts),
            sessions: Mutex::default(),
            answers: AtomicU64::new(u64::from(random_id() as u32)),
            opened: AtomicU64::default(),
            prefix_cache: Mutex::new(PrefixCache::new(prefix_tokens, own_tokens)),
            room: Arc::new(Semaphore::new(room_tokens + own_tokens)),
            room_tokens,
            own_tokens,
            prompt_chunk: planning::prompt_chunk(gpu, plan.stages.len()),
        });
        let ring = Self { inner };
        coordinated.is_loaded = true;
        let weak = Arc::downgrade(&ring.inner);
        host.membership().spawn(dispatch(queue, weak.clone()));
        host.membership().spawn(standby::run(weak, host.clone()));
        host.membership().spawn(Driver::new(&ring, reported).run());
        Ok(ring)
    }

    /// Frees the model everywhere.
    pub async fn unload(&self) {
        self.inner.abandon("the model was unloaded");
        self.inner.host.retire(self.inner.id);
        // A failover under way notices this, and has unloaded its stages when it releases the lock.
        drop(self.inner.failing_over.lock().await);
        self.unload_all().await;
    }

    pub(super) async fn unload_all(&self) {
        let stages = self.stages();
        let replicas = std::mem::take(&mut *lock(&self.inner.standbys));
        let replicas = replicas.iter().map(|standby| (standby.index, &standby.stage));
        // A standby replica that is still loading is unloaded at the next lease renewal.
        self.inner.host.lease_only(self.inner.id, std::iter::empty());
        unload(&self.inner.host, self.inner.id, holders(stages.iter().enumerate().chain(replicas))).await;
    }
}

/// More tokens than machines have room for, so that a semaphore can count one conversation's tokens and its fixed
/// memory.
const MOST_TOKENS: usize = 1 << 30;

/// How many tokens of conversations that wait for their next turn are retained, out of all for which there is room. A
/// long conversation must not be recomputed in every turn, but the longest answer has room first; where each
/// conversation
/// takes `own` beside its tokens, one of the planned length.
fn prefix_tokens(all: usize, own: usize, max_context: usize) -> usize {
    let planned = PLANNED_CONTEXT as usize;
    let most = if own == 0 { all / 2 } else { all.saturating_sub(planned) };
    most.min(max_context.max(planned) + own).min(all.saturating_sub(max_context).max(planned + own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answer_has_room_before_conversations_that_wait() {
        assert_eq!(prefix_tokens(200_000, 0, 32_768), 32_768, "a whole conversation of the model's context");
        assert_eq!(prefix_tokens(40_000, 0, 32_768), 40_000 - 32_768);
        assert_eq!(prefix_tokens(20_000, 0, 32_768), 4096);
        assert_eq!(prefix_tokens(6000, 0, 32_768), 3000);
        // A conversation that takes as much as 12,000 tokens before its first is kept if there is room for two.
        assert_eq!(prefix_tokens(20_000, 12_000, 32_768), 20_000 - 4096);
        assert_eq!(prefix_tokens(4096, 12_000, 32_768), 0);
        assert_eq!(prefix_tokens(200_000, 12_000, 32_768), 32_768 + 12_000);
        assert_eq!(prefix_tokens(100_000, 0, 2048), 4096);
    }
}
