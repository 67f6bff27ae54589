//! Chooses the machines for a model, their order and their layers, to minimize the time per token.
//!
//! A token passes the stages one after the other, so its time is the sum of each stage's weight reads and of the hops
//! between them. One machine that holds everything beats any split, unless others are fast enough to make up for the
//! hops; machines that would slow the swarm down are excluded. Concurrent conversations keep the stages busy in
//! parallel, and then the slowest stage counts as well.
//!
//! With few machines, every order is tried. With many, the search starts from the best single machines and adds one
//! machine at a time.
//! Dynamic programming places the layers of the winning order exactly.

mod arrange;
mod reasons;
mod search;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Form, ModelProfile, Plan, PlanError, PlannedStage, assert_each_layer_once, room_tokens};

pub use arrange::{ArrangeError, arrange};

/// A machine that may hold a stage, and its speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeProfile {
    /// Its name, for people.
    pub name: String,
    /// Bytes of memory it offers, within its owner's limit.
    pub memory_bytes: u64,
    /// Bytes of weights it reads per second during decode.
    pub bytes_per_s: f64,
    /// The form in which it stores models.
    pub form: Form,
}

/// The link between two machines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkProfile {
    /// Round trip in microseconds.
    pub round_trip_us: f64,
    /// Rate in bits per second.
    pub bits_per_s: f64,
}

/// The intended use of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Use {
    /// Context of each conversation in tokens, for which memory is reserved.
    pub context_tokens: u64,
    /// Concurrent conversations.
    pub conversations: u32,
    /// Bytes of one token's hidden states.
    pub hidden_bytes: u64,
}

/// A stage's fixed cost per token besides reading weights, in microseconds: from worker to node, and out to the next.
/// Measured, see docs/performance.md.
pub const STAGE_US: f64 = 380.0;

/// Up to this many machines, every selection and order is tried.
const EXHAUSTIVE: usize = 4;
/// Relative precision of the search for the best limit on the slowest stage.
const CLOSE_ENOUGH: f64 = 1e-6;
/// Beyond that, the search starts from this many single machines.
const SEEDS: usize = 8;
/// How many excluded machines the reasons name.
const EXPLAINED: usize = 3;
/// How many of the orders found by the search are placed exactly.
const PLACED: usize = 4;

/// The plan with the least time per token.
pub fn choose(
    model: &ModelProfile,
    nodes: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    wanted: Use,
) -> Result<Plan, PlanError> {
    if nodes.is_empty() {
        return Err(PlanError::NoStages);
    }
    let problem = Problem::new(model, nodes, link, wanted);
    let best = if nodes.len() <= EXHAUSTIVE { problem.try_all() } else { problem.search() };
    let Some((order, split)) = best else { return Err(problem.does_not_fit()) };
    let stages = problem.stages(&order, &split.ranges);
    assert_each_layer_once(&stages, model.layer_bytes.len());
    let reasons = problem.reasons(&order, &split);
    let room_tokens = room_tokens(model, &stages, |machine| nodes[machine].memory_bytes);
    Ok(Plan { stages, reasons, decode_tokens_per_s: Some(1e6 / split.token_us), room_tokens })
}

/// Time per token of one conversation, in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// Reading the weights, per stage: depends on the machines' speeds.
    pub reading_us: Vec<f64>,
    /// Everything else for one round: links, and each stage's fixed cost.
    pub rest_us: f64,
}

impl Costs {
    /// Tokens per second of one conversation.
    pub fn tokens_per_s(&self) -> f64 {
        1e6 / (self.reading_us.iter().sum::<f64>() + self.rest_us)
    }
}

/// Predicts the costs of stages that are already placed.
pub fn predict(
    model: &ModelProfile,
    nodes: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    wanted: Use,
    stages: &[(usize, Range<usize>)],
) -> Costs {
    let problem = Problem::new(model, nodes, link, wanted);
    let order: Vec<usize> = stages.iter().map(|(node, _)| *node).collect();
    let reading_us = stages.iter().map(|(node, layers)| problem.reading_us(*node, layers)).collect();
    Costs { reading_us, rest_us: problem.ring_us(&order) + STAGE_US * stages.len() as f64 }
}

