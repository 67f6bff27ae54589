//! Second copies of stages, ready on other machines, in memory that nobody else needs.
//!
//! A copy has the stage's layers loaded and no conversations; when the stage is lost, it takes its place without loading
//! (`mend.rs`) and catches up as any replacement does. Copies come when the ring is quiet, and yield: their machine drops
//! them for anything that needs the memory.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use hive_net::PeerId;
use hive_plan::Spare;

use hive_protocol::{Pulse, Question, StageSpec, logged};
use hive_stage::StageHost;

use super::assembly::{load_stage, spec};
use super::checkup::{Checked, check};
use super::placed::{PlacedStage, Standby, has_left};
use super::state::Health;
use super::{Inner, Ring};

/// Between two looks at what is missing.
const LOOK: Duration = Duration::from_secs(2);

/// Rounds that answers under way are left alone before copies are loaded beside them.
const POLITE_ROUNDS: u32 = 5;

/// How soon a machine that could not take a copy is asked again.
const ASK_AGAIN: Duration = Duration::from_mins(2);

/// A copy that computes something once more is as good as one that waits, unless it has been at it for this long.
const BUSY_AT_MOST: Duration = Duration::from_secs(10);

/// Whether a copy that shows these signs of life can take over.
fn is_ready(pulse: &Pulse) -> bool {
    pulse.passed || (pulse.owed_rows > 0 && u128::from(pulse.quiet_ms) < BUSY_AT_MOST.as_millis())
}

/// Keeps copies for as long as the ring is loaded.
pub(super) async fn keep(ring: Weak<Inner>, host: StageHost) {
    let mut refused = HashMap::new();
    let mut busy_rounds = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = host.membership().stopping() => return,
        }
        let Some(inner) = ring.upgrade() else { return };
        let ring = Ring { inner };
        let health = ring.inner.state.borrow().health.clone();
        match health {
            Health::Whole => {}
            Health::Mending(_) => continue,
            Health::Lost(_) | Health::Superseded => return,
        }
        ring.drop_unusable().await;
        busy_rounds = if ring.is_busy() { busy_rounds + 1 } else { POLITE_ROUNDS };
        if busy_rounds >= POLITE_ROUNDS {
            ring.add_missing(&mut refused).await;
        }
    }
}

impl Ring {
    /// Forgets copies whose machine has left, has dropped them, or holds the stage itself by now.
    async fn drop_unusable(&self) {
        for standby in self.standbys() {
            let id = standby.stage.placement.addr.id();
            let holds_it = self.stages()[standby.index].placement.addr.id() == id;
            if holds_it || !self.can_take_over(&standby).await {
                super::lock(&self.inner.standbys).retain(|other| other.index != standby.index);
                self.want_current();
                if !holds_it {
                    self.dismiss(&standby);
                }
            }
        }
    }

    /// Frees the copy of a stage, whose machine is not to take over.
    pub(super) fn forget_copy(&self, index: usize) {
        let mut standbys = super::lock(&self.inner.standbys);
        let Some(at) = standbys.iter().position(|standby| standby.index == index) else { return };
        let standby = standbys.swap_remove(at);
        drop(standbys);
        self.want_current();
        self.dismiss(&standby);
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
        let question = Question::Check(self.inner.stage_id(standby.index));
        matches!(check(host, stage, question).await, Checked::Pulse(pulse) if is_ready(&pulse))
    }

    fn dismiss(&self, standby: &Standby) {
        let (host, addr) = (self.inner.host.clone(), standby.stage.placement.addr.clone());
        let question = Question::Unload(self.inner.stage_id(standby.index));
        self.inner.host.membership().spawn(async move { drop(host.ask(&addr, question, |_| ()).await) });
    }

    /// Has machines with room load what has no copy yet.
    async fn add_missing(&self, refused: &mut HashMap<(usize, PeerId), Instant>) {
        refused.retain(|_, at| at.elapsed() < ASK_AGAIN);
        let Inner { id, host, plan, options, .. } = &*self.inner;
        let machines = host.membership().machines(&options.source);
        let (epoch, stages, standbys) = (self.inner.state.borrow().epoch, self.stages(), self.standbys());
        // A machine that is not in the list, as those of one process are not, keeps no copies and needs none.
        let place = |peer: PeerId| machines.iter().position(|(placement, _)| placement.addr.id() == peer);
        let missing: Vec<_> = (0..stages.len())
            .filter(|index| standbys.iter().all(|standby| standby.index != *index))
            // When this machine is gone, its answers are, too.
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
                Ok(stage) if self.inner.state.borrow().epoch == epoch && !self.is_lost() => {
                    tracing::info!(ring = logged(id.0), "{} keeps a copy of layers {:?}", placement.name, stage.layers);
                    super::lock(&self.inner.standbys).push(Standby { index, stage });
                    host.membership().view().notify();
                }
                // The stages have moved meanwhile; the next look sees to it.
                Ok(stage) => {
                    let held = self.stages()[index].placement.addr.id() == machine;
                    if self.is_lost() || !held {
                        self.dismiss(&Standby { index, stage });
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!("no copy: {error}");
                    refused.insert((index, machine), Instant::now());
                }
            }
            self.want_current();
        }
    }

    /// Takes the copy of a stage that is lost, if there is one that can compute.
    pub(super) async fn take_standby(&self, index: usize) -> Option<PlacedStage> {
        let standby = {
            let mut standbys = super::lock(&self.inner.standbys);
            let at = standbys.iter().position(|standby| standby.index == index)?;
            standbys.swap_remove(at)
        };
        if self.can_take_over(&standby).await {
            return Some(standby.stage);
        }
        self.dismiss(&standby);
        None
    }

    /// Says who holds the stages and their copies now; nobody else is to.
    pub(super) fn want_current(&self) {
        let place = |(index, stage): (usize, &PlacedStage)| (index as u32, stage.placement.addr.id());
        let stages = self.stages();
        let standbys = self.standbys();
        let copies = standbys.iter().map(|standby| place((standby.index, &standby.stage)));
        self.inner.host.want_only(self.inner.id, stages.iter().enumerate().map(place).chain(copies));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_hangs_does_not_take_over_and_one_that_computes_does() {
        let pulse = |passed, owed_rows, quiet_ms| Pulse { passed, owed_rows, quiet_ms, ..Pulse::default() };
        assert!(is_ready(&pulse(true, 0, 0)));
        assert!(is_ready(&pulse(false, 128, 2000)), "it computes something once more");
        assert!(!is_ready(&pulse(false, 128, 20_000)));
        assert!(!is_ready(&pulse(false, 0, 1500)), "it has nothing to do and does not answer");
    }
}
