//! Whether the machines of the fleet have room for a catalogue model that may be on no disk yet.
//!
//! The planner decides, on a profile built from the catalogue's numbers: all layers are assumed alike, and memory
//! beside the weights is counted as `hive-stage` counts it for any model.

use hive_catalogue::{Judged, Needs, Placed, Share, judge, shareable};
use hive_peers::{Candidate, HERE, Scope, between};
use hive_plan::{Form, LinkProfile, ModelProfile, NodeProfile, StateBytes, Use};
use hive_protocol::Profile;
use hive_stage::planning::base_bytes_of;
use hive_types::FitView;

use crate::model_request::ModelRequest;
use crate::serving::Serving;

/// The memory of the current machines, for models that are not loaded yet.
pub struct Capacity {
    machines: Vec<Candidate>,
    shares: Vec<Share>,
    keeps_prompts_here: bool,
}

impl Serving {
    /// The capacity for a model. The memory of unused models counts as free, since they would be unloaded, and so does
    /// the model's own, if it is loaded.
    pub fn capacity_for(&self, model: Option<&str>) -> Capacity {
        let wanted = self.usual(&model.map_or_else(ModelRequest::default, ModelRequest::named));
        let machines = self.member().candidates(None, &self.freed_for(&wanted), Scope::Healthy);
        let mut profiles = self.member().peers().present();
        profiles.push((self.member().id(), self.member().profile()));
        let share = |machine: &Candidate| {
            let profile =
                profiles.iter().find(|(id, _)| *id == machine.placement.addr.id()).map(|(_, profile)| profile);
            let shared_bytes = machine.profile.memory_bytes;
            Share {
                name: machine.placement.name.clone(),
                shared_bytes,
                most_bytes: profile.map_or(0, most_bytes).max(shared_bytes),
            }
        };
        let shares = machines.iter().map(share).collect();
        Capacity { machines, shares, keeps_prompts_here: self.keeps_prompts_here() }
    }
}

/// The memory that a machine could share if its owner raised the cap; 0 without a cap, since it already offers
/// everything, and for graphics cards, whose size a profile does not report.
fn most_bytes(profile: &Profile) -> u64 {
    if profile.cap_bytes.is_none() || (profile.gpu && profile.os != "macos") {
        return 0;
    }
    shareable(profile.memory_bytes).min(profile.memory_bytes.saturating_sub(profile.taken_bytes))
}

impl Capacity {
    /// Whether a model fits with a conversation of this length.
    pub fn fit(&self, needs: &Needs, context: u64) -> FitView {
        let shares = |machines: &[Share]| {
            let forms = self.machines.iter().map(|machine| machine.profile.form);
            let profile = profile(needs, forms.clone());
            let number_bytes = if forms.clone().any(|form| form == Form::Packed) { 4 } else { 2 };
            let wanted = Use {
                context_tokens: context,
                conversations: 1,
                hidden_bytes: needs.hidden.saturating_mul(number_bytes),
            };
            let needed_bytes = bytes(&profile, context);
            judge(machines, needed_bytes, &|shared| self.plan(&profile, needed_bytes, shared, wanted))
        };
        // An owner who wants prompts to stay here gets other machines only for models that do not fit here.
        let here = self.keeps_prompts_here.then(|| shares(&self.shares[HERE..=HERE]));
        let here = here.filter(|judged| !judged.machines.is_empty());
        let Judged { fit, machines, room_tokens, tokens_per_s } = here.unwrap_or_else(|| shares(&self.shares));
        FitView { context, fit, machines, room_tokens, decode_tokens_per_s: tokens_per_s }
    }

