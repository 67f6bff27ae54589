//! Chosen plans are as good as any: compared with a search that tries everything.

use super::*;
use crate::StateBytes;
use proptest::prelude::*;

fn node((memory_bytes, bytes_per_s): (u64, f64)) -> NodeProfile {
    NodeProfile { name: "n".to_owned(), memory_bytes, bytes_per_s, form: Form::Packed }
}

/// Bytes of a stage, added up from the model's own numbers.
fn bytes(model: &ModelProfile, wanted: Use, layers: &Range<usize>) -> u64 {
    let embedding_bytes = if layers.start == 0 { model.embedding_bytes } else { 0 };
    let head_bytes = if layers.end == model.layer_bytes.len() { model.head_bytes } else { 0 };
    let state_bytes = |layer: usize| {
        let StateBytes { per_token, most_tokens, fixed } = model.states[layer];
        let tokens = most_tokens.map_or(wanted.context_tokens, |most| most.min(wanted.context_tokens));
        (per_token * tokens + fixed) * u64::from(wanted.conversations)
    };
    let layer_bytes: u64 = layers.clone().map(|layer| model.layer_bytes[layer] + state_bytes(layer)).sum();
    layer_bytes + embedding_bytes + head_bytes + model.base_bytes
}

/// Whether a machine may hold these layers as a stage.
fn allowed(problem: &Problem<'_>, node: usize, layers: &Range<usize>) -> bool {
    let fits = bytes(problem.model, problem.wanted, layers) <= problem.nodes[node].memory_bytes;
    fits && !problem.model.uncut.contains(&layers.start) && !problem.model.uncut.contains(&layers.end)
}

/// The least cost, by trying every order and every split.
fn brute_force(problem: &Problem<'_>, order: &mut Vec<usize>, best: &mut f64) {
    fn splits(problem: &Problem<'_>, order: &[usize], ranges: &mut Vec<Range<usize>>, best: &mut f64) {
        let start = ranges.last().map_or(0, |range| range.end);
        let left = order.len() - ranges.len();
        if left == 0 {
            if start == problem.layers() {
                let stages: f64 = order.iter().zip(&*ranges).map(|(n, r)| problem.stage_us(*n, r)).sum();
                let cost = problem.cost(stages + problem.ring_us(order), problem.slowest_us(order, ranges));
                *best = best.min(cost);
            }
            return;
        }
        for end in start + 1..=problem.layers() {
            let range = start..end;
            if allowed(problem, order[ranges.len()], &range) {
                ranges.push(range);
                splits(problem, order, ranges, best);
                ranges.pop();
            }
        }
    }
    if !order.is_empty() {
        splits(problem, order, &mut Vec::new(), best);
    }
    for node in 0..problem.nodes.len() {
        if !order.contains(&node) {
            order.push(node);
            brute_force(problem, order, best);
            order.pop();
        }
    }
}

fn state() -> impl Strategy<Value = StateBytes> {
    (0u64..8, prop::option::of(0u64..6), 0u64..20).prop_map(|(per_token, most_tokens, fixed)| StateBytes {
        per_token,
        most_tokens,
        fixed,
    })
}

/// Models whose layers differ in weights and states, and which may not be cut everywhere.
fn models() -> impl Strategy<Value = ModelProfile> {
    let layers = prop::collection::vec((1u64..40, state(), prop::bool::weighted(0.3)), 1..7);
    (layers, 0u64..60, 0u64..20).prop_map(|(layers, head_bytes, base_bytes)| ModelProfile {
        layer_bytes: layers.iter().map(|(bytes, ..)| *bytes).collect(),
        unread_bytes: Vec::new(),
        embedding_bytes: 3,
        head_bytes,
        states: layers.iter().map(|(_, state, _)| *state).collect(),
        uncut: (1..layers.len()).filter(|layer| layers[*layer].2).collect(),
        base_bytes,
    })
}

