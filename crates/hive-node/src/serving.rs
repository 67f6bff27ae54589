//! The models that a node has in memory for its own people and programs, each loaded when it is first asked for.
//!
//! One that nobody uses makes room for the next; one that is in use stays beside it. A model whose machine has left is
//! loaded anew on those that are there.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hive_net::PeerId;
use hive_plan::{LinkProfile, Machine, NodeProfile, Plan, PlanError, Revision};
use serde::Serialize;
use tokio::sync::Mutex as AsyncMutex;

use crate::models::{self, FindError};
use crate::node::Node;
use crate::planning::{self, PlanningError, plan_best, plan_over};
use crate::profile::Profile;
use crate::ring::{Health, PlacedStage, Placement, Ring, RingError, RingOptions};

/// How long a question waits for a model that is being mended.
const MENDING_PATIENCE: Duration = Duration::from_secs(30);

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
    /// Copies of stages, ready to take over.
    pub copies: Vec<StageView>,
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
    /// The one loaded last, for people.
    latest: Mutex<Option<Ring>>,
}

impl Serving {
    pub(crate) fn view(&self) -> Option<ModelView> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|ring| !ring.is_lost()).map(view)
    }

    fn show(&self, ring: Option<Ring>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = ring;
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
        if let Some(found) = loaded.iter().find(|loaded| loaded.wish == *wish)
            && self.settles(&found.ring).await
            && self.revision(&found.ring, wish)? == Revision::Keep
        {
            return Ok(found.ring.clone());
        }
        let files = models::open(wish.model.as_deref())?;
        let (plan, placements) = self.place(&files, wish)?;
        let in_use = |loaded: &mut Loaded| loaded.wish != *wish && loaded.ring.is_busy() && !loaded.ring.is_lost();
        let unused: Vec<Loaded> = loaded.extract_if(.., |loaded| !in_use(loaded)).collect();
        for Loaded { ring, .. } in unused {
            self.serving().show(None);
            ring.unload().await;
        }
        let source = models::source(wish.model.as_deref(), &files).map_err(PlanningError::from)?;
        let ring = Ring::load(self, files, &plan, &placements, RingOptions::new(source), |_| ()).await?;
        self.serving().show(Some(ring.clone()));
        self.peers().touch();
        loaded.push(Loaded { wish: wish.clone(), ring: ring.clone() });
        Ok(ring)
    }

    /// Whether a loaded model can be used, once what is being mended is mended.
    async fn settles(&self, ring: &Ring) -> bool {
        let mut state = ring.state();
        let settled = tokio::time::timeout(MENDING_PATIENCE, async {
            loop {
                match &state.borrow_and_update().health {
                    Health::Whole if !ring.stages().iter().any(|stage| self.has_left(stage)) => return true,
                    Health::Lost(_) => return false,
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

    /// Whether a loaded model should move, now that there may be other machines. One that is in use stays: moving would
    /// stop its answers.
    fn revision(&self, ring: &Ring, wish: &Wish) -> Result<Revision, ServeError> {
        if ring.is_busy() {
            return Ok(Revision::Keep);
        }
        let machines = self.candidates();
        let place = |stage: &PlacedStage| {
            let id = stage.placement.addr.id();
            machines.iter().position(|machine| machine.placement.addr.id() == id)
        };
        let stages = ring.stages();
        let Some(places) = stages.iter().map(place).collect::<Option<Vec<_>>>() else { return Ok(Revision::Move) };
        if let Some(wanted) = wish.stages {
            // Mended onto fewer machines, it is not what was wished for.
            let used = places.iter().collect::<BTreeSet<_>>().len();
            return Ok(if used < wanted { Revision::Move } else { Revision::Keep });
        }
        let mut nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
        let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
        let now: Vec<_> = places.into_iter().zip(stages.iter().map(|stage| stage.layers.clone())).collect();
        let now_tokens_per_s = planning::predict(ring.files(), &nodes, &link, &now)?;
        for ((place, _), bytes) in now.iter().zip(ring.stage_bytes()) {
            // Moving frees what the model holds now.
            nodes[*place].memory_bytes = nodes[*place].memory_bytes.saturating_add(bytes);
        }
        let best = plan_best(ring.files(), &nodes, &link)?;
        Ok(hive_plan::revise(now_tokens_per_s, best.decode_tokens_per_s.unwrap_or(0.0)))
    }

    /// Whether the machine of a stage has left, or has started anew and forgotten its stage.
    pub(crate) fn has_left(&self, stage: &PlacedStage) -> bool {
        // A machine that is not followed, as those of one process are not, has no life that could have ended.
        let id = stage.placement.addr.id();
        id != self.id() && stage.life != 0 && self.peers().life(id) != Some(stage.life)
    }

    /// Whether a machine has said that it does not share any more.
    pub(crate) fn is_leaving(&self, machine: PeerId) -> bool {
        self.peers().present().iter().any(|(peer, profile)| *peer == machine && !profile.sharing)
    }

    /// Whether a machine holds more than its owner lets it give by now.
    pub(crate) fn is_over_cap(&self, machine: PeerId) -> bool {
        let over = |(peer, profile): &(PeerId, Profile)| *peer == machine && profile.over_cap;
        (machine == self.id() && self.profile().over_cap) || self.peers().present().iter().any(over)
    }

    /// The machines that may take a stage, and what is known of them.
    pub(crate) fn machines(&self) -> Vec<(Placement, NodeProfile)> {
        let candidates = self.candidates().into_iter();
        let within_cap = candidates.filter(|machine| !self.is_over_cap(machine.placement.addr.id()));
        within_cap.map(|machine| (machine.placement, machine.profile)).collect()
    }

    fn place(&self, files: &hive_model::ModelFiles, wish: &Wish) -> Result<(Plan, Vec<Placement>), ServeError> {
        let machines = self.candidates();
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
                let mut plan = plan_over(files, &machines[..wanted].iter().map(machine).collect::<Vec<_>>())?;
                let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
                let stages: Vec<_> = plan.stages.iter().map(|stage| (stage.machine, stage.layers.clone())).collect();
                let link = |a: usize, b: usize| between(&machines[a], &machines[b]);
                plan.decode_tokens_per_s = Some(planning::predict(files, &nodes, &link, &stages)?);
                plan
            }
            None => {
                let nodes: Vec<_> = machines.iter().map(|machine| machine.profile.clone()).collect();
                plan_best(files, &nodes, &|a, b| between(&machines[a], &machines[b]))?
            }
        };
        Ok((plan, machines.into_iter().map(|machine| machine.placement).collect()))
    }

    /// This machine, then those that are here and share, the most memory first.
    fn candidates(&self) -> Vec<Candidate> {
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
    ModelView {
        name: ring.files().name(),
        stages: ring.stages().iter().map(stage).collect(),
        copies: ring.copies().iter().map(stage).collect(),
    }
}