struct Problem<'a> {
    model: &'a ModelProfile,
    nodes: &'a [NodeProfile],
    /// Time of one hop from each machine to each other, for one token's hidden states, in microseconds.
    hop_us: Vec<Vec<f64>>,
    /// Bytes of all layers before each layer.
    before: Vec<u64>,
    /// The same of the bytes that a token reads.
    read_before: Vec<u64>,
    kv_per_layer: u64,
    wanted: Use,
}

/// The layers for an order of machines.
#[derive(Debug, Clone)]
struct Split {
    ranges: Vec<Range<usize>>,
    /// Time per token of one conversation, in microseconds.
    token_us: f64,
    /// The minimized cost: time per token of all conversations together, in microseconds.
    cost_us: f64,
}

impl<'a> Problem<'a> {
    fn new(
        model: &'a ModelProfile,
        nodes: &'a [NodeProfile],
        link: &dyn Fn(usize, usize) -> LinkProfile,
        wanted: Use,
    ) -> Self {
        let hop = |from: usize, to: usize| {
            if from == to {
                return 0.0;
            }
            let LinkProfile { round_trip_us, bits_per_s } = link(from, to);
            round_trip_us / 2.0 + wanted.hidden_bytes as f64 * 8e6 / bits_per_s.max(1.0)
        };
        let hop_us = (0..nodes.len()).map(|from| (0..nodes.len()).map(|to| hop(from, to)).collect()).collect();
        let mut before = vec![0u64];
        for bytes in &model.layer_bytes {
            before.push(before[before.len() - 1].saturating_add(*bytes));
        }
        let mut read_before = vec![0u64];
        let unread = model.unread_bytes.iter().copied().chain(std::iter::repeat(0));
        for (bytes, unread) in model.layer_bytes.iter().zip(unread) {
            read_before.push(read_before[read_before.len() - 1].saturating_add(bytes.saturating_sub(unread)));
        }
        let tokens = wanted.context_tokens.saturating_mul(u64::from(wanted.conversations.max(1)));
        let kv_per_layer = model.kv_bytes_per_token.saturating_mul(tokens);
        Self { model, nodes, hop_us, before, read_before, kv_per_layer, wanted }
    }

    fn layers(&self) -> usize {
        self.model.layer_bytes.len()
    }

    /// Bytes of a stage's weights.
    fn weight_bytes(&self, layers: &Range<usize>) -> u64 {
        let mut bytes = self.before[layers.end] - self.before[layers.start];
        if layers.start == 0 {
            bytes = bytes.saturating_add(self.model.embedding_bytes);
        }
        if layers.end == self.layers() {
            bytes = bytes.saturating_add(self.model.head_bytes);
        }
        bytes
    }

    /// A stage's time per token, in microseconds. The embedding is looked up, not read.
    fn stage_us(&self, node: usize, layers: &Range<usize>) -> f64 {
        STAGE_US + self.reading_us(node, layers)
    }

    fn reading_us(&self, node: usize, layers: &Range<usize>) -> f64 {
        let mut bytes = self.read_before[layers.end] - self.read_before[layers.start];
        if layers.end == self.layers() {
            bytes = bytes.saturating_add(self.model.head_bytes);
        }
        bytes as f64 * 1e6 / self.nodes[node].bytes_per_s.max(1.0)
    }

    /// Time of one token's hops around the ring, in microseconds.
    fn ring_us(&self, order: &[usize]) -> f64 {
        let there: f64 = order.windows(2).map(|pair| self.hop_us[pair[0]][pair[1]]).sum();
        there + self.hop_us[order[order.len() - 1]][order[0]]
    }

    fn cost(&self, token_us: f64, slowest_us: f64) -> f64 {
        (token_us / f64::from(self.wanted.conversations.max(1))).max(slowest_us)
    }

