//! Explains a plan.

use hive_types::Reason;

use super::{EXPLAINED, Problem, STAGE_US, Split};
use crate::{PlanError, PlannedStage};

impl Problem<'_> {
    pub(super) fn does_not_fit(&self) -> PlanError {
        let needed_bytes = self.stage(0, 0..self.layers()).bytes();
        let given_bytes = self.nodes.iter().fold(0u64, |sum, node| sum.saturating_add(node.memory_bytes));
        let most_bytes = self.nodes.iter().map(|node| node.memory_bytes).max().unwrap_or(0);
        let uncut = (1..self.cuts.len()).map(|end| self.parts(&(end - 1..end))).filter(|layers| layers.len() > 1);
        // Which machine is asked about makes no difference to a stage's bytes.
        let largest = uncut.map(|layers| self.stage(0, layers)).max_by_key(PlannedStage::bytes);
        match largest {
            Some(stage) if needed_bytes <= given_bytes && stage.bytes() > most_bytes => {
                PlanError::UncutTooLarge { needed_bytes: stage.bytes(), layers: stage.layers, most_bytes }
            }
            _ => PlanError::TooLarge { needed_bytes, given_bytes, machines: self.nodes.len() },
        }
    }

    pub(super) fn reasons(&self, order: &[usize], split: &Split) -> Vec<Reason> {
        let speed = |us: f64| 1e6 / us;
        let name = |node: usize| self.nodes[node].name.clone();
        let tokens_per_s = speed(split.token_us);
        let mut reasons = Vec::new();
        if let [only] = order {
            reasons.push(Reason::FitsAlone { machine: name(*only), tokens_per_s });
        } else {
            let hops = self.ring_us(order) + STAGE_US * order.len() as f64;
            let network_percent = 100.0 * hops / split.token_us;
            reasons.push(Reason::Split { machines: order.len(), tokens_per_s, network_percent });
            let alone = (0..self.nodes.len()).find(|&node| self.place(&[node]).is_some());
            reasons.push(match alone {
                Some(node) => Reason::SlowerAlone { machine: name(node) },
                None => Reason::TooBigForOne,
            });
        }
        // Excluded machines by cost: people ask first about the ones that were nearly used.
        let mut near: Vec<(usize, Vec<usize>)> = (0..self.nodes.len())
            .filter(|node| !order.contains(node))
            .map(|node| (node, self.with_one_more(order, node)))
            .collect();
        near.sort_by(|(_, a), (_, b)| self.estimate(a).total_cmp(&self.estimate(b)));
        near.truncate(EXPLAINED);
        let cost = |(node, order): (usize, Vec<usize>)| {
            let with = self.place(&order)?;
            Some((node, tokens_per_s - speed(with.token_us)))
        };
        let mut left_out: Vec<(usize, f64)> = near.into_iter().filter_map(cost).collect();
        left_out.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let slowing = left_out.into_iter().filter(|(_, cost)| *cost > 0.0);
        reasons.extend(slowing.map(|(node, cost)| Reason::WouldSlow { machine: name(node), tokens_per_s: cost }));
        reasons
    }
}
