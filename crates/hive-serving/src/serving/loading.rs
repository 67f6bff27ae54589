//! Finds or loads the model for a request.

use std::ops::Range;
use std::time::{Duration, Instant};

use hive_net::PeerId;
use hive_peers::Placement;
use hive_plan::{Plan, Revision};
use hive_ring::{FetchProgress, Health, Ring, RingOptions};
use hive_stage::{aside, models};
use hive_types::LoadingView;
use hive_worker::text::Model;
use tokio::sync::MutexGuard as AsyncMutexGuard;

use super::fetches::Fetch;
use super::{Loaded, Serving};
use crate::error::ServeError;
use crate::model_request::ModelRequest;

/// How often a model is planned again because machines came or left while they fetched.
const ATTEMPTS: usize = 3;
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

/// A plan whose machines have fetched their missing layers.
struct Fetched {
    plan: Plan,
    placements: Vec<Placement>,
    /// Whether they lacked anything.
    anything: bool,
}

impl Fetched {
    /// Whether it gives the same layers to the same machines.
    fn is_for(&self, (plan, placements): &(Plan, Vec<Placement>)) -> bool {
        fn stages<'a>(plan: &'a Plan, placements: &'a [Placement]) -> impl Iterator<Item = (PeerId, &'a Range<usize>)> {
            plan.stages.iter().map(|stage| (placements[stage.machine].addr.id(), &stage.layers))
        }
        stages(&self.plan, &self.placements).eq(stages(plan, placements))
    }
}

impl Serving {
    /// The placement that this request would get now.
    pub async fn lay_out(&self, wanted: &ModelRequest) -> Result<Layout, ServeError> {
        let wanted = &self.usual(wanted);
        let model = self.host().open_model(wanted.model.as_deref()).await?;
        let (plan, placements) = self.place(&model, wanted, &self.unused_beside(wanted))?;
        Ok(Layout { model: model.name(), layers: model.card().layers(), plan, placements })
    }

    /// The model of a request under its canonical name; loads it if necessary.
    pub(super) async fn model_of(&self, wanted: &ModelRequest) -> Result<Ring, ServeError> {
        self.wait_for_restore(wanted).await;
        let known = self.ring_of(wanted);
        if let Some(ring) = &known
            && self.is_usable(ring, wanted).await?
        {
            return Ok(ring.clone());
        }
        let model = self.unless_stopping(self.host().open_model(wanted.model.as_deref())).await?;
        let _kept_until_loaded = aside(|| self.host().keep_parts(model.path()));
        let mut attempt = 1;
        loop {
            let fetched = self.fetch(&model, wanted, known.as_ref()).await?;
            let placing = self.inner.placing.lock().await;
            // Another request may have loaded it meanwhile.
            let now = self.ring_of(wanted).filter(|now| !known.as_ref().is_some_and(|known| known.is(now)));
            if let Some(ring) = now
                && self.unless_stopping(self.is_usable(&ring, wanted)).await?
            {
                return Ok(ring);
            }
            let planned = self.place(&model, wanted, &self.unused_beside(wanted))?;
            let (plan, placements) = match fetched {
                // The machines may have changed since the fetch began. Loading finds out.
                Some(fetched) if fetched.anything => (fetched.plan, fetched.placements),
                Some(fetched) if fetched.is_for(&planned) => planned,
                // New machines fetch their missing layers first, while other models can be loaded.
                _ if attempt < ATTEMPTS => {
                    attempt += 1;
                    continue;
                }
                _ => planned,
            };
            let unused: Vec<Loaded> = {
                let makes_room = self.makes_room(wanted);
                self.loaded().extract_if(.., |loaded| makes_room(loaded)).collect()
            };
            for Loaded { ring, .. } in unused {
                self.show(None);
                ring.unload().await;
            }
            return self.load_beside(&placing, wanted, model, &plan, &placements).await;
        }
    }

    /// Has the machines of a model's plan fetch their missing layers. Other models can be loaded meanwhile. Returns
    /// `None` if there is no plan.
    async fn fetch(
        &self,
        model: &Model,
        wanted: &ModelRequest,
        known: Option<&Ring>,
    ) -> Result<Option<Fetched>, ServeError> {
        let name = model.name();
        let names = [Some(name.as_str()), wanted.model.as_deref()];
        let fetch = self.inner.fetches.join(&model.card().digest, names.into_iter().flatten());
        let paused = || ServeError::Paused(name.clone());
        tokio::select! {
            biased;
            () = fetch.paused.cancelled() => Err(paused()),
            fetched = self.fetch_once(&fetch, model, wanted, known) => fetched,
        }
    }

    async fn fetch_once(
        &self,
        fetch: &Fetch,
        model: &Model,
        wanted: &ModelRequest,
        known: Option<&Ring>,
    ) -> Result<Option<Fetched>, ServeError> {
        let _fetch_lock = fetch.lock.lock().await;
        // A model that is being loaded holds memory that no plan accounts for yet.
        drop(self.inner.placing.lock().await);
        if self.ring_of(wanted).is_some_and(|ring| !known.is_some_and(|known| known.is(&ring))) {
            return Ok(None);
        }
        let source = models::source(wanted.model.as_deref(), model);
        // Without a plan now, the plan made before loading decides.
        let Ok((plan, placements)) = self.place(model, wanted, &self.unused_beside(wanted)) else { return Ok(None) };
        let (name, of) = (model.name(), model.card().layers());
        let shown = Shown::begin(self);
        let mut has_fetched = false;
        let progress = |FetchProgress { done_bytes, of_bytes }| {
            has_fetched = true;
            let view = LoadingView { name: name.clone(), of, ..LoadingView::default() };
            shown.show(LoadingView { fetched_bytes: done_bytes, fetching_bytes: of_bytes, ..view });
        };
        let fetching = Ring::fetch(self.host(), &plan, &placements, &source, progress);
        self.unless_stopping(fetching).await?;
        self.hold_pinned();
        Ok(Some(Fetched { plan, placements, anything: has_fetched }))
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
        let shown = Shown::begin(self);
        let progress = |layers| shown.show(LoadingView { name: name.clone(), layers, of, ..LoadingView::default() });
        progress(0);
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

/// Shows a fetch or a load until this is dropped.
struct Shown<'a> {
    serving: &'a Serving,
    number: u64,
}

impl<'a> Shown<'a> {
    fn begin(serving: &'a Serving) -> Self {
        Self { serving, number: serving.inner.loads.begin() }
    }

    fn show(&self, view: LoadingView) {
        self.serving.inner.loads.show(self.number, view);
        self.serving.member().view().notify();
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.serving.inner.loads.end(self.number);
        self.serving.host().placements().notify();
        self.serving.member().view().notify();
    }
}
