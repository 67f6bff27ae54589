//! The models that a node has in memory for its own people and programs, each loaded when it is first asked for.
//!
//! One that nobody uses makes room for the next; one that is in use stays beside it. A model whose machine has left is
//! loaded anew on those that are there. Where they are is kept on disk (`placements.rs`).

mod by_hand;
pub(crate) mod moving;
mod place;
pub(crate) mod placements;
pub(crate) mod restore;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hive_plan::{Plan, PlanError, Revision};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify, watch};

use crate::models::{self, FindError};
use crate::node::Node;
use crate::ring::{Health, PlacedStage, Placement, Ring, RingError, RingOptions};
use crate::runtime::aside;
use hive_worker::text::Model;
use placements::{PlacedModel, Placements};

pub(crate) use place::ASSUMED_BYTES_PER_S;

pub use by_hand::{ByHandError, StageByHand};

/// How long a question waits for a model that is being mended.
const MENDING_PATIENCE: Duration = Duration::from_secs(30);

/// Which model, over how many machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// By name; `None` is the starter model.
    pub model: Option<String>,
    /// Over exactly so many machines; `None` leaves it to the plan.
    pub stages: Option<usize>,
}

impl Wish {
    /// A model by the name that [`models::names`] gives it, placed as the plan has it.
    pub fn named(name: &str) -> Self {
        Self { model: Some(name.to_owned()).filter(|name| name != models::starter_name()), stages: None }.usual()
    }

    /// The same wish by the model's usual name: by several names it would be loaded several times.
    fn usual(&self) -> Self {
        let usual = |name: &String| aside(|| models::usual_name(name));
        Self { model: self.model.as_ref().map(usual), stages: self.stages }
    }
}

/// Why a wish could not be met.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model.
    #[error(transparent)]
    Find(#[from] FindError),
    /// There is no plan.
    #[error("{error}{}", not_counted(left_out))]
    Plan {
        /// Why.
        error: PlanError,
        /// The machines that take no part, and why, in words.
        left_out: Vec<String>,
    },
    /// Fewer machines can take a part than were asked for.
    #[error("{wanted} machines were asked for, but only {} can take a part{}", usable.join(", "), who_cannot(left_out))]
    TooFew {
        /// Machines asked for.
        wanted: usize,
        /// The names of those that can.
        usable: Vec<String>,
        /// Those that cannot, and why, in words.
        left_out: Vec<String>,
    },
    /// A plan made by hand cannot be.
    #[error("this plan cannot be followed: {0}")]
    ByHand(#[from] ByHandError),
    /// It did not load.
    #[error(transparent)]
    Load(#[from] RingError),
    /// Nothing is loaded any more.
    #[error("HiveMind is about to end on this machine")]
    Stopping,
}

fn not_counted(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!(". Not counted: {}", left_out.join("; ")) }
}

fn who_cannot(left_out: &[String]) -> String {
    if left_out.is_empty() {
        "; no other machine is approved, see `hivemind peers`".to_owned()
    } else {
        format!(": {}", left_out.join("; "))
    }
}

/// The loaded model, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<StageView>,
    /// Copies of stages, ready to take over.
    pub copies: Vec<StageView>,
    /// What its stages take on all machines, as planned, in bytes; copies do not count.
    pub bytes: u64,
}

/// A stage, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageView {
    /// The machine.
    pub node: String,
    /// Layers `[start, end)`.
    pub layers: [usize; 2],
    /// What computes there.
    pub device: String,
}

/// A model on its way into memory, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadingView {
    /// Its name.
    pub name: String,
    /// Layers that are there.
    pub layers: usize,
    /// Of so many.
    pub of: usize,
}

struct Loaded {
    wish: Wish,
    ring: Ring,
}

impl Loaded {
    /// Whether it is freed before a wish is met: one that answers stays beside it.
    fn makes_room_for(&self, wish: &Wish) -> bool {
        self.wish == *wish || !self.ring.is_busy() || self.ring.is_lost()
    }

    fn ring(&self) -> Ring {
        self.ring.clone()
    }
}

