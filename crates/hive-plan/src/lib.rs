//! The planner: decides which layers go to which machine. Pure functions over plain numbers, no I/O.
//!
//! A [`Plan`] is a list of contiguous layer ranges, the stages, with their bytes and the reasons for them.
//!
//! Invariants: every layer is placed exactly once, in order, and no stage is empty.
//!
//! `examples/choose.rs` plans a model over three machines, and prints the plan with its reasons.

mod choose;
mod handover;
mod replace;
mod revise;
mod standby;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use choose::{ArrangeError, Costs, LinkProfile, NodeProfile, STAGE_US, Use, arrange, choose, predict};
pub use handover::{Handover, Load, handover};
pub use replace::{Candidate, Replacement, replace};
pub use revise::{Revision, revise};
pub use standby::{Spare, standby};

/// A model's memory requirements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelProfile {
    /// Bytes of weights of each layer.
    pub layer_bytes: Vec<u64>,
    /// Those of them that a token does not read: the experts that it does not pick. Empty if it reads all.
    pub unread_bytes: Vec<u64>,
    /// Bytes of the embedding, held by the first stage.
    pub embedding_bytes: u64,
    /// Bytes of the output projection, held and read for every token by the last stage.
    pub head_bytes: u64,
    /// Bytes of KV cache per token and layer.
    pub kv_bytes_per_token: u64,
    /// Fixed overhead of a stage in bytes, whatever it holds: its process and its working memory.
    pub base_bytes: u64,
}

/// How a machine stores a model: weights take more memory in one form, caches in the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Packed for the fast CPU kernels.
    #[default]
    Packed,
    /// As MLX stores it, on a GPU.
    Mlx,
}

/// A machine that may hold a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name, for people.
    pub name: String,
    /// Bytes of memory it offers.
    pub memory_bytes: u64,
    /// The form in which it stores models.
    pub form: Form,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStage {
    /// The machine's index in the given list.
    pub machine: usize,
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bytes of KV cache for one conversation of the requested context.
    pub kv_bytes: u64,
    /// Fixed overhead in bytes.
    pub base_bytes: u64,
}

impl PlannedStage {
    /// Bytes of memory it needs in all.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_bytes).saturating_add(self.base_bytes)
    }
}

/// A placement of every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order a token passes them.
    pub stages: Vec<PlannedStage>,
    /// The reasons, in sentences.
    pub reasons: Vec<String>,
    /// Predicted speed of one conversation, if the machines' speeds are known.
    pub decode_tokens_per_s: Option<f64>,
    /// Tokens of all conversations together that fit into the machines' memory.
    pub room_tokens: u64,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No stages were requested.
    #[error("a model needs at least one stage; 0 were asked for")]
    NoStages,
    /// More stages than layers.
    #[error("{stages} stages were asked for, but the model has {layers} layers: at most {layers} stages are possible")]
    TooManyStages {
        /// Requested stages.
        stages: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// More memory than all machines offer together.
    #[error(
        "this model needs {} MB with one conversation, but {} {} MB; add a machine or raise a memory limit",
        needed_bytes.div_ceil(1_000_000),
        if *machines == 1 { "1 machine shares".to_owned() } else { format!("{machines} machines share") },
        given_bytes / 1_000_000
    )]
    TooLarge {
        /// Bytes of the model and its conversations.
        needed_bytes: u64,
        /// Bytes all machines offer.
        given_bytes: u64,
        /// The number of machines.
        machines: usize,
    },
    /// A stage is larger than its machine.
    #[error("{machine} would need {needed_bytes} bytes but gives {given_bytes}")]
    DoesNotFit {
        /// The machine.
        machine: String,
        /// Bytes of its stage.
        needed_bytes: u64,
        /// Bytes it offers.
        given_bytes: u64,
    },
}

