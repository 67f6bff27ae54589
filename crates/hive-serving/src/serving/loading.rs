//! From a request to a loaded model.

use std::time::Duration;

use hive_peers::Placement;
use hive_plan::{Plan, Revision};
use hive_ring::{Health, Ring, RingOptions};
use hive_stage::models;
use hive_types::LoadingView;
use hive_worker::text::Model;
use tokio::sync::MutexGuard as AsyncMutexGuard;

use super::{Loaded, Serving};
use crate::error::ServeError;
use crate::model_request::ModelRequest;

/// How long a question waits for a failover of its model.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// A way to place a model, before anything is loaded.
pub struct Layout {
    /// The model's name.
    pub model: String,
    /// The model's layers.
    pub layers: usize,
    /// Where they go.
    pub plan: Plan,
    /// The machines that the plan numbers.
    pub placements: Vec<Placement>,
}

impl Serving {
    /// How a request would be met now.
    pub async fn lay_out(&self, wanted: &ModelRequest) -> Result<Layout, ServeError> {
        let wanted = &wanted.usual();
        let model = self.host().catalogue().open_model(wanted.model.as_deref()).await?;
        let (plan, placements) = self.place(&model, wanted, &self.unused_beside(wanted))?;
        Ok(Layout { model: model.name(), layers: model.card().layers(), plan, placements })
    }

    /// The model that was wished for, loaded if it is not.
    pub async fn model(&self, wanted: &ModelRequest) -> Result<Ring, ServeError> {
        let wanted = &wanted.usual();
        self.restored(wanted).await;
        let known = self.ring_of(wanted);
        if let Some(ring) = &known
            && self.is_of_use(ring, wanted).await?
        {
            return Ok(ring.clone());
        }
        let placing = self.inner.placing.lock().await;
        // Somebody else may have had it loaded meanwhile.
        let now = self.ring_of(wanted).filter(|now| !known.is_some_and(|known| known.is(now)));
        if let Some(ring) = now
            && self.unless_stopping(self.is_of_use(&ring, wanted)).await?
        {
            return Ok(ring);
        }
        let model = self.unless_stopping(self.host().catalogue().open_model(wanted.model.as_deref())).await?;
        let unused = self.unused_beside(wanted);
        let (plan, placements) = self.place(&model, wanted, &unused)?;
        let unused: Vec<Loaded> = self.loaded().extract_if(.., |loaded| loaded.makes_room_for(wanted)).collect();
        for Loaded { ring, .. } in unused {
            self.show(None);
            ring.unload().await;
        }
        self.load_beside(&placing, wanted, model, &plan, &placements).await
    }

    /// Does a part of the work of placing a model, which a node that stops does not wait for.
    async fn unless_stopping<T, E: Into<ServeError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ServeError> {
        tokio::select! {
            biased;
            () = self.member().stopping() => Err(ServeError::Stopping),
            done = work => done.map_err(Into::into),
        }
    }

    /// Whether a loaded model can be used as it is, once a failover has ended.
    async fn is_of_use(&self, ring: &Ring, wanted: &ModelRequest) -> Result<bool, ServeError> {
        // One that is in use moves only beside itself (`moving.rs`).
        Ok(self.settles(ring).await && (ring.is_busy() || self.revision(ring, wanted)? == Revision::Keep))
    }

    /// Loads a model beside what is loaded, while nothing else is placed.
    pub(super) async fn load_beside(
        &self,
        _placing: &AsyncMutexGuard<'_, ()>,
        wanted: &ModelRequest,
        model: Model,
        plan: &Plan,
        placements: &[Placement],
    ) -> Result<Ring, ServeError> {
        let source = models::source(wanted.model.as_deref(), &model);
        let (name, of) = (model.name(), model.card().layers());
        let progress = |layers| {
            self.show_loading(Some(LoadingView { name: name.clone(), layers, of }));
            self.member().view().notify();
        };
        progress(0);
        // Also where nobody waits for it any more.
        let shown = Shown(self);
        let load = Box::pin(Ring::load(self.host(), model, plan, placements, RingOptions::new(source), progress));
        let ring = self.unless_stopping(load).await?;
        self.loaded().push(Loaded { wanted: wanted.clone(), ring: ring.clone() });
        self.show(Some(ring.clone()));
        drop(shown);
        Ok(ring)
    }

    /// Whether a loaded model can be used, once a failover has ended.
    async fn settles(&self, ring: &Ring) -> bool {
        let mut state = ring.state();
        let settled = tokio::time::timeout(FAILOVER_TIMEOUT, async {
            loop {
                match &state.borrow_and_update().health {
                    Health::Whole if !ring.has_lost_a_machine() => return true,
                    Health::Abandoned(_) | Health::Superseded => return false,
                    // Noticed, or just about to be.
                    Health::Whole | Health::FailingOver(_) => {}
                }
                if state.changed().await.is_err() {
                    return false;
                }
            }
        });
        settled.await.unwrap_or(false)
    }
}

/// A model is shown as one that is being loaded until this is dropped.
struct Shown<'a>(&'a Serving);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.show_loading(None);
        self.0.host().placements().notify();
        self.0.member().view().notify();
    }
}
