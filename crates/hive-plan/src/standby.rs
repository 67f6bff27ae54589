//! Chooses machines for standby replicas of stages, in memory that nothing else needs.

use std::cmp::Reverse;

/// A machine that may hold replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spare {
    /// Bytes of memory it offers beyond what it holds.
    pub memory_bytes: u64,
    /// Bytes of weights it reads per second.
    pub bytes_per_s: f64,
    /// Whether it holds a stage of the model.
    pub holds_one: bool,
}

/// For each stage (bytes, and the index of its machine), the machine for its replica.
///
/// A replica is on another machine than its stage. The largest stages, which take longest to load, come first; replicas
/// are spread over the machines, those without a stage first, so that no machine has to compute most of the model when
/// several leave.
pub fn standby(stages: &[(u64, usize)], machines: &[Spare]) -> Vec<Option<usize>> {
    let mut copies = vec![None; stages.len()];
    let mut left: Vec<_> = machines.iter().map(|machine| machine.memory_bytes).collect();
    let mut kept = vec![0; machines.len()];
    let mut order: Vec<_> = (0..stages.len()).collect();
    order.sort_by_key(|stage| Reverse(stages[*stage].0));
    for stage in order {
        let (bytes, holder) = stages[stage];
        let fits = |machine: &usize| *machine != holder && left[*machine] >= bytes;
        let best = (0..machines.len()).filter(fits).min_by(|a, b| {
            let speeds = machines[*b].bytes_per_s.total_cmp(&machines[*a].bytes_per_s);
            let load = |machine: usize| kept[machine] + usize::from(machines[machine].holds_one);
            load(*a).cmp(&load(*b)).then(speeds)
        });
        if let Some(machine) = best {
            left[machine] -= bytes;
            kept[machine] += 1;
            copies[stage] = Some(machine);
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARE: Spare = Spare { memory_bytes: 100, bytes_per_s: 1.0, holds_one: false };

    #[test]
    fn a_copy_is_on_another_machine_and_copies_are_spread() {
        let fast = Spare { bytes_per_s: 2.0, ..SPARE };
        assert_eq!(standby(&[(10, 0), (10, 1)], &[SPARE, SPARE]), [Some(1), Some(0)]);
        assert_eq!(standby(&[(10, 0), (10, 0)], &[SPARE, SPARE, fast]), [Some(2), Some(1)]);
        let busy = Spare { holds_one: true, ..fast };
        assert_eq!(standby(&[(10, 0)], &[SPARE, busy, SPARE]), [Some(2)]);
        assert_eq!(standby(&[(10, 0)], &[SPARE]), [None]);
    }

    #[test]
    fn only_spare_memory_is_used_and_the_largest_stage_comes_first() {
        let small = Spare { memory_bytes: 20, ..SPARE };
        assert_eq!(standby(&[(5, 0), (18, 0)], &[SPARE, small]), [None, Some(1)]);
        assert_eq!(standby(&[(5, 0), (15, 0)], &[SPARE, small]), [Some(1), Some(1)]);
        assert_eq!(standby(&[(30, 0)], &[SPARE, small]), [None]);
    }
}