    /// Places a model on machines that share this many bytes: the first of those that are here, and perhaps one more.
    fn plan(&self, profile: &ModelProfile, needed_bytes: u64, shared: &[u64], wanted: Use) -> Option<Placed> {
        let all = shared.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        if all < needed_bytes {
            return None;
        }
        let node = |(at, memory_bytes): (usize, &u64)| {
            let known = self.machines.get(at).map(|machine| machine.profile.clone());
            // For a machine that is not here, only the fit matters.
            let further = || NodeProfile { name: String::new(), memory_bytes: 0, bytes_per_s: 1e9, form: Form::Mlx };
            NodeProfile { memory_bytes: *memory_bytes, ..known.unwrap_or_else(further) }
        };
        let nodes: Vec<NodeProfile> = shared.iter().enumerate().map(node).collect();
        let link = |a: usize, b: usize| match (self.machines.get(a), self.machines.get(b)) {
            (Some(a), Some(b)) => between(a, b),
            _ => LinkProfile { round_trip_us: 0.0, bits_per_s: f64::INFINITY },
        };
        let plan = hive_plan::choose(profile, &nodes, &link, wanted).ok()?;
        let held = plan.stages.iter().map(|stage| (stage.machine, stage.bytes())).collect();
        Some(Placed { held, room_tokens: plan.room_tokens, tokens_per_s: plan.decode_tokens_per_s })
    }
}

/// Numbers between the halves of a layer, as a multiple of those of a hidden state: what most families have.
const WORK_TIMES_HIDDEN: u64 = 20;

fn profile(needs: &Needs, forms: impl Iterator<Item = Form>) -> ModelProfile {
    let work_bytes_per_token = WORK_TIMES_HIDDEN * needs.hidden * size_of::<f32>() as u64;
    let (mut base_bytes, mut widened) = (0, 1);
    for form in forms {
        base_bytes = base_bytes_of(work_bytes_per_token, form).max(base_bytes);
        // The fast kernels keep caches in single precision.
        widened = widened.max(if form == Form::Packed { 2 } else { 1 });
    }
    let state =
        StateBytes { per_token: needs.kv_bytes_per_token * widened, most_tokens: None, fixed: needs.state_bytes };
    ModelProfile {
        layer_bytes: vec![needs.layer_bytes; needs.layers],
        unread_bytes: vec![needs.unread_bytes; needs.layers],
        embedding_bytes: needs.embedding_bytes,
        head_bytes: needs.head_bytes,
        states: vec![state; needs.layers],
        uncut: Vec::new(),
        base_bytes,
    }
}

/// A model's memory on one machine.
fn bytes(profile: &ModelProfile, context: u64) -> u64 {
    let states = profile.states.iter().map(|state| state.bytes(context, 1));
    let ends = [profile.embedding_bytes, profile.head_bytes, profile.base_bytes];
    profile.layer_bytes.iter().copied().chain(states).chain(ends).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        layers: 10,
        layer_bytes: 1_000_000,
        unread_bytes: 900_000,
        embedding_bytes: 500_000,
        head_bytes: 600_000,
        kv_bytes_per_token: 100,
        state_bytes: 7,
        hidden: 64,
    };

    #[test]
    fn a_profile_has_what_the_catalogue_says_and_what_any_stage_takes() {
        let at = |forms: &[Form]| profile(&NEEDS, forms.iter().copied());
        let mlx = at(&[Form::Mlx]);
        assert_eq!((mlx.layer_bytes.len(), mlx.states[3].bytes(1000, 1)), (10, 100_007));
        let base_bytes = base_bytes_of(20 * 64 * 4, Form::Mlx);
        assert_eq!(bytes(&mlx, 1000), 10_000_000 + 1_000_070 + 1_100_000 + base_bytes);
        let both = at(&[Form::Mlx, Form::Packed]);
        assert_eq!((both.states[0].per_token, both.base_bytes), (200, base_bytes), "the larger counts");
    }

    #[test]
    fn more_can_be_shared_only_where_an_owner_has_set_a_cap() {
        let studio = Profile {
            os: "macos".to_owned(),
            gpu: true,
            memory_bytes: 64_000_000_000,
            taken_bytes: 20_000_000_000,
            cap_bytes: Some(8_000_000_000),
            ..Profile::default()
        };
        assert_eq!(most_bytes(&studio), 44_000_000_000);
        assert_eq!(most_bytes(&Profile { taken_bytes: 0, ..studio.clone() }), 48_000_000_000);
        assert_eq!(most_bytes(&Profile { cap_bytes: None, ..studio.clone() }), 0);
        assert_eq!(most_bytes(&Profile { os: "linux".to_owned(), ..studio }), 0);
    }
}