/// Splits a model over all given machines, in their order, and minimizes the largest share of work per token. Decoding
/// reads every weight once per token, so bytes measure time; the embedding is looked up, not read.
pub fn split(model: &ModelProfile, machines: &[Machine], context: u64) -> Result<Plan, PlanError> {
    let layers = model.layer_bytes.len();
    if machines.is_empty() {
        return Err(PlanError::NoStages);
    }
    if machines.len() > layers {
        return Err(PlanError::TooManyStages { stages: machines.len(), layers });
    }
    let ranges = balance(&model.layer_bytes, model.head_bytes, machines.len());
    let kv_per_layer = model.kv_bytes_per_token.saturating_mul(context);
    let stage = |(machine, layers): (usize, Range<usize>)| {
        let mut weight_bytes: u64 = model.layer_bytes[layers.clone()].iter().sum();
        if layers.start == 0 {
            weight_bytes += model.embedding_bytes;
        }
        if layers.end == model.layer_bytes.len() {
            weight_bytes += model.head_bytes;
        }
        let kv_bytes = kv_per_layer.saturating_mul(layers.len() as u64);
        PlannedStage { machine, layers, weight_bytes, kv_bytes, base_bytes: model.base_bytes }
    };
    let stages: Vec<PlannedStage> = ranges.into_iter().enumerate().map(stage).collect();
    assert_each_layer_once(&stages, layers);
    for stage in &stages {
        let machine = &machines[stage.machine];
        let needed_bytes = stage.bytes();
        if needed_bytes > machine.memory_bytes {
            let given_bytes = machine.memory_bytes;
            return Err(PlanError::DoesNotFit { machine: machine.name.clone(), needed_bytes, given_bytes });
        }
    }
    let room_tokens = room_tokens(model, &stages, |machine| machines[machine].memory_bytes);
    Ok(Plan { reasons: reasons(model, &stages), stages, decode_tokens_per_s: None, room_tokens })
}

/// A machine's share of a plan, which may be several stages.
#[derive(Debug, Default)]
struct Held {
    /// Bytes of its stages, without their caches.
    fixed_bytes: u64,
    kv_bytes: u64,
    layers: u64,
}

fn held(stages: &[PlannedStage]) -> BTreeMap<usize, Held> {
    let mut held: BTreeMap<usize, Held> = BTreeMap::new();
    for stage in stages {
        let Held { fixed_bytes, kv_bytes, layers } = held.entry(stage.machine).or_default();
        *fixed_bytes = fixed_bytes.saturating_add(stage.weight_bytes).saturating_add(stage.base_bytes);
        *kv_bytes = kv_bytes.saturating_add(stage.kv_bytes);
        *layers += stage.layers.len() as u64;
    }
    held
}

/// Tokens whose KV cache fits on every machine beside everything else.
fn room_tokens(model: &ModelProfile, stages: &[PlannedStage], memory_bytes: impl Fn(usize) -> u64) -> u64 {
    let room = |(machine, held): (usize, Held)| {
        let per_token = model.kv_bytes_per_token.saturating_mul(held.layers);
        memory_bytes(machine).saturating_sub(held.fixed_bytes) / per_token.max(1)
    };
    held(stages).into_iter().map(room).min().unwrap_or(0)
}

fn reasons(model: &ModelProfile, stages: &[PlannedStage]) -> Vec<String> {
    if stages.len() == 1 {
        return vec!["The model fits on one machine.".to_owned()];
    }
    let mut reasons = vec!["Each stage reads about as many bytes per token as the others.".to_owned()];
    let average = model.layer_bytes.iter().sum::<u64>() / model.layer_bytes.len() as u64;
    let shorter = stages.last().zip(stages.first()).is_some_and(|(last, first)| last.layers.len() < first.layers.len());
    if shorter && average > 0 && model.head_bytes > average {
        reasons.push(format!(
            "The last stage has fewer layers: it also projects onto the vocabulary, which weighs as much as {} layers.",
            model.head_bytes / average
        ));
    }
    reasons
}

/// Contiguous ranges whose heaviest is as light as possible; `tail` is added to the last.
fn balance(weights: &[u64], tail: u64, parts: usize) -> Vec<Range<usize>> {
    // The optimum is some stage's weight, so a binary search over the limit finds it.
    let total = weights.iter().sum::<u64>().saturating_add(tail);
    let (mut low, mut high) = (0, total);
    while low < high {
        let limit = low + (high - low) / 2;
        if fill(weights, tail, parts, limit).is_some() { high = limit } else { low = limit + 1 }
    }
    fill(weights, tail, parts, low).unwrap_or_default()
}