/// What is loaded.
pub struct Serving {
    /// In the order in which they were loaded. Never locked over a wait.
    loaded: Mutex<Vec<Loaded>>,
    /// Held while models are placed and loaded, one after the other: each is planned with what the others leave, and is loaded
    /// once for all who ask. Whoever asks for one that is in memory does not wait for it.
    placing: AsyncMutex<()>,
    /// The one loaded last, for people.
    latest: Mutex<Option<Ring>>,
    /// The one on its way.
    loading: Mutex<Option<LoadingView>>,
    /// What was in memory when the node was killed, and is not yet again.
    restoring: watch::Sender<Vec<PlacedModel>>,
    /// What somebody has placed.
    by_hand: Mutex<Vec<PlacedModel>>,
    /// What `placements.json` says.
    on_disk: Mutex<Placements>,
    /// Rings when models have been loaded, moved or freed.
    placed_anew: Notify,
}

impl Serving {
    /// Nothing yet; `placements` is to be put back.
    pub(crate) fn new(placements: Placements) -> Self {
        Self {
            on_disk: Mutex::new(placements.clone()),
            loaded: Mutex::default(),
            placing: AsyncMutex::default(),
            latest: Mutex::default(),
            loading: Mutex::default(),
            restoring: watch::channel(placements.in_memory).0,
            by_hand: Mutex::new(placements.by_hand),
            placed_anew: Notify::new(),
        }
    }

    pub(crate) fn view(&self) -> Option<ModelView> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|ring| !ring.is_lost()).map(view)
    }

    pub(crate) fn loading(&self) -> Option<LoadingView> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show_loading(&self, loading: Option<LoadingView>) {
        *self.loading.lock().unwrap_or_else(PoisonError::into_inner) = loading;
    }

    fn loaded(&self) -> MutexGuard<'_, Vec<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of what is loaded.
    pub(crate) fn names(&self) -> Vec<String> {
        let loaded = self.loaded();
        let names = loaded.iter().filter(|loaded| !loaded.ring.is_lost());
        names.map(|loaded| loaded.wish.model.as_deref().unwrap_or(models::starter_name()).to_owned()).collect()
    }

    /// The ring of a wish, if it is loaded.
    fn ring_of(&self, wish: &Wish) -> Option<Ring> {
        self.loaded().iter().find(|loaded| loaded.wish == *wish).map(Loaded::ring)
    }

    /// What would be freed before a wish is met.
    fn unused_beside(&self, wish: &Wish) -> Vec<Ring> {
        self.loaded().iter().filter(|loaded| loaded.makes_room_for(wish)).map(Loaded::ring).collect()
    }

    /// Frees a model by name, or by another name of the same files: `None` where it is not loaded, `false` where it is
    /// answering.
    pub(crate) async fn let_go(&self, name: &str) -> Option<bool> {
        let place = aside(|| models::place(name));
        let is_its_name = |other: &str| other == name || (place.is_some() && models::place(other) == place);
        let mut meant: Vec<Wish> = self.loaded().iter().map(|loaded| loaded.wish.clone()).collect();
        aside(|| meant.retain(|wish| is_its_name(wish.model.as_deref().unwrap_or(models::starter_name()))));
        let is_it = |loaded: &Loaded| meant.contains(&loaded.wish);
        let gone: Vec<Loaded> = {
            let mut loaded = self.loaded();
            if !loaded.iter().any(is_it) {
                return None;
            }
            if loaded.iter().any(|loaded| is_it(loaded) && loaded.ring.is_busy() && !loaded.ring.is_lost()) {
                return Some(false);
            }
            let gone = loaded.extract_if(.., |loaded| is_it(loaded)).collect();
            self.show(loaded.last().map(Loaded::ring));
            gone
        };
        for Loaded { ring, wish } in gone {
            ring.unload().await;
            self.make_by_hand(&Wish { stages: None, ..wish }, None);
        }
        self.make_by_hand(&Wish::named(name), None);
        Some(true)
    }

    fn show(&self, ring: Option<Ring>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    /// Frees what is loaded, once the node stops; it stays on the disk that it was placed by hand.
    pub(crate) async fn unload(&self) -> Placements {
        self.restoring.send_modify(Vec::clear);
        // What is on its way ends by itself then.
        let _placing = self.placing.lock().await;
        let loaded = std::mem::take(&mut *self.loaded());
        self.show(None);
        for Loaded { ring, .. } in loaded {
            ring.unload().await;
        }
        Placements { in_memory: Vec::new(), by_hand: self.by_hand().clone() }
    }
}

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

