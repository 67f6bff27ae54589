//! The model that a node has in memory for its own people and programs, loaded when it is first asked for.
//!
//! One at a time: another model, or other machines for the same one, take its place once nobody uses it. A model whose
//! machine has left is loaded anew on those that are there.

use std::sync::{Mutex, PoisonError};

use hive_plan::{Machine, Plan, PlanError};
use serde::Serialize;
use tokio::sync::Mutex as AsyncMutex;

use crate::models::{self, FindError};
use crate::node::Node;
use crate::planning::{PlanningError, plan_over};
use crate::ring::{PlacedStage, Placement, Ring, RingError, RingOptions};

/// Which model, over how many machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// By name; `None` is the starter model.
    pub model: Option<String>,
    /// Over exactly so many machines; `None` is as few as it fits in.
    pub stages: Option<usize>,
}

/// Why a wish could not be met.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model.
    #[error(transparent)]
    Find(#[from] FindError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanningError),
    /// Fewer machines are here than were asked for.
    #[error("{wanted} machines were asked for, but only {here} are here and share: {names}")]
    TooFew {
        /// Machines asked for.
        wanted: usize,
        /// Machines there are.
        here: usize,
        /// Their names.
        names: String,
    },
    /// It did not load.
    #[error(transparent)]
    Load(#[from] RingError),
}

/// The loaded model, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// Its stages, in the order a token passes them.
    pub stages: Vec<StageView>,
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

struct Loaded {
    wish: Wish,
    ring: Ring,
}

/// What is loaded.
#[derive(Default)]
pub struct Serving {
    /// Held while loading, so that a model is loaded once for all who ask.
    loaded: AsyncMutex<Option<Loaded>>,
    view: Mutex<Option<ModelView>>,
}

impl Serving {
    pub(crate) fn view(&self) -> Option<ModelView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, view: Option<ModelView>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Frees what is loaded.
    pub(crate) async fn unload(&self) {
        let loaded = self.loaded.lock().await.take();
        self.show(None);
        if let Some(Loaded { ring, .. }) = loaded {
            ring.unload().await;
        }
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
    pub fn lay_out(&self, wish: &Wish) -> Result<Layout, ServeError> {
        let files = models::open(wish.model.as_deref())?;
        let (plan, placements) = self.place(&files, wish)?;
        Ok(Layout { model: files.name(), layers: files.config().layers, plan, placements })
    }

    /// The model that was wished for, loaded if it is not.
    pub async fn model(&self, wish: &Wish) -> Result<Ring, ServeError> {
        let mut loaded = self.serving().loaded.lock().await;
        if let Some(Loaded { wish: had, ring }) = &*loaded
            && had == wish
            && self.missing(ring).is_none()
            && !ring.has_failed()
        {
            return Ok(ring.clone());
        }
        let files = models::open(wish.model.as_deref())?;
        let (plan, placements) = self.place(&files, wish)?;
        if let Some(Loaded { ring, .. }) = loaded.take() {
            self.serving().show(None);
            ring.unload().await;
        }
        let source = models::source(wish.model.as_deref(), &files).map_err(PlanningError::from)?;
        let ring = Ring::load(self, files, &plan, &placements, RingOptions::new(source), |_| ()).await?;
        self.serving().show(Some(view(&ring)));
        self.peers().touch();
        *loaded = Some(Loaded { wish: wish.clone(), ring: ring.clone() });
        Ok(ring)
    }

    /// A machine of a loaded model that has left, or has started anew and forgotten its stage.
    pub(crate) fn missing(&self, ring: &Ring) -> Option<String> {
        let lost = |stage: &&PlacedStage| {
            let id = stage.placement.addr.id();
            id != self.id() && self.peers().life(id) != Some(stage.life)
        };
        ring.stages().iter().find(lost).map(|stage| stage.placement.name.clone())
    }

    fn place(&self, files: &hive_model::ModelFiles, wish: &Wish) -> Result<(Plan, Vec<Placement>), ServeError> {
        let own = Placement { name: self.name().to_owned(), addr: self.addr() };
        let own_memory = self.profile().offered_bytes;
        let mut machines = vec![(own, own_memory)];
        let mut others: Vec<_> = self.peers().present();
        others.retain(|(_, profile)| profile.sharing);
        // The most memory first: fewer machines are enough.
        others.sort_by_key(|(_, profile)| std::cmp::Reverse(profile.offered_bytes));
        for (peer, profile) in others {
            let placement = Placement { name: self.peers().name(peer), addr: self.peers().addr(peer) };
            machines.push((placement, profile.offered_bytes));
        }
        let attempt = |count: usize| -> Result<Plan, PlanningError> {
            let machine = |(placement, memory): &(Placement, u64)| Machine {
                name: placement.name.clone(),
                memory_bytes: *memory,
            };
            plan_over(files, &machines[..count].iter().map(machine).collect::<Vec<_>>())
        };
        let plan = match wish.stages {
            Some(0) => return Err(PlanningError::Plan(PlanError::NoStages).into()),
            Some(wanted) if wanted > machines.len() => {
                let names: Vec<_> = machines.iter().map(|(placement, _)| placement.name.as_str()).collect();
                return Err(ServeError::TooFew { wanted, here: machines.len(), names: names.join(", ") });
            }
            Some(wanted) => attempt(wanted)?,
            None => {
                // As few machines as hold it: every further one adds a hop to every token.
                let mut result = attempt(1);
                for count in 2..=machines.len() {
                    if result.is_ok() {
                        break;
                    }
                    result = attempt(count);
                }
                result?
            }
        };
        Ok((plan, machines.into_iter().map(|(placement, _)| placement).collect()))
    }
}

fn view(ring: &Ring) -> ModelView {
    let stage = |stage: &PlacedStage| StageView {
        node: stage.placement.name.clone(),
        layers: [stage.layers.start, stage.layers.end],
        device: stage.device.clone(),
    };
    ModelView { name: ring.files().name(), stages: ring.stages().iter().map(stage).collect() }
}
