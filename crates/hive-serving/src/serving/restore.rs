//! After a kill, restores the models that were in memory, on the machines that held them.
//!
//! The machines get some time to appear. If they do not, or the old placement is no longer possible, the model is
//! placed by a new plan. What people ask for meanwhile has priority.

use std::time::Duration;

use hive_stage::models;

use super::Serving;
use crate::error::ServeError;
use crate::model_request::ModelRequest;
use crate::placed::PlacedModel;

/// How long to wait for a model's machines. They find each other within a second or two, but one that restarts takes
/// longer.
const MACHINES_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a question for a model that is being restored waits before the model is placed on the machines present.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(3);

impl Serving {
    /// Restores all models, one after the other.
    pub async fn restore(&self) {
        let waiting: Vec<PlacedModel> = self.inner.restoring.borrow().clone();
        for placed in &waiting {
            let name = placed.wanted.model.clone().unwrap_or_else(|| models::starter_name().to_owned());
            tokio::select! {
                _ = tokio::time::timeout(MACHINES_TIMEOUT, self.all_come(placed)) => {}
                () = self.member().stopping() => return,
            }
            match self.put_back(placed, &waiting).await {
                Ok(true) => tracing::info!("{name} is in memory again"),
                Ok(false) => tracing::info!("{name} is not restored: another model was requested"),
                Err(why) => tracing::warn!("{name}, which was in memory, is not restored: {why}"),
            }
            self.inner.restoring.send_modify(|waiting| waiting.retain(|other| other != placed));
            self.host().placements().notify();
        }
    }

    /// Waits for a model that is being restored, so that a question does not place it elsewhere.
    pub(super) async fn wait_for_restore(&self, wanted: &ModelRequest) {
        let mut restoring = self.inner.restoring.subscribe();
        let settled = restoring.wait_for(|waiting| waiting.iter().all(|placed| placed.wanted != *wanted));
        let _ = tokio::time::timeout(RESTORE_TIMEOUT, settled).await;
    }

    /// Resolves when all of a model's machines are present and share.
    async fn all_come(&self, placed: &PlacedModel) {
        let mut changes = self.member().peers().changes();
        while !placed.stages.iter().all(|stage| self.member().is_candidate(stage.machine)) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Restores a model and returns whether it is in memory now. It may join other restored models, but gives way to
    /// any model that was asked for since.
    async fn put_back(&self, placed: &PlacedModel, all: &[PlacedModel]) -> Result<bool, ServeError> {
        let wanted = &placed.wanted;
        let placing = self.inner.placing.lock().await;
        let in_memory: Vec<ModelRequest> = self.loaded().iter().map(|loaded| loaded.wanted.clone()).collect();
        if in_memory.contains(wanted) {
            return Ok(true);
        }
        if in_memory.iter().any(|wanted| all.iter().all(|placed| placed.wanted != *wanted)) {
            return Ok(false);
        }
        // Off the list while it loads, so that a model that crashes this process is not loaded again and again.
        let mut without = self.placements();
        without.in_memory.retain(|other| other != placed);
        self.write_placements(without);
        let model = self.host().catalogue().open_model(wanted.model.as_deref()).await?;
        let (plan, placements) = match self.as_written(&model, wanted, &placed.stages, &[]) {
            Ok(again) => again,
            Err(why) => {
                tracing::warn!("a model cannot be put back where it was, and is placed by the plan: {why}");
                self.place(&model, wanted, &[])?
            }
        };
        self.load_beside(&placing, wanted, model, &plan, &placements).await?;
        Ok(true)
    }
}