    /// The optimal layers for an order of machines; `None` if they do not fit.
    fn place(&self, order: &[usize]) -> Option<Split> {
        let unlimited = self.place_within(order, f64::INFINITY)?;
        if self.wanted.conversations <= 1 || order.len() == 1 {
            return Some(unlimited);
        }
        // Lowering the limit on the slowest stage increases the sum; the best cost is where the two meet.
        let (mut low, mut high) = (0.0, self.slowest_us(order, &unlimited.ranges));
        let mut best = unlimited;
        while high - low > high * CLOSE_ENOUGH {
            let limit = f64::midpoint(low, high);
            match self.place_within(order, limit) {
                Some(split) => {
                    let sum_counts = split.token_us / f64::from(self.wanted.conversations) > limit;
                    if split.cost_us < best.cost_us {
                        best = split;
                    }
                    if sum_counts { low = limit } else { high = limit }
                }
                None => low = limit,
            }
        }
        Some(best)
    }

    fn slowest_us(&self, order: &[usize], ranges: &[Range<usize>]) -> f64 {
        order.iter().zip(ranges).map(|(node, range)| self.stage_us(*node, range)).fold(0.0, f64::max)
    }

    /// Minimizes the sum of stage times with no stage above `limit_us`.
    fn place_within(&self, order: &[usize], limit_us: f64) -> Option<Split> {
        let (layers, stages) = (self.layers(), order.len());
        if stages > layers {
            return None;
        }
        // least[s][l]: the first s stages hold the first l layers; from[s][l]: where the s-th begins.
        let mut least = vec![vec![f64::INFINITY; layers + 1]; stages + 1];
        let mut from = vec![vec![0; layers + 1]; stages + 1];
        least[0][0] = 0.0;
        for (stage, &node) in order.iter().enumerate() {
            let left = stages - stage - 1;
            let NodeProfile { memory_bytes, bytes_per_s, .. } = self.nodes[node];
            let us_per_byte = 1e6 / bytes_per_s.max(1.0);
            for end in stage + 1..=layers - left {
                // The last stage, and no other, must end at the last layer.
                if (left == 0) != (end == layers) {
                    continue;
                }
                let head_bytes = if left == 0 { self.model.head_bytes } else { 0 };
                for start in (stage..end).rev() {
                    let layer_bytes = (self.before[end] - self.before[start]).saturating_add(head_bytes);
                    let read_bytes = (self.read_before[end] - self.read_before[start]).saturating_add(head_bytes);
                    let us = STAGE_US + read_bytes as f64 * us_per_byte;
                    let embedding_bytes = if start == 0 { self.model.embedding_bytes } else { 0 };
                    let kv_bytes = self.kv_per_layer.saturating_mul((end - start) as u64);
                    let fixed_bytes = embedding_bytes.saturating_add(self.model.base_bytes);
                    let held_bytes = layer_bytes.saturating_add(fixed_bytes).saturating_add(kv_bytes);
                    // More layers only make it larger and slower.
                    if held_bytes > memory_bytes || us > limit_us {
                        break;
                    }
                    let sum = least[stage][start] + us;
                    if sum < least[stage + 1][end] {
                        least[stage + 1][end] = sum;
                        from[stage + 1][end] = start;
                    }
                }
            }
        }
        if !least[stages][layers].is_finite() {
            return None;
        }
        let (mut ranges, mut end) = (Vec::with_capacity(stages), layers);
        for stage in (1..=stages).rev() {
            ranges.push(from[stage][end]..end);
            end = from[stage][end];
        }
        ranges.reverse();
        let token_us = least[stages][layers] + self.ring_us(order);
        let cost_us = self.cost(token_us, self.slowest_us(order, &ranges));
        Some(Split { ranges, token_us, cost_us })
    }

