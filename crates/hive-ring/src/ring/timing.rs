//! The silence limit: how long an answer may hear nothing before the stages are checked. Pure.
//!
//! Silence alone is no reason to replace a stage; it only leads to a check of each stage's pulse. A stage may be silent
//! for a multiple of the time that its owed rows should take, because the machine may be under load.

use std::time::Duration;

use hive_plan::Costs;

use hive_protocol::{Arithmetic, Pulse};

/// A machine may take this many times as long as planned: load, heat, a shared link.
const TIMES_EXPECTED: u32 = 8;
/// Shorter silences are normal on machines that people work on.
const LEAST: Duration = Duration::from_secs(3);
/// On a GPU, a batch of a new shape may wait until a kernel is compiled.
const LEAST_GPU: Duration = Duration::from_secs(10);
/// The first batches of a stage wait until its weights are paged in, and on a GPU until most of its kernels are
/// compiled.
const LEAST_COLD: Duration = Duration::from_secs(15);
const LEAST_COLD_GPU: Duration = Duration::from_mins(1);
/// Whatever the plan says, the stages are checked after this time.
const MOST: Duration = Duration::from_mins(10);

/// Assumed for a stage about which nothing is known.
const ASSUMED_TOKEN_S: f64 = 0.25;
const ASSUMED_ROW_S: f64 = 0.01;
/// Rows of a prompt that take as long as a token, on a machine that has not measured them.
const ROWS_A_TOKEN: f64 = 2.0;

/// How long a silence may last while something is awaited that should take `expected`.
pub(crate) fn silence_limit(expected: Duration) -> Duration {
    within(expected, LEAST)
}

fn within(expected: Duration, least: Duration) -> Duration {
    expected.saturating_mul(TIMES_EXPECTED).clamp(least, MOST)
}

/// The time that stages should take, as planned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    stages: Vec<StageTimes>,
    /// The rest of a token's time around the ring.
    rest_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct StageTimes {
    token_s: f64,
    row_s: f64,
}

impl Expected {
    /// For stages about which nothing is known.
    pub(crate) fn unknown(stages: usize) -> Self {
        Self { stages: vec![StageTimes { token_s: ASSUMED_TOKEN_S, row_s: ASSUMED_ROW_S }; stages], rest_s: 0.0 }
    }

    /// From the plan's costs, and the rows of a prompt that each stage computes per second, where its machine has
    /// measured it.
    pub(crate) fn new(costs: &Costs, rows_per_s: &[Option<f64>]) -> Self {
        let stage = |(reading_us, rows_per_s): (&f64, &Option<f64>)| {
            let token_s = reading_us / 1e6;
            StageTimes { token_s, row_s: rows_per_s.map_or(token_s / ROWS_A_TOKEN, |rows_per_s| 1.0 / rows_per_s) }
        };
        Self { stages: costs.reading_us.iter().zip(rows_per_s).map(stage).collect(), rest_s: costs.rest_us / 1e6 }
    }

    /// From one token to the next.
    pub(crate) fn token(&self) -> Duration {
        seconds(self.stages.iter().map(|stage| stage.token_s).sum::<f64>() + self.rest_s)
    }

    /// Until a chunk of a prompt has passed all stages.
    pub(crate) fn chunk(&self, rows: usize) -> Duration {
        let sum: f64 = self.stages.iter().map(|stage| stage.row_s).sum();
        seconds(rows as f64 * sum) + self.token()
    }

    /// Until a stage has computed this many rows.
    fn stage(&self, index: usize, rows: u32) -> Duration {
        self.stages.get(index).map_or(Duration::ZERO, |stage| seconds(stage.token_s + f64::from(rows) * stage.row_s))
    }

