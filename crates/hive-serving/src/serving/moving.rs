//! Live migration: moves a model in use to a better plan, between two tokens.
//!
//! When a machine joins or a link improves, the model is loaded a second time, by the new plan. The old ring is
//! superseded: its answers switch to the new ring at their next token, and it is freed when the last one has left.

use std::time::Duration;

use hive_peers::Placement;
use hive_plan::Revision;
use hive_ring::{Ring, RingOptions};
use hive_stage::models;

use super::{Loaded, Serving};
use crate::model_request::ModelRequest;

/// Pause between two checks for better plans.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Number of consecutive checks in which a plan must be better.
const STEADY: usize = 2;
/// Pause after a failed migration.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How long the old ring is kept for its answers, which leave it at their next token.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause between two checks whether they have left.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

/// Adds to each model that has a better plan now the number of consecutive checks in which it had one.
fn counted<T>(before: &[(T, usize)], now: Vec<T>, is_same: impl Fn(&T, &T) -> bool) -> Vec<(T, usize)> {
    let looks = |model: &T| before.iter().find(|(known, _)| is_same(known, model)).map_or(0, |(_, looks)| *looks);
    now.into_iter().map(|model| (looks(&model) + 1, model)).map(|(looks, model)| (model, looks)).collect()
}

impl Serving {
    /// Checks for better plans until the node stops.
    pub async fn move_to_better_plans(&self) {
        let mut better: Vec<((ModelRequest, Ring), usize)> = Vec::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.member().stopping() => return,
            }
            let mut now = self.in_use();
            now.retain(|(wanted, ring)| matches!(self.revision(ring, wanted), Ok(Revision::Move)));
            better = counted(&better, now, |(_, known), (_, ring)| known.is(ring));
            // One at a time: each migration changes what is best for the others.
            let steady = better.iter().position(|(_, looks)| *looks >= STEADY);
            if let Some(((wanted, ring), _)) = steady.map(|place| better.swap_remove(place)) {
                better.clear();
                match self.move_beside(&wanted, &ring).await {
                    Ok(()) => tracing::info!("a model moved to a better plan, with its answers"),
                    Err(why) => {
                        tracing::info!("a model stays where it is: {why}");
                        tokio::select! {
                            () = tokio::time::sleep(AFTER_FAILURE) => {}
                            () = self.member().stopping() => return,
                        }
                    }
                }
            }
        }
    }

    /// The models that are answering and whose placement is up to the plan.
    fn in_use(&self) -> Vec<(ModelRequest, Ring)> {
        // While a model is being loaded, none is migrated.
        let Ok(_placing) = self.inner.placing.try_lock() else { return Vec::new() };
        let movable =
            |loaded: &&Loaded| loaded.wanted.stages.is_none() && loaded.ring.is_busy() && loaded.ring.is_whole();
        let loaded = self.loaded();
        loaded.iter().filter(movable).map(|loaded| (loaded.wanted.clone(), loaded.ring.clone())).collect()
    }

    async fn move_beside(&self, wanted: &ModelRequest, ring: &Ring) -> Result<(), String> {
        let model = self.host().open_model(wanted.model.as_deref()).await.map_err(|error| error.to_string())?;
        let (plan, placements) = self.place(&model, wanted, &[]).map_err(|error| error.to_string())?;
        let source = models::source(wanted.model.as_deref(), &model);
        let lacks = |placement: &&Placement| !self.member().has_copy(placement.addr.id(), &source);
        if let Some(machine) = plan.stages.iter().map(|stage| &placements[stage.machine]).find(lacks) {
            return Err(format!("{} would have to fetch its layers first", machine.name));
        }
        let loaded = Ring::load(self.host(), model, &plan, &placements, RingOptions::new(source), |_| ()).await;
        let successor = loaded.map_err(|error| error.to_string())?;
        let is_still_there = {
            let mut loaded = self.loaded();
            let place = loaded.iter_mut().find(|loaded| loaded.wanted == *wanted && loaded.ring.is(ring));
            place.map(|place| place.ring = successor.clone()).is_some()
        };
        if !is_still_there {
            successor.unload().await;
            return Err("it was unloaded meanwhile".to_owned());
        }
        self.show(Some(successor));
        self.host().placements().notify();
        self.member().view().notify();
        ring.supersede();
        let old = ring.clone();
        self.member().spawn(async move {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, async {
                while old.is_busy() {
                    tokio::time::sleep(DRAIN_PAUSE).await;
                }
            })
            .await;
            old.unload().await;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_for_each_model_by_itself_and_anew_after_a_look_without_it() {
        let mut looks = Vec::new();
        for (now, counts) in [
            (vec!["large"], vec![("large", 1)]),
            (vec!["small", "large"], vec![("small", 1), ("large", 2)]),
            (vec!["small"], vec![("small", 2)]),
            (vec!["large", "small"], vec![("large", 1), ("small", 3)]),
        ] {
            looks = counted(&looks, now, |known, model| known == model);
            assert_eq!(looks, counts);
        }
    }
}