    fn stages(&self, order: &[usize], ranges: &[Range<usize>]) -> Vec<PlannedStage> {
        let stage = |(machine, layers): (&usize, &Range<usize>)| PlannedStage {
            machine: *machine,
            layers: layers.clone(),
            weight_bytes: self.weight_bytes(layers),
            kv_bytes: self.kv_per_layer.saturating_mul(layers.len() as u64),
            base_bytes: self.model.base_bytes,
        };
        order.iter().zip(ranges).map(stage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(problem: &Problem<'_>, node: usize, layers: &Range<usize>) -> bool {
        let kv = problem.kv_per_layer.saturating_mul(layers.len() as u64);
        let fixed = problem.weight_bytes(layers).saturating_add(problem.model.base_bytes);
        fixed.saturating_add(kv) <= problem.nodes[node].memory_bytes
    }

    const ONE: Use = Use { context_tokens: 0, conversations: 1, hidden_bytes: 0 };

    fn model(layers: usize, bytes: u64, head: u64) -> ModelProfile {
        ModelProfile {
            layer_bytes: vec![bytes; layers],
            unread_bytes: Vec::new(),
            embedding_bytes: 0,
            head_bytes: head,
            kv_bytes_per_token: 1,
            base_bytes: 0,
        }
    }

    fn node(name: &str, memory_bytes: u64, bytes_per_s: f64) -> NodeProfile {
        NodeProfile { name: name.to_owned(), memory_bytes, bytes_per_s, form: Form::Packed }
    }

    fn lan(_: usize, _: usize) -> LinkProfile {
        LinkProfile { round_trip_us: 600.0, bits_per_s: 1e9 }
    }

    #[test]
    fn one_machine_that_holds_it_is_not_slowed_down_by_others() {
        let nodes = [node("Studio", 1000, 1e4), node("Mac mini", 1000, 1e4)];
        let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
        assert_eq!(plan.stages.len(), 1);
        assert!(plan.reasons[1].contains("Mac mini isn't used: it would slow answers by"), "{:?}", plan.reasons);
    }

    #[test]
    fn a_much_faster_machine_takes_what_it_holds() {
        // Ten times as fast, with memory for six of ten layers.
        let nodes = [node("Old", 1000, 1e2), node("New", 60, 1e3)];
        let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
        let new = plan.stages.iter().find(|stage| stage.machine == 1).unwrap();
        assert_eq!(new.layers.len(), 6);
    }

    #[test]
    fn what_fits_in_none_is_split_and_what_fits_nowhere_says_so() {
        let nodes = [node("A", 60, 1e3), node("B", 60, 1e3), node("C", 60, 1e3)];
        let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
        assert_eq!(plan.stages.len(), 2, "two are enough");
        let error = choose(&model(30, 10, 0), &nodes, &lan, ONE).unwrap_err();
        assert_eq!(error, PlanError::TooLarge { needed_bytes: 300, given_bytes: 180, machines: 3 });
        let large = |machines| PlanError::TooLarge { needed_bytes: 316_000_000, given_bytes: 268_900_000, machines };
        let words = "this model needs 316 MB with one conversation, but 1 machine shares 268 MB; add a machine or raise a \
                     memory limit";
        assert_eq!(large(1).to_string(), words);
        assert!(large(2).to_string().contains("but 2 machines share 268 MB;"));
    }

    #[test]
    fn experts_that_a_token_does_not_pick_take_memory_and_no_time() {
        let dense = model(10, 10, 0);
        let sparse = ModelProfile { unread_bytes: vec![9; 10], ..dense.clone() };
        // Neither machine holds it alone, whatever a token reads.
        let nodes = [node("A", 60, 1e3), node("B", 60, 1e3)];
        let stages = |model: &ModelProfile| choose(model, &nodes, &lan, ONE).unwrap().stages.len();
        assert_eq!([stages(&dense), stages(&sparse)], [2, 2]);
        // One that holds it is not helped by a machine ten times as fast that is far away: there is little to read.
        let nodes = [node("Here", 1000, 1e3), node("Far", 60, 1e4)];
        let far = |from: usize, to: usize| LinkProfile {
            round_trip_us: if from == to { 0.0 } else { 30_000.0 },
            bits_per_s: 1e9,
        };
        let stages = |model: &ModelProfile| choose(model, &nodes, &far, ONE).unwrap().stages.len();
        assert_eq!([stages(&dense), stages(&sparse)], [2, 1]);
        let reading = |model: &ModelProfile| predict(model, &nodes, &far, ONE, &[(0, 0..10)]).reading_us[0];
        assert_eq!(reading(&dense) / reading(&sparse), 10.0);
    }

    #[test]
    fn several_conversations_even_out_the_stages() {
        let nodes = [node("A", 90, 1e3), node("B", 90, 1e3)];
        let many = Use { conversations: 4, ..ONE };
        let plan = choose(&model(10, 10, 0), &nodes, &lan, many).unwrap();
        let sizes: Vec<_> = plan.stages.iter().map(|stage| stage.layers.len()).collect();
        assert_eq!(sizes, [5, 5]);
    }

    #[test]
    fn the_slow_link_is_avoided() {
        // Three machines are needed; A and C have a slow link.
        let nodes = [node("A", 40, 1e3), node("B", 40, 1e3), node("C", 40, 1e3), node("D", 40, 1e3)];
        let link = |a: usize, b: usize| LinkProfile {
            round_trip_us: if a == 3 || b == 3 { 1e6 } else { 100.0 },
            bits_per_s: 1e9,
        };
        let plan = choose(&model(10, 10, 0), &nodes, &link, ONE).unwrap();
        assert!(plan.stages.iter().all(|stage| stage.machine != 3), "{:?}", plan.stages);
    }

    /// The least cost, by trying every order and every split.
    fn brute_force(problem: &Problem, order: &mut Vec<usize>, best: &mut f64) {
        fn splits(problem: &Problem, order: &[usize], ranges: &mut Vec<Range<usize>>, best: &mut f64) {
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
                if fits(problem, order[ranges.len()], &range) {
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn few_machines_are_planned_as_well_as_can_be(
            layer_bytes in prop::collection::vec(1u64..40, 1..6),
            head_bytes in 0u64..60,
            machines in prop::collection::vec((10u64..200, 1e3f64..1e5), 1..4),
            links in prop::collection::vec(10f64..5000.0, 16),
            conversations in 1u32..4,
            base_bytes in 0u64..20,
        ) {
            let model = ModelProfile {
                layer_bytes,
                unread_bytes: Vec::new(),
                embedding_bytes: 3,
                head_bytes,
                kv_bytes_per_token: 1,
                base_bytes,
            };
            let nodes: Vec<_> = machines.iter().map(|(memory, speed)| node("n", *memory, *speed)).collect();
            let link = |a: usize, b: usize| LinkProfile { round_trip_us: links[a.min(b) * 4 + a.max(b)], bits_per_s: 1e9 };
            let wanted = Use { context_tokens: 2, conversations, hidden_bytes: 100 };
            let problem = Problem::new(&model, &nodes, &link, wanted);
            let mut best = f64::INFINITY;
            brute_force(&problem, &mut Vec::new(), &mut best);
            match problem.try_all() {
                // Bisection finds the limit on the slowest stage to one part in a million.
                Some((_, split)) => prop_assert!(split.cost_us <= best * (1.0 + 1e-6), "{} > {best}", split.cost_us),
                None => prop_assert!(best.is_infinite()),
            }
        }

        #[test]
        fn no_plan_is_slower_than_the_best_single_machine(
            machines in prop::collection::vec((50u64..400, 1e3f64..1e5), 1..12),
            links in prop::collection::vec(10f64..5000.0, 144),
        ) {
            let model = model(12, 10, 20);
            let nodes: Vec<_> = machines.iter().map(|(memory, speed)| node("n", *memory, *speed)).collect();
            let link = |a: usize, b: usize| LinkProfile { round_trip_us: links[a.min(b) * 12 + a.max(b)], bits_per_s: 1e9 };
            let problem = Problem::new(&model, &nodes, &link, ONE);
            let alone = (0..nodes.len()).filter_map(|n| problem.place(&[n])).map(|split| split.token_us);
            let alone = alone.min_by(f64::total_cmp);
            let plan = choose(&model, &nodes, &link, ONE);
            if let Some(alone) = alone {
                prop_assert!(plan.unwrap().decode_tokens_per_s.unwrap() >= 1e6 / alone * 0.999_999);
            }
        }
    }
}
