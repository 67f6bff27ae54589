//! Standby replicas: stages that are loaded a second time on other machines, in memory that nobody else needs.
//!
//! A standby replica has the stage's layers and no sessions. When the stage is lost, it takes over without loading, and
//! what it is missing is replayed as to any new stage. Standby replicas are loaded while the ring is idle, and they
//! yield: their machine drops them for anything that needs the memory.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use hive_net::PeerId;
use hive_plan::Spare;

use hive_protocol::{Pulse, Request, StageSpec, logged};
use hive_stage::StageHost;

use super::assembly::{load_stage, spec};
use super::checkup::{Checked, check};
use super::placed::{PlacedStage, Standby, has_left};
use super::state::Health;
use super::{Inner, Ring, lock};

/// Interval between two checks for missing standby replicas.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Checks to skip while answers run. After that, standby replicas are loaded even though answers run.
const POLITE_ROUNDS: u32 = 5;

/// How soon a machine that could not load a standby replica is asked again. By then its memory may have been freed.
const ASK_AGAIN: Duration = Duration::from_mins(2);

/// A standby replica that is recomputing rows for a spot check is ready, unless they take longer than this.
const BUSY_AT_MOST: Duration = Duration::from_secs(10);

/// Whether a standby replica with this pulse can take over.
fn is_ready(pulse: &Pulse) -> bool {
    pulse.passed || (pulse.owed_rows > 0 && u128::from(pulse.quiet_ms) < BUSY_AT_MOST.as_millis())
}

/// Maintains the standby replicas for as long as the ring is loaded.
pub(super) async fn run(ring: Weak<Inner>, host: StageHost) {
    let mut refused = HashMap::new();
    let mut busy_rounds = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK_EVERY) => {}
            () = host.membership().stopping() => return,
        }
        let Some(inner) = ring.upgrade() else { return };
        let ring = Ring { inner };
        let health = ring.inner.state.borrow().health.clone();
        match health {
            Health::Whole => {}
            Health::FailingOver(_) => continue,
            Health::Abandoned(_) | Health::Superseded => return,
        }
        ring.drop_unusable().await;
        busy_rounds = if ring.is_busy() { busy_rounds + 1 } else { POLITE_ROUNDS };
        if busy_rounds >= POLITE_ROUNDS {
            ring.add_missing(&mut refused).await;
        }
    }
}

impl Ring {
    /// Drops standby replicas whose machine has left, has unloaded them, or has taken over the stage itself.
    async fn drop_unusable(&self) {
        for standby in self.standbys() {
            let id = standby.stage.placement.addr.id();
            let holds_it = self.stages()[standby.index].placement.addr.id() == id;
            if holds_it || !self.can_take_over(&standby).await {
                lock(&self.inner.standbys).retain(|other| other.index != standby.index);
                self.renew_lease();
                if !holds_it {
                    self.unload_standby(&standby);
                }
            }
        }
    }

    /// Unloads the standby replica of a stage whose machine must not take over.
    pub(super) fn dismiss_standby_of(&self, index: usize) {
        let mut standbys = lock(&self.inner.standbys);
        let Some(at) = standbys.iter().position(|standby| standby.index == index) else { return };
        let standby = standbys.swap_remove(at);
        drop(standbys);
        self.renew_lease();
        self.unload_standby(&standby);
    }

    async fn can_take_over(&self, standby: &Standby) -> bool {
        let (host, stage) = (&self.inner.host, &standby.stage);
        let id = stage.placement.addr.id();
        if has_left(host, stage)
            || host.membership().is_leaving(id)
            || host.membership().is_over_cap(id)
            || !host.membership().may_see_prompts(id)
        {
            return false;
        }
        let request = Request::Check(self.inner.stage_id(standby.index));
        matches!(check(host, stage, request).await, Checked::Pulse(pulse) if is_ready(&pulse))
    }

    fn unload_standby(&self, standby: &Standby) {
        let (host, addr) = (self.inner.host.clone(), standby.stage.placement.addr.clone());
        let request = Request::Unload(self.inner.stage_id(standby.index));
        self.inner.host.membership().spawn(async move { drop(host.ask(&addr, request, |_| ()).await) });
    }

