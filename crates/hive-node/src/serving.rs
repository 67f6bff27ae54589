//! The models that a node has in memory for its own people and programs, each loaded when it is first asked for.
//!
//! One that nobody uses makes room for the next; one that is in use stays beside it. A model whose machine has left is
//! loaded anew on those that are there.

use std::sync::{Mutex, PoisonError};

use hive_plan::{LinkProfile, Machine, NodeProfile, Plan, PlanError};
use serde::Serialize;
use tokio::sync::Mutex as AsyncMutex;

use crate::models::{self, FindError};
use crate::node::Node;
use crate::planning::{PlanningError, plan_best, plan_over};
use crate::profile::Profile;
use crate::ring::{PlacedStage, Placement, Ring, RingError, RingOptions};

/// Which model, over how many machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// By name; `None` is the starter model.
    pub model: Option<String>,
    /// Over exactly so many machines; `None` leaves it to the plan.
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
    loaded: AsyncMutex<Vec<Loaded>>,
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
        let loaded = std::mem::take(&mut *self.loaded.lock().await);
        self.show(None);
        for Loaded { ring, .. } in loaded {
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
        let whole = |ring: &Ring| self.missing(ring).is_none() && !ring.has_failed();
        if let Some(found) = loaded.iter().find(|loaded| loaded.wish == *wish && whole(&loaded.ring)) {
            return Ok(found.ring.clone());
        }
        let files = models::open(wish.model.as_deref())?;
        let (plan, placements) = self.place(&files, wish)?;
        let in_use = |loaded: &mut Loaded| loaded.wish != *wish && loaded.ring.is_busy() && whole(&loaded.ring);
        let unused: Vec<Loaded> = loaded.extract_if(.., |loaded| !in_use(loaded)).collect();
        for Loaded { ring, .. } in unused {
            self.serving().show(None);
            ring.unload().await;
        }
        let source = models::source(wish.model.as_deref(), &files).map_err(PlanningError::from)?;
        let ring = Ring::load(self, files, &plan, &placements, RingOptions::new(source), |_| ()).await?;
        self.serving().show(Some(view(&ring)));
        self.peers().touch();
        loaded.push(Loaded { wish: wish.clone(), ring: ring.clone() });
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
        let machines = self.machines();
        let plan = match wish.stages {
            Some(0) => return Err(PlanningError::Plan(PlanError::NoStages).into()),
            Some(wanted) if wanted > machines.len() => {
                let names: Vec<_> = machines.iter().map(|machine| machine.placement.name.as_str()).collect();
                return Err(ServeError::TooFew { wanted, here: machines.len(), names: names.join(", ") });
            }
            Some(wanted) => {
                let machine = |machine: &Candidate| Machine {
                    name: machine.placement.name.clone(),
                    memory_bytes: machine.profile.memory_bytes,
                };
                plan_over(files, &machines[..wanted].iter().map(machine).collect::<Vec<_>>())?
            }
            None => {
                let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
                plan_best(files, &nodes, &|a, b| between(&machines[a], &machines[b]))?
            }
        };
        Ok((plan, machines.into_iter().map(|machine| machine.placement).collect()))
    }

    /// This machine, then those that are here and share, the most memory first.
    fn machines(&self) -> Vec<Candidate> {
        let own = self.profile();
        let mut others = self.peers().present();
        others.retain(|(_, profile)| profile.sharing);
        others.sort_by_key(|(_, profile)| std::cmp::Reverse(profile.offered_bytes));
        // One that has not been measured yet counts as no faster than the slowest that has.
        let known = others.iter().map(|(_, profile)| profile).chain([&own]).filter_map(|profile| profile.bytes_per_s);
        let slowest = known.min_by(f64::total_cmp).unwrap_or(ASSUMED_BYTES_PER_S);
        let candidate = |placement: Placement, profile: &Profile, link: Option<(f64, f64)>| Candidate {
            profile: NodeProfile {
                name: placement.name.clone(),
                memory_bytes: profile.offered_bytes,
                bytes_per_s: profile.bytes_per_s.unwrap_or(slowest),
            },
            placement,
            link,
        };
        let here = Placement { name: self.name().to_owned(), addr: self.addr() };
        let mut machines = vec![candidate(here, &own, None)];
        for (peer, profile) in others {
            let placement = Placement { name: self.peers().name(peer), addr: self.peers().addr(peer) };
            let round_trip = self.endpoint().link(peer).map_or(ASSUMED_ROUND_TRIP_US, |link| link.round_trip_us as f64);
            let rate = self.peers().rate(peer).map_or(ASSUMED_BITS_PER_S, |rate| rate as f64);
            machines.push(candidate(placement, &profile, Some((round_trip, rate))));
        }
        machines
    }
}

/// What is assumed of machines and links until they are measured: an old laptop, and Wi-Fi.
const ASSUMED_BYTES_PER_S: f64 = 10e9;
const ASSUMED_ROUND_TRIP_US: f64 = 4000.0;
const ASSUMED_BITS_PER_S: f64 = 100e6;

/// A machine that a plan may use.
struct Candidate {
    placement: Placement,
    profile: NodeProfile,
    /// Round trip in microseconds and bits per second from here; `None` for this machine itself.
    link: Option<(f64, f64)>,
}

/// The way between two machines. Those that are not this one are taken to be as far from each other as the farther of them
/// is from here.
fn between(a: &Candidate, b: &Candidate) -> LinkProfile {
    let (near, far) = (a.link.unwrap_or((0.0, f64::INFINITY)), b.link.unwrap_or((0.0, f64::INFINITY)));
    LinkProfile { round_trip_us: near.0.max(far.0), bits_per_s: near.1.min(far.1) }
}

fn view(ring: &Ring) -> ModelView {
    let stage = |stage: &PlacedStage| StageView {
        node: stage.placement.name.clone(),
        layers: [stage.layers.start, stage.layers.end],
        device: stage.device.clone(),
    };
    ModelView { name: ring.files().name(), stages: ring.stages().iter().map(stage).collect() }
}
