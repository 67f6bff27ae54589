//! Chooses the machines for a model, their order and their layers, to minimize the time per token.
//!
//! A token passes the stages one after the other, so its time is the sum of each stage's weight reads and of the hops
//! between them. One machine that holds everything beats any split, unless others are fast enough to make up for the
//! hops; machines that would slow the swarm down are excluded. Concurrent conversations keep the stages busy in
//! parallel, and then the slowest stage counts as well.
//!
//! With few machines, every order is tried. With many, the search starts from the best single machines and adds one
//! machine at a time, by estimates that take all layers to be alike. If nothing that it finds fits, the fewest machines
//! that hold the model are taken.
//! Dynamic programming places the layers of the winning order exactly, and cuts only where the model may be cut.

mod arrange;
mod reasons;
mod search;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::Sums;
use crate::room::{own_tokens, room_tokens};
use crate::{Form, ModelProfile, Plan, PlanError, PlannedStage, assert_each_layer_once};

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
const STAGE_US: f64 = 380.0;

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
/// If none of them fits, every selection of this many machines is tried: four thousand.
const TRIED: usize = 12;

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
    let memory_bytes = |machine: usize| nodes[machine].memory_bytes;
    let room_tokens = room_tokens(model, &stages, memory_bytes);
    let own_tokens = own_tokens(model, &stages, memory_bytes, room_tokens);
    Ok(Plan { stages, reasons, decode_tokens_per_s: Some(1e6 / split.token_us), room_tokens, own_tokens })
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
    /// Where a stage may begin or end.
    cuts: Vec<usize>,
    /// Bytes of the layers' weights.
    weights: Sums,
    /// Those of them that a token reads.
    read: Sums,
    /// Bytes of the layers' states, for all conversations.
    states: Sums,
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
        let layers = || model.layer_bytes.iter().copied();
        let unread = model.unread_bytes.iter().copied().chain(std::iter::repeat(0));
        Self {
            model,
            nodes,
            hop_us,
            cuts: model.cuts(),
            weights: Sums::of(layers()),
            read: Sums::of(layers().zip(unread).map(|(bytes, unread)| bytes.saturating_sub(unread))),
            states: model.state_sums(wanted.context_tokens, u64::from(wanted.conversations.max(1))),
            wanted,
        }
    }

    fn layers(&self) -> usize {
        self.model.layer_bytes.len()
    }

    /// The layers of these parts, each between two cuts; mostly a single layer.
    fn parts(&self, parts: &Range<usize>) -> Range<usize> {
        self.cuts[parts.start]..self.cuts[parts.end]
    }

    fn fits(&self, node: usize, layers: Range<usize>) -> bool {
        self.stage(node, layers).bytes() <= self.nodes[node].memory_bytes
    }

    /// The stage of these layers on a machine.
    fn stage(&self, machine: usize, layers: Range<usize>) -> PlannedStage {
        PlannedStage {
            machine,
            weight_bytes: self.model.weight_bytes(&self.weights, &layers),
            kv_bytes: self.states.over(&layers),
            base_bytes: self.model.base_bytes,
            layers,
        }
    }

    /// A stage's time per token, in microseconds. The embedding is looked up, not read.
    fn stage_us(&self, node: usize, layers: &Range<usize>) -> f64 {
        STAGE_US + self.reading_us(node, layers)
    }

    fn reading_us(&self, node: usize, layers: &Range<usize>) -> f64 {
        let head_bytes = if layers.end == self.layers() { self.model.head_bytes } else { 0 };
        self.read.over(layers).saturating_add(head_bytes) as f64 * 1e6 / self.nodes[node].bytes_per_s.max(1.0)
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
        let (parts, stages) = (self.cuts.len() - 1, order.len());
        if stages > parts {
            return None;
        }
        // least[p]: least time of the first p parts on the stages so far; from[s][p]: where the last of s then begins.
        let mut least = vec![f64::INFINITY; parts + 1];
        let mut from = vec![vec![0; parts + 1]; stages + 1];
        least[0] = 0.0;
        for (stage, &node) in order.iter().enumerate() {
            let left = stages - stage - 1;
            let us_per_byte = 1e6 / self.nodes[node].bytes_per_s.max(1.0);
            let latest = least.iter().rposition(|us| us.is_finite())?;
            let (mut earliest, mut next) = (stage, vec![f64::INFINITY; parts + 1]);
            for end in stage + 1..=parts - left {
                // The last stage, and no other, must end at the last layer.
                if (left == 0) != (end == parts) {
                    continue;
                }
                let head_bytes = if left == 0 { self.model.head_bytes } else { 0 };
                let us = |start: usize| {
                    let read_bytes = self.read.over(&self.parts(&(start..end))).saturating_add(head_bytes);
                    STAGE_US + read_bytes as f64 * us_per_byte
                };
                let fits = |start: usize| self.fits(node, self.parts(&(start..end))) && us(start) <= limit_us;
                // More layers only make it larger and slower: with a later end, it begins no earlier.
                while earliest < end && !fits(earliest) {
                    earliest += 1;
                }
                if earliest > latest {
                    break;
                }
                for start in (earliest..end.min(latest + 1)).rev() {
                    let sum = least[start] + us(start);
                    if sum < next[end] {
                        next[end] = sum;
                        from[stage + 1][end] = start;
                    }
                }
            }
            least = next;
        }
        if !least[parts].is_finite() {
            return None;
        }
        let (mut ranges, mut end) = (Vec::with_capacity(stages), parts);
        for stage in (1..=stages).rev() {
            let start = from[stage][end];
            ranges.push(self.parts(&(start..end)));
            end = start;
        }
        ranges.reverse();
        let token_us = least[parts] + self.ring_us(order);
        let cost_us = self.cost(token_us, self.slowest_us(order, &ranges));
        Some(Split { ranges, token_us, cost_us })
    }

    fn stages(&self, order: &[usize], ranges: &[Range<usize>]) -> Vec<PlannedStage> {
        order.iter().zip(ranges).map(|(machine, layers)| self.stage(*machine, layers.clone())).collect()
    }
}

#[cfg(test)]
mod optimal;
#[cfg(test)]
mod tests;