/// Fills stages from the front up to `limit`, reserving a layer for each stage that follows.
fn fill(weights: &[u64], tail: u64, parts: usize, limit: u64) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::with_capacity(parts);
    let mut start = 0;
    for part in 0..parts {
        let is_last = part + 1 == parts;
        let most = weights.len() - (parts - part - 1);
        let mut load = if is_last { tail } else { 0 };
        let mut end = start;
        while end < most && (is_last || load + weights[end] <= limit) {
            load += weights[end];
            end += 1;
        }
        if end == start || load > limit {
            return None;
        }
        ranges.push(start..end);
        start = end;
    }
    (start == weights.len()).then_some(ranges)
}

/// A lost or duplicated layer produces fluent nonsense, so every build checks this.
fn assert_each_layer_once(stages: &[PlannedStage], layers: usize) {
    let mut next = 0;
    for stage in stages {
        assert!(stage.layers.start == next && !stage.layers.is_empty(), "a layer is lost or placed twice: {stages:?}");
        next = stage.layers.end;
    }
    assert!(next == layers, "layers {next} to {layers} are placed nowhere");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(layer_bytes: Vec<u64>, head_bytes: u64) -> ModelProfile {
        let (unread_bytes, kv_bytes_per_token) = (Vec::new(), 2);
        ModelProfile { layer_bytes, unread_bytes, embedding_bytes: 5, head_bytes, kv_bytes_per_token, base_bytes: 0 }
    }

    fn machines(count: usize, memory_bytes: u64) -> Vec<Machine> {
        (0..count).map(|i| Machine { name: format!("machine {i}"), memory_bytes, form: Form::Packed }).collect()
    }

    #[test]
    fn impossible_wishes_are_named() {
        let model = model(vec![10; 3], 0);
        assert_eq!(split(&model, &[], 1), Err(PlanError::NoStages));
        let error = split(&model, &machines(4, 1000), 1).unwrap_err();
        assert!(error.to_string().contains("at most 3 stages"), "{error}");
        assert!(matches!(split(&model, &machines(1, 30), 1), Err(PlanError::DoesNotFit { needed_bytes: 41, .. })));
    }

    #[test]
    fn a_heavy_head_makes_the_last_stage_shorter_and_says_so() {
        let plan = split(&model(vec![10; 30], 80), &machines(2, 10_000), 100).unwrap();
        assert_eq!(plan.stages[0].layers, 0..19);
        assert_eq!(plan.stages[1].layers, 19..30);
        assert_eq!(plan.stages[0].weight_bytes, 195);
        assert_eq!(plan.stages[1].kv_bytes, 11 * 200);
        assert_eq!(plan.room_tokens, (10_000 - 195) / (19 * 2), "the longer stage has the least room");
        assert!(plan.reasons[1].contains("8 layers"), "{:?}", plan.reasons);
    }

    #[test]
    fn every_stage_needs_memory_for_its_process() {
        let model = ModelProfile { base_bytes: 100, ..model(vec![10; 4], 0) };
        // Weights 20 and 25, caches 4 each.
        assert!(matches!(split(&model, &machines(2, 128), 1), Err(PlanError::DoesNotFit { needed_bytes: 129, .. })));
        let plan = split(&model, &machines(2, 129), 1).unwrap();
        assert_eq!(plan.stages.iter().map(PlannedStage::bytes).collect::<Vec<_>>(), [129, 124]);
        assert_eq!(plan.room_tokens, 1);
    }

    /// The smallest possible heaviest stage, by trying every split.
    fn brute_force(weights: &[u64], tail: u64, parts: usize) -> u64 {
        if parts == 1 {
            return weights.iter().sum::<u64>() + tail;
        }
        (1..=weights.len() - (parts - 1))
            .map(|n| weights[..n].iter().sum::<u64>().max(brute_force(&weights[n..], tail, parts - 1)))
            .min()
            .unwrap()
    }

    proptest! {
        #[test]
        fn splits_are_complete_and_optimal(
            weights in prop::collection::vec(0u64..50, 1..9), tail in 0u64..100, parts in 1usize..6,
        ) {
            prop_assume!(parts <= weights.len());
            let plan = split(&model(weights.clone(), tail), &machines(parts, u64::MAX), 1).unwrap();
            let load = |s: &PlannedStage| {
                weights[s.layers.clone()].iter().sum::<u64>() + if s.layers.end == weights.len() { tail } else { 0 }
            };
            prop_assert_eq!(plan.stages.len(), parts);
            prop_assert_eq!(plan.stages.iter().map(load).max().unwrap(), brute_force(&weights, tail, parts));
        }
    }
}