/// Checks a chosen plan against everything that could be chosen.
fn compare(model: &ModelProfile, machines: &[(u64, f64)], links: &[f64], wanted: Use) -> Result<(), TestCaseError> {
    let nodes: Vec<_> = machines.iter().copied().map(node).collect();
    let link = |a: usize, b: usize| LinkProfile { round_trip_us: links[a.min(b) * 4 + a.max(b)], bits_per_s: 1e9 };
    let problem = Problem::new(model, &nodes, &link, wanted);
    let mut best = f64::INFINITY;
    brute_force(&problem, &mut Vec::new(), &mut best);
    let Ok(plan) = choose(model, &nodes, &link, wanted) else {
        prop_assert!(best.is_infinite());
        return Ok(());
    };
    for stage in &plan.stages {
        prop_assert_eq!(stage.bytes(), bytes(model, wanted, &stage.layers));
        prop_assert!(allowed(&problem, stage.machine, &stage.layers), "{:?} of {:?}", stage, model);
    }
    let stages: Vec<_> = plan.stages.iter().map(|stage| (stage.machine, stage.layers.clone())).collect();
    let (order, ranges): (Vec<_>, Vec<_>) = stages.iter().cloned().unzip();
    let token_us = 1e6 / predict(model, &nodes, &link, wanted, &stages).tokens_per_s();
    let cost = problem.cost(token_us, problem.slowest_us(&order, &ranges));
    // Bisection finds the limit on the slowest stage to one part in a million.
    prop_assert!((cost / best - 1.0).abs() <= 1e-6, "{cost} is not {best}");
    Ok(())
}

#[test]
fn a_slow_machine_between_fast_ones_is_planned_as_well_as_can_be() {
    // Found at random, once wrong.
    let machines = [(35, 31_731.708_936_564_41), (10, 1000.0), (114, 86_279.685_186_660_75)];
    let mut links = [10.0; 16];
    links[6] = 4_455.900_147_415_292;
    let state = StateBytes { per_token: 1, most_tokens: None, fixed: 0 };
    let model = ModelProfile {
        layer_bytes: vec![19, 1, 22, 16],
        unread_bytes: Vec::new(),
        embedding_bytes: 3,
        head_bytes: 57,
        states: vec![state; 4],
        uncut: Vec::new(),
        base_bytes: 0,
    };
    compare(&model, &machines, &links, Use { context_tokens: 2, conversations: 2, hidden_bytes: 100 }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn few_machines_are_planned_as_well_as_can_be(
        model in models(),
        machines in prop::collection::vec((10u64..400, 1e3f64..1e5), 1..4),
        links in prop::collection::vec(10f64..5000.0, 16),
        context_tokens in 0u64..8,
        conversations in 1u32..4,
    ) {
        compare(&model, &machines, &links, Use { context_tokens, conversations, hidden_bytes: 100 })?;
    }

    #[test]
    fn more_machines_are_planned_wherever_they_can_be(
        model in models(),
        machines in prop::collection::vec((10u64..150, 1e3f64..1e5), 5),
    ) {
        let nodes: Vec<_> = machines.into_iter().map(node).collect();
        let link = |_: usize, _: usize| LinkProfile { round_trip_us: 600.0, bits_per_s: 1e9 };
        let wanted = Use { context_tokens: 4, conversations: 1, hidden_bytes: 0 };
        let problem = Problem::new(&model, &nodes, &link, wanted);
        let plan = choose(&model, &nodes, &link, wanted);
        prop_assert_eq!(plan.is_ok(), problem.try_all().is_some());
        for stage in plan.iter().flat_map(|plan| &plan.stages) {
            prop_assert!(allowed(&problem, stage.machine, &stage.layers), "{:?} of {:?}", stage, model);
        }
    }

    #[test]
    fn no_plan_is_slower_than_the_best_single_machine(
        model in models(),
        machines in prop::collection::vec((50u64..400, 1e3f64..1e5), 1..12),
        links in prop::collection::vec(10f64..5000.0, 144),
    ) {
        let nodes: Vec<_> = machines.into_iter().map(node).collect();
        let link = |a: usize, b: usize| LinkProfile { round_trip_us: links[a.min(b) * 12 + a.max(b)], bits_per_s: 1e9 };
        let wanted = Use { context_tokens: 4, conversations: 1, hidden_bytes: 0 };
        let problem = Problem::new(&model, &nodes, &link, wanted);
        let alone = (0..nodes.len()).filter_map(|n| problem.place(&[n])).map(|split| split.token_us);
        let alone = alone.min_by(f64::total_cmp);
        let plan = choose(&model, &nodes, &link, wanted);
        if let Some(alone) = alone {
            prop_assert!(plan.unwrap().decode_tokens_per_s.unwrap() >= 1e6 / alone * 0.999_999);
        }
    }
}
