//! Searches for the machines and their order: every order of few machines, else growing from the best single ones.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::model::Sums;

use super::{PLACED, Problem, SEEDS, STAGE_US, Split, TRIED};

impl Problem<'_> {
    /// Tries every selection and order of machines.
    pub(super) fn try_all(&self) -> Option<(Vec<usize>, Split)> {
        let mut best: Option<(Vec<usize>, Split)> = None;
        // Fewer machines first, then in list order: the first of equals wins.
        let mut waiting: VecDeque<Vec<usize>> = (0..self.nodes.len()).map(|node| vec![node]).collect();
        while let Some(order) = waiting.pop_front() {
            if let Some(split) = self.place(&order)
                && best.as_ref().is_none_or(|(_, known)| split.cost_us < known.cost_us)
            {
                best = Some((order.clone(), split));
            }
            for node in 0..self.nodes.len() {
                if !order.contains(&node) {
                    waiting.push_back(order.iter().copied().chain([node]).collect());
                }
            }
        }
        best
    }

    /// Grows from the best single machines, one at a time, and places the most promising orders exactly.
    pub(super) fn search(&self) -> Option<(Vec<usize>, Split)> {
        let mut seeds: Vec<usize> = (0..self.nodes.len()).collect();
        seeds.sort_by(|a, b| self.estimate(&[*a]).total_cmp(&self.estimate(&[*b])));
        let mut found: Vec<Vec<usize>> = Vec::new();
        for &seed in seeds.iter().take(SEEDS) {
            let mut order = vec![seed];
            let mut cost = self.estimate(&order);
            found.push(order.clone());
            while let Some((next, next_cost)) = self.grown(&order) {
                // Grow until the model fits; after that, only for a gain.
                if next_cost >= cost {
                    break;
                }
                (order, cost) = (next, next_cost);
            }
            found.push(order);
        }
        found.sort_by(|a, b| self.estimate(a).total_cmp(&self.estimate(b)));
        found.dedup();
        // Estimates of several machines may promise too much: each single one is placed as well.
        let alone = (0..self.nodes.len()).map(|node| vec![node]);
        let placed = found.into_iter().take(PLACED).chain(alone).filter_map(|order| {
            let split = self.place(&order)?;
            Some((order, split))
        });
        placed.min_by(|(_, a), (_, b)| a.cost_us.total_cmp(&b.cost_us)).or_else(|| {
            let order = self.fewest()?;
            let split = self.place(&order)?;
            Some((order, split))
        })
    }

    /// The fewest machines that hold the model, and their order, of the [`TRIED`] with the most memory. The estimates
    /// may miss all orders that fit, as they take the layers to be alike; this misses none.
    fn fewest(&self) -> Option<Vec<usize>> {
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        nodes.sort_by_key(|node| Reverse(self.nodes[*node].memory_bytes));
        nodes.truncate(TRIED);
        let parts = self.cuts.len() - 1;
        // For each set of machines, a bit for each: how many parts, from the first on, they can hold, and which is
        // last. Where the others hold as many as they can, the last one gets furthest.
        let mut most: Vec<(usize, usize)> = vec![(0, 0)];
        for set in 1usize..1 << nodes.len() {
            let members = (0..nodes.len()).filter(|member| set & 1 << member != 0);
            let with_last = members.map(|last| {
                let (start, _) = most[set & !(1 << last)];
                let fits = |end: &usize| self.fits(nodes[last], self.parts(&(start..*end)));
                ((start + 1..=parts).take_while(fits).last().unwrap_or(start), last)
            });
            most.push(with_last.max().unwrap_or_default());
        }
        let complete = (1..most.len()).filter(|set| most[*set].0 == parts);
        let mut set = complete.min_by_key(|set| set.count_ones())?;
        let mut order = Vec::new();
        while set != 0 {
            let (_, last) = most[set];
            order.push(nodes[last]);
            set &= !(1 << last);
        }
        order.reverse();
        Some(order)
    }

    /// The best order with one more machine, by estimate.
    pub(super) fn grown(&self, order: &[usize]) -> Option<(Vec<usize>, f64)> {
        let unused = (0..self.nodes.len()).filter(|node| !order.contains(node));
        let with = unused.map(|node| {
            let order = self.with_one_more(order, node);
            let cost = self.estimate(&order);
            (order, cost)
        });
        with.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Inserts a machine where it lengthens the round least.
    pub(super) fn with_one_more(&self, order: &[usize], node: usize) -> Vec<usize> {
        let detour = |at: usize| {
            let (before, after) = (order[at - 1], order[at % order.len()]);
            self.hop_us[before][node] + self.hop_us[node][after] - self.hop_us[before][after]
        };
        let at = (1..=order.len()).min_by(|a, b| detour(*a).total_cmp(&detour(*b)));
        let mut order = order.to_vec();
        order.insert(at.unwrap_or(order.len()), node);
        order
    }

    /// Estimates the cost of an order as if all layers were alike: the fastest machines are filled first. What does not
    /// fit costs more than anything else, in proportion.
    pub(super) fn estimate(&self, order: &[usize]) -> f64 {
        const DOES_NOT_FIT_US: f64 = 1e12;
        let layers = self.layers();
        if order.len() >= self.cuts.len() {
            return f64::INFINITY;
        }
        let of_one = |sums: &Sums| sums.over(&(0..layers)) as f64 / layers as f64;
        let read_bytes = of_one(&self.read);
        let each = of_one(&self.weights) + of_one(&self.states);
        let room = |place: usize| {
            let fixed = self.model.base_bytes
                + if place == 0 { self.model.embedding_bytes } else { 0 }
                + if place + 1 == order.len() { self.model.head_bytes } else { 0 };
            let left = self.nodes[order[place]].memory_bytes.saturating_sub(fixed) as f64;
            (left / each.max(1.0)).floor().min(layers as f64) as usize
        };
        let rooms: Vec<usize> = (0..order.len()).map(room).collect();
        let capacity: usize = rooms.iter().sum();
        if capacity < layers || rooms.contains(&0) {
            let missing = layers.saturating_sub(capacity) + rooms.iter().filter(|room| **room == 0).count();
            return DOES_NOT_FIT_US * (1 + missing) as f64;
        }
        let mut places: Vec<usize> = (0..order.len()).collect();
        places.sort_by(|a, b| self.nodes[order[*b]].bytes_per_s.total_cmp(&self.nodes[order[*a]].bytes_per_s));
        let mut left = layers - order.len();
        let (mut sum, mut slowest) = (self.ring_us(order), 0.0f64);
        for place in places {
            let more = left.min(rooms[place] - 1);
            left -= more;
            let head = if place + 1 == order.len() { self.model.head_bytes as f64 } else { 0.0 };
            let bytes = (1 + more) as f64 * read_bytes + head;
            let us = STAGE_US + bytes * 1e6 / self.nodes[order[place]].bytes_per_s.max(1.0);
            sum += us;
            slowest = slowest.max(us);
        }
        self.cost(sum, slowest)
    }
}