impl Node {
    /// How a wish would be met now.
    pub async fn lay_out(&self, wish: &Wish) -> Result<Layout, ServeError> {
        let wish = &wish.usual();
        let model = self.open_model(wish.model.as_deref()).await?;
        let (plan, placements) = self.place(&model, wish, &self.serving().unused_beside(wish))?;
        Ok(Layout { model: model.name(), layers: model.card().layers(), plan, placements })
    }

    /// The model that was wished for, loaded if it is not.
    pub async fn model(&self, wish: &Wish) -> Result<Ring, ServeError> {
        let wish = &wish.usual();
        self.restored(wish).await;
        let known = self.serving().ring_of(wish);
        if let Some(ring) = &known
            && self.is_of_use(ring, wish).await?
        {
            return Ok(ring.clone());
        }
        let placing = self.serving().placing.lock().await;
        // Somebody else may have had it loaded meanwhile.
        let now = self.serving().ring_of(wish).filter(|now| !known.is_some_and(|known| known.is(now)));
        if let Some(ring) = now
            && self.unless_stopping(self.is_of_use(&ring, wish)).await?
        {
            return Ok(ring);
        }
        let model = self.unless_stopping(self.open_model(wish.model.as_deref())).await?;
        let unused = self.serving().unused_beside(wish);
        let (plan, placements) = self.place(&model, wish, &unused)?;
        let unused: Vec<Loaded> =
            self.serving().loaded().extract_if(.., |loaded| loaded.makes_room_for(wish)).collect();
        for Loaded { ring, .. } in unused {
            self.serving().show(None);
            ring.unload().await;
        }
        self.load_beside(&placing, wish, model, &plan, &placements).await
    }

    /// Does a part of the work of placing a model, which a node that stops does not wait for.
    async fn unless_stopping<T, E: Into<ServeError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ServeError> {
        tokio::select! {
            biased;
            () = self.stopping() => Err(ServeError::Stopping),
            done = work => done.map_err(Into::into),
        }
    }

    /// Whether a loaded model can be used as it is, once what is being mended is mended.
    async fn is_of_use(&self, ring: &Ring, wish: &Wish) -> Result<bool, ServeError> {
        // One that is in use moves only beside itself (`moving.rs`).
        Ok(self.settles(ring).await && (ring.is_busy() || self.revision(ring, wish)? == Revision::Keep))
    }

    /// Loads a model beside what is loaded, while nothing else is placed.
    async fn load_beside(
        &self,
        _placing: &AsyncMutexGuard<'_, ()>,
        wish: &Wish,
        model: Model,
        plan: &Plan,
        placements: &[Placement],
    ) -> Result<Ring, ServeError> {
        let source = models::source(wish.model.as_deref(), &model);
        let (name, of) = (model.name(), model.card().layers());
        let progress = |layers| {
            self.serving().show_loading(Some(LoadingView { name: name.clone(), layers, of }));
            self.peers().touch();
        };
        progress(0);
        // Also where nobody waits for it any more.
        let shown = Shown(self);
        let load = Box::pin(Ring::load(self, model, plan, placements, RingOptions::new(source), progress));
        let ring = self.unless_stopping(load).await?;
        self.serving().loaded().push(Loaded { wish: wish.clone(), ring: ring.clone() });
        self.serving().show(Some(ring.clone()));
        drop(shown);
        Ok(ring)
    }

    /// Whether a loaded model can be used, once what is being mended is mended.
    async fn settles(&self, ring: &Ring) -> bool {
        let mut state = ring.state();
        let settled = tokio::time::timeout(MENDING_PATIENCE, async {
            loop {
                match &state.borrow_and_update().health {
                    Health::Whole if !ring.stages().iter().any(|stage| self.has_left(stage)) => return true,
                    Health::Lost(_) | Health::Superseded => return false,
                    // Noticed, or just about to be.
                    Health::Whole | Health::Mending(_) => {}
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
struct Shown<'a>(&'a Node);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.serving().show_loading(None);
        self.0.serving().placed_anew();
        self.0.peers().touch();
    }
}

fn view(ring: &Ring) -> ModelView {
    let stage = |stage: &PlacedStage| StageView {
        node: stage.placement.name.clone(),
        layers: [stage.layers.start, stage.layers.end],
        device: stage.device.clone(),
    };
    ModelView {
        name: ring.model().name(),
        stages: ring.stages().iter().map(stage).collect(),
        copies: ring.copies().iter().map(stage).collect(),
        bytes: ring.stage_bytes().sum(),
    }
}
