//! Finds or loads the model for a request.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hive_peers::Placement;
use hive_plan::{Plan, Revision};
use hive_ring::{FetchProgress, Health, Ring, RingError, RingOptions};
use hive_stage::{aside, models};
use hive_types::LoadingView;
use hive_worker::text::Model;
use tokio::sync::MutexGuard as AsyncMutexGuard;

use super::{Loaded, Serving};
use crate::error::ServeError;
use crate::model_request::ModelRequest;

/// How long a request waits for a failover of its model.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// A placement of a model, before anything is loaded.
pub struct Layout {
    /// The model's name.
    pub model: String,
    /// The number of its layers.
    pub layers: usize,
    /// Which layers go to which machine.
    pub plan: Plan,
    /// The machines, in the order in which the plan numbers them.
    pub placements: Vec<Placement>,
}

impl Serving {
    /// The placement that this request would get now.
    pub async fn lay_out(&self, wanted: &ModelRequest) -> Result<Layout, ServeError> {
        let wanted = &wanted.usual();
        let model = self.host().open_model(wanted.model.as_deref()).await?;
        let (plan, placements) = self.place(&model, wanted, &self.unused_beside(wanted))?;
        Ok(Layout { model: model.name(), layers: model.card().layers(), plan, placements })
    }

    /// The model of this request; loads it if necessary.
    pub async fn model(&self, wanted: &ModelRequest) -> Result<Ring, ServeError> {
        let wanted = &wanted.usual();
        self.wait_for_restore(wanted).await;
        let known = self.ring_of(wanted);
        if let Some(ring) = &known
            && self.is_usable(ring, wanted).await?
        {
            return Ok(ring.clone());
        }
        let model = self.unless_stopping(self.host().open_model(wanted.model.as_deref())).await?;
        let _kept_until_loaded = aside(|| self.host().keep_parts(model.path()));
        let fetched = self.fetch(&model, wanted, known.as_ref()).await?;
        let placing = self.inner.placing.lock().await;
        // Another request may have loaded it meanwhile.
        let now = self.ring_of(wanted).filter(|now| !known.is_some_and(|known| known.is(now)));
        if let Some(ring) = now
            && self.unless_stopping(self.is_usable(&ring, wanted)).await?
        {
            return Ok(ring);
        }
        let unused = self.unused_beside(wanted);
        let planned = self.place(&model, wanted, &unused)?;
        let unused: Vec<Loaded> = self.loaded().extract_if(.., |loaded| loaded.makes_room_for(wanted)).collect();
        for Loaded { ring, .. } in unused {
            self.show(None);
            ring.unload().await;
        }
        if let Some((plan, placements)) = fetched {
            match self.load_beside(&placing, wanted, model.clone(), &plan, &placements).await {
                // The machines may not be what they were when the fetch began.
                Err(ServeError::Load(RingError::Stage { machine, why, .. })) => {
                    tracing::info!("{machine} could not load what was fetched, so the model is planned again: {why}");
                }
                loaded => return loaded,
            }
        }
        let (plan, placements) = planned;
        self.load_beside(&placing, wanted, model, &plan, &placements).await
    }

    /// Has the machines that would compute a model fetch what they lack of it; returns the plan if they lacked anything.
    /// Other models can be loaded meanwhile.
    async fn fetch(
        &self,
        model: &Model,
        wanted: &ModelRequest,
        known: Option<&Ring>,
    ) -> Result<Option<(Plan, Vec<Placement>)>, ServeError> {
        let one = {
            let mut fetches = self.inner.fetches.lock().unwrap_or_else(PoisonError::into_inner);
            fetches.retain(|_, one| Arc::strong_count(one) > 1);
            fetches.entry(model.card().digest.clone()).or_default().clone()
        };
        let _one_at_a_time = one.lock().await;
        // Whoever is loading a model holds memory that no plan knows of yet.
        drop(self.inner.placing.lock().await);
        if self.ring_of(wanted).is_some_and(|ring| !known.is_some_and(|known| known.is(&ring))) {
            return Ok(None);
        }
        let source = models::source(wanted.model.as_deref(), model);
        // Without a plan now, the one that is made before loading decides.
        let Ok((plan, placements)) = self.place(model, wanted, &self.unused_beside(wanted)) else { return Ok(None) };
        let (name, of) = (model.name(), model.card().layers());
        let shown = Shown(self);
        let mut has_fetched = false;
        let progress = |FetchProgress { done_bytes, of_bytes }| {
            has_fetched = true;
            let view = LoadingView { name: name.clone(), of, ..LoadingView::default() };
            self.show_loading(Some(LoadingView { fetched_bytes: done_bytes, fetching_bytes: of_bytes, ..view }));
            self.member().view().notify();
        };
        let fetching = Ring::fetch(self.host(), &plan, &placements, &source, progress);
        self.unless_stopping(fetching).await?;
        drop(shown);
        Ok(has_fetched.then_some((plan, placements)))
    }

    /// Runs one step of placing a model, unless the node stops first.
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

    /// Whether a loaded model can serve this request as it is. Waits for a failover in progress.
    async fn is_usable(&self, ring: &Ring, wanted: &ModelRequest) -> Result<bool, ServeError> {
        // A model in use moves only by live migration (`moving.rs`).
        Ok(self.wait_until_settled(ring).await && (ring.is_busy() || self.revision(ring, wanted)? == Revision::Keep))
    }

    /// Loads a model without freeing any other. The caller holds the placing lock.
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
            self.show_loading(Some(LoadingView { name: name.clone(), layers, of, ..LoadingView::default() }));
            self.member().view().notify();
        };
        progress(0);
        // Clears the progress even if this future is dropped.
        let shown = Shown(self);
        let parts = aside(|| self.host().keep_parts(model.path()));
        let load = Box::pin(Ring::load(self.host(), model, plan, placements, RingOptions::new(source), progress));
        let ring = self.unless_stopping(load).await?;
        let loaded = Loaded { wanted: wanted.clone(), ring: ring.clone(), used: Instant::now(), _parts: parts };
        self.loaded().push(loaded);
        self.show(Some(ring.clone()));
        drop(shown);
        Ok(ring)
    }

    /// Waits for a failover in progress and returns whether the model can be used.
    async fn wait_until_settled(&self, ring: &Ring) -> bool {
        let mut state = ring.state();
        let settled = tokio::time::timeout(FAILOVER_TIMEOUT, async {
            loop {
                match &state.borrow_and_update().health {
                    Health::Whole if !ring.has_lost_a_machine() => return true,
                    Health::Abandoned(_) | Health::Superseded => return false,
                    // A failover is in progress, or is about to start.
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

/// Shows a model as loading until this is dropped.
struct Shown<'a>(&'a Serving);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.show_loading(None);
        self.0.host().placements().notify();
        self.0.member().view().notify();
    }
}
