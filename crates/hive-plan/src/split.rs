//! Splits a model over machines that are all used, in a given order.

use std::ops::Range;

use hive_types::Reason;

use crate::model::Sums;
use crate::room::{own_tokens, room_tokens};
use crate::{Machine, ModelProfile, Plan, PlanError, PlannedStage, assert_each_layer_once};

/// Splits a model over all given machines, in their order, and minimizes the largest share of work per token. Decoding
/// reads every weight once per token, so bytes measure time; the embedding is looked up, not read.
pub fn split(model: &ModelProfile, machines: &[Machine], context: u64) -> Result<Plan, PlanError> {
    let layers = model.layer_bytes.len();
    if machines.is_empty() {
        return Err(PlanError::NoStages);
    }
    // Layers that may not be separated are balanced as one.
    let cuts = model.cuts();
    let possible = cuts.len() - 1;
    if machines.len() > possible {
        return Err(PlanError::TooManyStages { stages: machines.len(), layers, possible });
    }
    let weights = Sums::of(model.layer_bytes.iter().copied());
    let states = model.state_sums(context, 1);
    let whole: Vec<u64> = cuts.windows(2).map(|ends| weights.over(&(ends[0]..ends[1]))).collect();
    let ranges = balance(&whole, model.head_bytes, machines.len());
    let stage = |(machine, range): (usize, Range<usize>)| {
        let layers = cuts[range.start]..cuts[range.end];
        let weight_bytes = model.weight_bytes(&weights, &layers);
        let kv_bytes = states.over(&layers);
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
    let memory_bytes = |machine: usize| machines[machine].memory_bytes;
    let room_tokens = room_tokens(model, &stages, memory_bytes);
    let own_tokens = own_tokens(model, &stages, memory_bytes, room_tokens);
    Ok(Plan { reasons: reasons(model, &stages), stages, decode_tokens_per_s: None, room_tokens, own_tokens })
}

fn reasons(model: &ModelProfile, stages: &[PlannedStage]) -> Vec<Reason> {
    if stages.len() == 1 {
        return vec![Reason::OneMachine];
    }
    let mut reasons = vec![Reason::EvenStages];
    let average = model.layer_bytes.iter().sum::<u64>() / model.layer_bytes.len() as u64;
    let shorter = stages.last().zip(stages.first()).is_some_and(|(last, first)| last.layers.len() < first.layers.len());
    if shorter && average > 0 && model.head_bytes > average {
        reasons.push(Reason::OutputLayer { layers: model.head_bytes / average });
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

/// Fills stages from the front up to `limit`, reserving a weight for each stage that follows.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, StateBytes};
    use proptest::prelude::*;

    fn model(layer_bytes: Vec<u64>, head_bytes: u64) -> ModelProfile {
        let states = vec![StateBytes { per_token: 2, ..StateBytes::default() }; layer_bytes.len()];
        let (unread_bytes, uncut) = (Vec::new(), Vec::new());
        ModelProfile { layer_bytes, unread_bytes, embedding_bytes: 5, head_bytes, states, uncut, base_bytes: 0 }
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
        assert_eq!(plan.reasons[1], Reason::OutputLayer { layers: 8 });
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

    #[test]
    fn layers_that_must_stay_together_limit_the_stages() {
        let shared = ModelProfile { uncut: vec![3, 4, 2], ..model(vec![10; 6], 0) };
        let plan = split(&shared, &machines(3, 1000), 1).unwrap();
        assert_eq!(plan.stages.iter().map(|stage| stage.layers.clone()).collect::<Vec<_>>(), [0..1, 1..5, 5..6]);
        let error = split(&shared, &machines(4, 1000), 1).unwrap_err();
        let words = "4 stages were asked for, but the model has 6 layers, some of which must stay together: at most 3 \
                     stages are possible";
        assert_eq!(error.to_string(), words);
    }

    /// The smallest possible heaviest stage of the layers from `start` on, by trying every split that may be.
    fn brute_force(model: &ModelProfile, start: usize, parts: usize) -> Option<u64> {
        let layers = model.layer_bytes.len();
        let load = |end: usize| model.layer_bytes[start..end].iter().sum::<u64>();
        if parts == 1 {
            return (start < layers).then(|| load(layers) + model.head_bytes);
        }
        let ends = (start + 1..layers).filter(|end| !model.uncut.contains(end));
        ends.filter_map(|end| Some(load(end).max(brute_force(model, end, parts - 1)?))).min()
    }

    proptest! {
        #[test]
        fn splits_are_complete_and_optimal(
            layers in prop::collection::vec((0u64..50, 0u64..9, prop::option::of(0u64..9), 0u64..9), 1..9),
            tail in 0u64..100,
            parts in 1usize..6,
            uncut in prop::collection::vec(1usize..9, 0..4),
            context in 0u64..12,
        ) {
            let weights: Vec<u64> = layers.iter().map(|(bytes, ..)| *bytes).collect();
            let state = |&(_, per_token, most_tokens, fixed): &_| StateBytes { per_token, most_tokens, fixed };
            let states: Vec<_> = layers.iter().map(state).collect();
            let model = ModelProfile { states: states.clone(), uncut, ..model(weights.clone(), tail) };
            let best = brute_force(&model, 0, parts);
            let plan = split(&model, &machines(parts, u64::MAX), context);
            let Some(best) = best else {
                let most = (1..weights.len()).filter(|cut| !model.uncut.contains(cut)).count() + 1;
                let error = PlanError::TooManyStages { stages: parts, layers: weights.len(), possible: most };
                prop_assert_eq!(plan, Err(error));
                return Ok(());
            };
            let plan = plan.unwrap();
            let load = |s: &PlannedStage| {
                weights[s.layers.clone()].iter().sum::<u64>() + if s.layers.end == weights.len() { tail } else { 0 }
            };
            prop_assert_eq!(plan.stages.len(), parts);
            prop_assert_eq!(plan.stages.iter().map(load).max().unwrap(), best);
            for stage in &plan.stages {
                prop_assert!(!model.uncut.contains(&stage.layers.end) || stage.layers.end == weights.len());
                let tokens = |state: &StateBytes| context.min(state.most_tokens.unwrap_or(context));
                let kept = |state: &StateBytes| state.per_token * tokens(state) + state.fixed;
                prop_assert_eq!(stage.kv_bytes, states[stage.layers.clone()].iter().map(kept).sum::<u64>());
            }
            // A byte less than its stage needs is too little.
            let largest = plan.stages.iter().map(PlannedStage::bytes).max().unwrap();
            prop_assert!(split(&model, &machines(parts, largest), context).is_ok());
            if largest > 0 {
                prop_assert!(split(&model, &machines(parts, largest - 1), context).is_err());
            }
        }
    }
}
