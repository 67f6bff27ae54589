//! Circles in a graph of arrows.

use std::collections::{BTreeSet, VecDeque};

/// Things that reach each other, and a shortest way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Circle {
    /// All of them.
    pub(crate) members: BTreeSet<usize>,
    /// A shortest way from one of them back to it; the first is not repeated at the end.
    pub(crate) way: Vec<usize>,
}

/// Every circle among this many things.
pub(crate) fn circles(count: usize, arrows: &BTreeSet<(usize, usize)>) -> Vec<Circle> {
    let next: Vec<Vec<usize>> =
        (0..count).map(|from| arrows.range((from, 0)..(from + 1, 0)).map(|(_, to)| *to).collect()).collect();
    let reaches: Vec<BTreeSet<usize>> = (0..count).map(|from| reached(&next, from)).collect();
    let mut found: Vec<Circle> = Vec::new();
    for from in (0..count).filter(|from| reaches[*from].contains(from)) {
        if !found.iter().any(|circle| circle.members.contains(&from)) {
            let members: BTreeSet<usize> =
                reaches[from].iter().copied().filter(|to| reaches[*to].contains(&from)).collect();
            let way = members.iter().map(|from| way_round(&next, *from)).min_by_key(Vec::len).unwrap_or_default();
            found.push(Circle { members, way });
        }
    }
    found
}

/// What can be reached by one arrow or more.
fn reached(next: &[Vec<usize>], from: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(here) = open.pop() {
        open.extend(next[here].iter().copied().filter(|to| found.insert(*to)));
    }
    found
}

/// A shortest way back to `from`, which is on a circle.
fn way_round(next: &[Vec<usize>], from: usize) -> Vec<usize> {
    let (mut seen, mut open) = (BTreeSet::new(), VecDeque::from([vec![from]]));
    while let Some(way) = open.pop_front() {
        for to in &next[*way.last().expect("it begins with one")] {
            if *to == from {
                return way;
            }
            if seen.insert(*to) {
                open.push_back([&way[..], &[*to]].concat());
            }
        }
    }
    Vec::new()
}