    /// Has machines with room load standby replicas of the stages that have none.
    async fn add_missing(&self, refused: &mut HashMap<(usize, PeerId), Instant>) {
        refused.retain(|_, at| at.elapsed() < ASK_AGAIN);
        let Inner { id, host, plan, options, .. } = &*self.inner;
        let mut machines = host.membership().machines(&options.source);
        // Nobody downloads a model to stand by.
        machines.retain(|(placement, _)| host.membership().has_copy(placement.addr.id(), &options.source));
        let (epoch, stages, standbys) = (self.inner.state.borrow().epoch, self.stages(), self.standbys());
        // A machine that is not listed, such as another node of this process, holds no standby replicas and needs none.
        let place = |peer: PeerId| machines.iter().position(|(placement, _)| placement.addr.id() == peer);
        let missing: Vec<_> = (0..stages.len())
            .filter(|index| standbys.iter().all(|standby| standby.index != *index))
            // If this machine is lost, so are its answers.
            .filter(|index| stages[*index].placement.addr.id() != host.membership().id())
            .filter_map(|index| Some((index, place(stages[index].placement.addr.id())?)))
            .collect();
        let wanted: Vec<_> = missing.iter().map(|(index, holder)| (plan.stages[*index].bytes(), *holder)).collect();
        let spare: Vec<_> = machines
            .iter()
            .map(|(placement, profile)| Spare {
                memory_bytes: profile.memory_bytes,
                bytes_per_s: profile.bytes_per_s,
                holds_one: stages.iter().any(|stage| stage.placement.addr.id() == placement.addr.id()),
            })
            .collect();
        for (chosen, (index, _)) in hive_plan::standby(&wanted, &spare).into_iter().zip(missing) {
            let Some((placement, _)) = chosen.map(|machine| &machines[machine]) else { continue };
            let machine = placement.addr.id();
            if refused.contains_key(&(index, machine)) {
                continue;
            }
            let stage_id = self.inner.stage_id(index);
            let spec = StageSpec { standby: true, ..spec(&plan.stages[index], options) };
            match load_stage(host, stage_id, placement, spec, |_| ()).await {
                Ok(stage) if self.inner.state.borrow().epoch == epoch && !self.is_abandoned() => {
                    tracing::info!(
                        ring = logged(id.0),
                        "{} holds a standby replica of layers {:?}",
                        placement.name,
                        stage.layers
                    );
                    lock(&self.inner.standbys).push(Standby { index, stage });
                    host.membership().view().notify();
                }
                // The ring failed over meanwhile; the next check handles it.
                Ok(stage) => {
                    let holds_it = self.stages()[index].placement.addr.id() == machine;
                    if self.is_abandoned() || !holds_it {
                        self.unload_standby(&Standby { index, stage });
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!("no standby replica: {error}");
                    refused.insert((index, machine), Instant::now());
                }
            }
            self.renew_lease();
        }
    }

    /// Takes the standby replica of a lost stage out of the list, if there is one that can compute.
    pub(super) async fn take_standby(&self, index: usize) -> Option<PlacedStage> {
        let standby = {
            let mut standbys = lock(&self.inner.standbys);
            let at = standbys.iter().position(|standby| standby.index == index)?;
            standbys.swap_remove(at)
        };
        if self.can_take_over(&standby).await {
            return Some(standby.stage);
        }
        self.unload_standby(&standby);
        None
    }

    /// Records the current holders of the stages and their standby replicas. All others unload them.
    pub(super) fn renew_lease(&self) {
        let place = |(index, stage): (usize, &PlacedStage)| (index as u32, stage.placement.addr.id());
        let stages = self.stages();
        let standbys = self.standbys();
        let replicas = standbys.iter().map(|standby| place((standby.index, &standby.stage)));
        self.inner.host.lease_only(self.inner.id, stages.iter().enumerate().map(place).chain(replicas));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_replica_that_hangs_does_not_take_over_and_one_that_computes_does() {
        let pulse = |passed, owed_rows, quiet_ms| Pulse { passed, owed_rows, quiet_ms, ..Pulse::default() };
        assert!(is_ready(&pulse(true, 0, 0)));
        assert!(is_ready(&pulse(false, 128, 2000)), "it recomputes rows");
        assert!(!is_ready(&pulse(false, 128, 20_000)));
        assert!(!is_ready(&pulse(false, 0, 1500)), "it is idle and does not answer");
    }
}