    /// Judges the pulse of a stage; `is_cold` until the stages have computed a token together.
    pub(crate) fn judge(&self, index: usize, pulse: &Pulse, is_cold: bool) -> Finding {
        if pulse.held_up {
            return Finding::HeldUp;
        }
        let least = match (pulse.arithmetic, is_cold) {
            (Arithmetic::Gpu, true) => LEAST_COLD_GPU,
            (Arithmetic::Gpu, false) => LEAST_GPU,
            (_, true) => LEAST_COLD,
            (_, false) => LEAST,
        };
        let quiet = Duration::from_millis(pulse.quiet_ms);
        if quiet > within(self.stage(index, pulse.owed_rows), least) {
            Finding::Hung(quiet)
        } else if pulse.passed && pulse.owed_rows == 0 {
            Finding::Idle
        } else {
            Finding::Working
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(MOST)
}

/// The state of a stage, from its pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is computing its input, or is about to.
    Working,
    /// It has computed all of its input.
    Idle,
    /// It waits until the next machine takes its output.
    HeldUp,
    /// It has owed output for this long, which is too long.
    Hung(Duration),
}

/// The stage that blocks a session while all are healthy and idle. `next` is the position that each stage says it
/// expects next; prompt and answer have `known` tokens. Either the last stage that has them all sends nothing, or the
/// one after it denies its input. `suspected` are the stages already replaced for this.
pub(crate) fn suspect(next: &[u32], known: u32, suspected: &[usize]) -> usize {
    let lacks = next.iter().position(|next| *next < known).unwrap_or(next.len());
    let holds = lacks.saturating_sub(1);
    if suspected.contains(&holds) && lacks < next.len() { lacks } else { holds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let costs = Costs { reading_us: vec![4000.0, 100_000.0], rest_us: 1000.0 };
        Expected::new(&costs, &[Some(500.0), None])
    }

    fn pulse(passed: bool, owed_rows: u32, quiet_s: u64) -> Pulse {
        Pulse { passed, owed_rows, quiet_ms: quiet_s * 1000, held_up: false, arithmetic: Arithmetic::Exact }
    }

    #[test]
    fn a_silence_may_last_a_few_times_what_is_expected_and_never_little() {
        assert_eq!(silence_limit(Duration::from_millis(10)), Duration::from_secs(3));
        assert_eq!(silence_limit(Duration::from_secs(1)), Duration::from_secs(8));
        assert_eq!(silence_limit(Duration::from_hours(9)), Duration::from_mins(10));
    }

    #[test]
    fn what_is_expected_follows_the_plan() {
        assert_eq!(expected().token(), Duration::from_millis(105));
        // Two milliseconds a row in the first stage, fifty in the second, which takes a token as long as two rows.
        assert_eq!(expected().chunk(100), Duration::from_millis(5200 + 105));
        assert_eq!(Expected::unknown(2).token(), Duration::from_millis(500));
        let endless = Costs { reading_us: vec![f64::INFINITY], rest_us: 0.0 };
        assert_eq!(Expected::new(&endless, &[None]).token(), MOST);
    }

    #[test]
    fn a_stage_hangs_when_it_owes_something_for_longer_than_it_can_take() {
        assert_eq!(expected().judge(0, &pulse(false, 1, 2), false), Finding::Working);
        assert_eq!(expected().judge(0, &pulse(false, 1, 4), false), Finding::Hung(Duration::from_secs(4)));
        assert_eq!(expected().judge(0, &pulse(true, 0, 0), false), Finding::Idle);
    }

    #[test]
    fn a_large_batch_is_waited_for() {
        // 1,024 rows at 50 ms each are 51 s on a machine that keeps to the plan.
        assert_eq!(expected().judge(1, &pulse(false, 1024, 200), false), Finding::Working);
        assert_eq!(expected().judge(1, &pulse(false, 1024, 500), false), Finding::Hung(Duration::from_secs(500)));
    }

    #[test]
    fn the_first_batches_of_a_stage_are_waited_for() {
        let gpu = |quiet_s| Pulse { arithmetic: Arithmetic::Gpu, ..pulse(false, 1, quiet_s) };
        assert_eq!(expected().judge(0, &gpu(40), true), Finding::Working, "kernels are compiled");
        assert_eq!(expected().judge(0, &gpu(8), false), Finding::Working, "for another shape");
        assert_eq!(expected().judge(0, &gpu(20), false), Finding::Hung(Duration::from_secs(20)));
        assert_eq!(expected().judge(0, &pulse(false, 1, 10), true), Finding::Working);
    }

    #[test]
    fn a_stage_that_waits_for_another_is_not_the_one_that_hangs() {
        let held_up = Pulse { held_up: true, ..pulse(false, 1, 500) };
        assert_eq!(expected().judge(0, &held_up, false), Finding::HeldUp);
    }

    #[test]
    fn where_every_stage_is_idle_the_last_that_has_everything_is_suspected() {
        assert_eq!(suspect(&[30, 30], 30, &[]), 1, "the last one, whose token does not come");
        assert_eq!(suspect(&[30, 29], 30, &[]), 0, "the first one passes nothing on");
        assert_eq!(suspect(&[30, 29], 30, &[0]), 1, "or the second lies about what it was given");
        assert_eq!(suspect(&[0, 0], 30, &[]), 0, "the first one does not take what it was sent");
    }
}
