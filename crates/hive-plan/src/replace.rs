//! Chooses a replacement machine for a lost stage.

/// A candidate machine.
#[allow(clippy::struct_excessive_bools, reason = "independent facts about a machine")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Bytes of memory it offers.
    pub memory_bytes: u64,
    /// Bytes of weights it reads per second.
    pub bytes_per_s: f64,
    /// Whether the stage was on it, and only its worker died.
    pub holds_it_now: bool,
    /// Whether it holds another stage of the same model.
    pub holds_another: bool,
    /// Whether stages keep failing there.
    pub failed: bool,
    /// Whether it has the model on its disk, or parts of it. Any other would have to fetch the stage first.
    pub has_copy: bool,
}

/// The choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// The machine at this index takes the stage.
    By(usize),
    /// No machine has room.
    NoRoom {
        /// Bytes that the machine with the most memory offers.
        most_bytes: u64,
    },
}

/// Speeds within this ratio count as equal.
const ALIKE: f64 = 0.8;

/// Prefers the stage's own machine if only its worker died; then machines that have the model, among these the fastest
/// with room, and among equals one without another stage. A machine where stages keep failing comes last.
pub fn replace(needed_bytes: u64, candidates: &[Candidate]) -> Replacement {
    let fits = |candidate: &(usize, &Candidate)| candidate.1.memory_bytes >= needed_bytes;
    let mut fitting: Vec<_> = candidates.iter().enumerate().filter(fits).collect();
    let is_ready = |(_, candidate): &(usize, &Candidate)| candidate.has_copy && !candidate.failed;
    if fitting.iter().any(is_ready) {
        fitting.retain(is_ready);
    }
    let fastest = fitting.iter().map(|(_, candidate)| candidate.bytes_per_s).fold(0.0, f64::max);
    let rank = |candidate: &Candidate| {
        let fast = candidate.bytes_per_s >= fastest * ALIKE;
        (!candidate.failed, candidate.holds_it_now, fast, !candidate.holds_another)
    };
    let best = fitting.iter().max_by(|(at, a), (bt, b)| {
        let speeds = || a.bytes_per_s.total_cmp(&b.bytes_per_s);
        // The first of equals wins.
        rank(a).cmp(&rank(b)).then_with(speeds).then_with(|| bt.cmp(at))
    });
    match best {
        Some((place, _)) => Replacement::By(*place),
        None => Replacement::NoRoom {
            most_bytes: candidates.iter().map(|candidate| candidate.memory_bytes).max().unwrap_or(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(memory_bytes: u64, bytes_per_s: f64) -> Candidate {
        Candidate {
            memory_bytes,
            bytes_per_s,
            holds_it_now: false,
            holds_another: false,
            failed: false,
            has_copy: true,
        }
    }

    #[test]
    fn the_fastest_with_room_takes_over_and_a_free_one_before_a_busy_one() {
        assert_eq!(replace(10, &[machine(20, 1.0), machine(5, 9.0), machine(10, 2.0)]), Replacement::By(2));
        let busy = Candidate { holds_another: true, ..machine(20, 2.1) };
        assert_eq!(replace(10, &[busy, machine(20, 2.0)]), Replacement::By(1));
        assert_eq!(replace(10, &[busy, machine(20, 1.0)]), Replacement::By(0));
    }

    #[test]
    fn nobody_waits_for_a_download_where_another_machine_has_the_model() {
        let without = Candidate { has_copy: false, ..machine(20, 9.0) };
        assert_eq!(replace(10, &[without, machine(20, 0.1)]), Replacement::By(1));
        assert_eq!(replace(10, &[without, machine(5, 0.1)]), Replacement::By(0));
        let failing = Candidate { failed: true, ..machine(20, 9.0) };
        assert_eq!(replace(10, &[failing, without]), Replacement::By(1));
        // Among those that have it, the slow one is not rated against one that does not.
        let laden = Candidate { holds_another: true, ..machine(20, 1.1) };
        assert_eq!(replace(10, &[without, laden, machine(20, 1.0)]), Replacement::By(2));
    }

    #[test]
    fn a_dead_worker_is_started_again_where_it_was_unless_it_keeps_dying() {
        let here = Candidate { holds_it_now: true, ..machine(20, 1.0) };
        assert_eq!(replace(10, &[machine(20, 9.0), here]), Replacement::By(1));
        let dying = Candidate { failed: true, ..here };
        assert_eq!(replace(10, &[machine(20, 0.1), dying]), Replacement::By(0));
        assert_eq!(replace(10, &[machine(5, 9.0), dying]), Replacement::By(1));
    }

    #[test]
    fn no_room_says_how_much_there_is() {
        assert_eq!(replace(10, &[machine(3, 1.0), machine(7, 1.0)]), Replacement::NoRoom { most_bytes: 7 });
        assert_eq!(replace(10, &[]), Replacement::NoRoom { most_bytes: 0 });
    }
}
