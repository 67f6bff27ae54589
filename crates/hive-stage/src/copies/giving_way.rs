//! How fast models may be copied while this machine computes tokens: as fast as they can be without slowing the tokens.
//!
//! Nobody can tell beforehand what a copy costs. With spare cores it costs tokens nothing; without, it takes the core that
//! they need. So the token steps themselves decide. For a few steps after a prompt, copies go at the lowest pace, which
//! shows how long a step takes alone. From then on, the pace grows as long as steps hardly take longer. When they do, it is
//! halved, and steps alone are timed again, because they take longer in a longer conversation, too.
//!
//! Without an answer under way there is no limit. Except while steps alone are timed, no limit is below
//! [`LEAST_BYTES_PER_S`]. A copy does not make up later for what it did not use. Pure: the caller passes the time.

use std::time::{Duration, Instant};

/// The pace of copies while steps alone are timed, in bytes per second: about a hundredth of a core.
const LOWEST_BYTES_PER_S: f64 = 3e6;
/// The pace that they keep otherwise, however long steps take: about a twentieth of a core, which is what tokens can spare.
const LEAST_BYTES_PER_S: f64 = 15e6;
/// The pace of a copy that has just begun to give way.
const FIRST_BYTES_PER_S: f64 = 32e6;
/// Above the pace of any copy: from here on there is no limit.
const HIGHEST_BYTES_PER_S: f64 = 4e9;
/// A copy at less than this pace counts as none: it lengthens a step by 2 % at most.
const NOTABLE_BYTES_PER_S: f64 = 10e6;

/// Token steps that are compared at a time.
const STEPS: usize = 10;
/// The largest ratio of a step's time beside a copy to its time alone. The pace of a copy oscillates around the right
/// one; with this limit, tokens keep nine tenths of their pace on average.
const MOST_SLOWER: f64 = 1.06;

/// Factors on the pace: when steps take longer; and when they do not, at first and later.
const BACK: f64 = 0.5;
const FIRST_GROWTH: f64 = 2.0;
const GROWTH: f64 = 1.25;
/// Factor on the growth itself, each time the pace grows.
const FASTER_GROWTH: f64 = 1.1;

/// An answer is under way for this long after a token step, and twice the step: the next one may wait for other machines.
const LINGER: Duration = Duration::from_millis(500);
/// How long a copy may catch up on what it was not given before.
const BURST: Duration = Duration::from_millis(50);
/// How long a piece waits before it asks again: the pace may have changed.
const WAIT: Duration = Duration::from_millis(20);

/// What a token step says about the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is being measured how long steps take alone.
    Measuring,
    /// Nothing yet.
    Nothing,
    /// Steps take hardly longer than alone.
    Harmless,
    /// Steps take notably longer.
    Harmful,
}

/// The token steps of one stage.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The conversations that were computed together.
    sessions: usize,
    /// How long a step takes alone, once that is known, and by how much steps differ from that on average.
    alone: Option<(Duration, Duration)>,
    /// The steps since the last finding, and whether something was copied during one of them.
    latest: Vec<Duration>,
    is_disturbed: bool,
    /// Whether something was copied during the last step: the end of it may be sent during the next one.
    was_disturbed: bool,
}

impl Steps {
    /// Notes a step for one of `sessions` conversations, and the bytes that were copied meanwhile.
    pub(super) fn note(&mut self, took: Duration, sessions: usize, copied_bytes: u64) -> Finding {
        if sessions != self.sessions {
            *self = Self { sessions, ..Self::default() };
        }
        let now = copied_bytes as f64 > NOTABLE_BYTES_PER_S * took.as_secs_f64();
        let is_disturbed = std::mem::replace(&mut self.was_disturbed, now) || now;
        if self.alone.is_none() && is_disturbed {
            return Finding::Measuring;
        }
        self.is_disturbed |= is_disturbed;
        self.latest.push(took);
        if self.latest.len() < STEPS {
            return if self.alone.is_some() { Finding::Nothing } else { Finding::Measuring };
        }
        let latest = std::mem::take(&mut self.latest);
        let mean = mean_but_longest(&latest);
        match self.alone.filter(|_| std::mem::take(&mut self.is_disturbed)) {
            None => {
                let differences: Vec<Duration> = latest.iter().map(|step| step.abs_diff(mean)).collect();
                self.alone = Some((mean, mean_but_longest(&differences)));
                Finding::Nothing
            }
            // Where other programs disturb the steps, too, a difference is more often chance.
            Some((alone, spread)) if mean > alone.mul_f64(MOST_SLOWER) + spread / 2 => {
                self.alone = None;
                Finding::Harmful
            }
            Some(_) => Finding::Harmless,
        }
    }
}

/// The mean of some durations, but for the longest: the system may have been busy with something else.
fn mean_but_longest(durations: &[Duration]) -> Duration {
    let longest = durations.iter().max().copied().unwrap_or_default();
    let others = u32::try_from(durations.len().saturating_sub(1)).unwrap_or(u32::MAX);
    durations.iter().sum::<Duration>().saturating_sub(longest) / others.max(1)
}

/// The pace of all copies together.
#[derive(Debug)]
pub(super) struct Share {
    bytes_per_s: f64,
    growth: f64,
    /// Until when it is measured how long steps take alone.
    measuring: Option<Instant>,
    /// Until when an answer is under way.
    answering: Option<Instant>,
    /// Bytes that may be copied at `since`; below zero, those that were copied too early.
    left: f64,
    since: Option<Instant>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            bytes_per_s: FIRST_BYTES_PER_S,
            growth: FIRST_GROWTH,
            measuring: None,
            answering: None,
            left: 0.0,
            since: None,
        }
    }
}

impl Share {
    /// Takes account of what a token step says.
    pub(super) fn note(&mut self, finding: Finding, took: Duration, now: Instant) {
        self.answering = Some(now + LINGER + took * 2);
        match finding {
            Finding::Nothing => {}
            Finding::Measuring => self.measuring = self.measuring.max(Some(now + took * 2)),
            Finding::Harmless => {
                self.bytes_per_s = (self.bytes_per_s * self.growth).min(HIGHEST_BYTES_PER_S);
                self.growth = (self.growth * FASTER_GROWTH).min(FIRST_GROWTH);
            }
            Finding::Harmful => {
                self.bytes_per_s = (self.bytes_per_s * BACK).max(LEAST_BYTES_PER_S);
                self.growth = GROWTH;
                self.measuring = Some(now + took * 2);
            }
        }
    }

    /// The limit in bytes per second, if there is one.
    fn limit(&self, now: Instant) -> Option<f64> {
        let is_before = |until: Option<Instant>| until.is_some_and(|until| now < until);
        let pace = if is_before(self.measuring) { LOWEST_BYTES_PER_S } else { self.bytes_per_s };
        (is_before(self.answering) && pace < HIGHEST_BYTES_PER_S).then_some(pace)
    }

    /// Lets a piece of this many bytes through, or says how long it has to wait until it asks again.
    pub(super) fn pass(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let since = self.since.replace(now).unwrap_or(now);
        let Some(limit) = self.limit(now) else {
            self.left = 0.0;
            return Ok(());
        };
        let gained = limit * now.saturating_duration_since(since).as_secs_f64();
        self.left = (self.left + gained).min(limit * BURST.as_secs_f64());
        if self.left < 0.0 {
            return Err(Duration::from_secs_f64(-self.left / limit).min(WAIT));
        }
        self.left -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 1 << 20;

    /// A machine that copies without a pause and computes the tokens of an answer, in steps of time that are all its own.
    struct Machine {
        now: Instant,
        steps: Steps,
        share: Share,
        /// How long a piece takes, and how much longer it makes a token step.
        piece: Duration,
        costs: Duration,
        /// When the next piece can be copied.
        ready: Instant,
    }

    impl Machine {
        fn new(costs: Duration) -> Self {
            let now = Instant::now();
            let (steps, share) = (Steps::default(), Share::default());
            Self { now, steps, share, piece: Duration::from_micros(2200), costs, ready: now }
        }

        /// Pieces that are copied in this time.
        fn copies(&mut self, took: Duration) -> u32 {
            let (until, mut pieces) = (self.now + took, 0);
            self.ready = self.ready.max(self.now);
            while self.ready < until {
                match self.share.pass(PIECE, self.ready) {
                    Ok(()) => (pieces, self.ready) = (pieces + 1, self.ready + self.piece),
                    Err(wait) => self.ready += wait.max(Duration::from_micros(1)),
                }
            }
            pieces
        }

        /// How much of their pace tokens have, and bytes copied per second, over some steps of this length.
        fn answers(&mut self, tokens: u32, alone: Duration) -> (f64, f64) {
            let (start, mut copied) = (self.now, 0);
            for _ in 0..tokens {
                let pieces = self.copies(alone);
                let took = alone + self.costs * pieces;
                self.now += took;
                let finding = self.steps.note(took, 1, u64::from(pieces) * PIECE as u64);
                self.share.note(finding, took, self.now);
                copied += u64::from(pieces) * PIECE as u64;
            }
            let seconds = (self.now - start).as_secs_f64();
            (alone.as_secs_f64() * f64::from(tokens) / seconds, copied as f64 / seconds)
        }
    }

    #[test]
    fn with_spare_cores_a_copy_is_soon_as_fast_as_without_an_answer() {
        let mut machine = Machine::new(Duration::ZERO);
        machine.answers(150, Duration::from_millis(10));
        let (pace, copied) = machine.answers(1000, Duration::from_millis(10));
        assert!(pace == 1.0 && copied > 450e6, "{pace} {copied}");
    }

    #[test]
    fn on_one_core_tokens_keep_nine_tenths_of_their_pace_and_the_copy_gets_the_rest() {
        for alone in [4, 10, 60, 300] {
            for costs in [2300, 3700] {
                let mut machine = Machine::new(Duration::from_micros(costs));
                let (pace, copied) = machine.answers(3000, Duration::from_millis(alone));
                assert!(pace > 0.9 && copied > 10e6, "{costs} us of steps of {alone} ms: {pace} {copied}");
            }
        }
    }

    #[test]
    fn a_conversation_that_grows_longer_does_not_slow_a_copy_that_takes_nothing_from_it() {
        let mut machine = Machine::new(Duration::ZERO);
        machine.answers(150, Duration::from_millis(10));
        let mut all = 0.0;
        for longer in 0..100 {
            all += machine.answers(30, Duration::from_micros(10_000 + 50 * longer)).1;
        }
        assert!(all / 100.0 > 350e6, "{all}");
    }

    #[test]
    fn other_programs_that_disturb_the_steps_hardly_slow_a_copy_that_takes_nothing_from_them() {
        let mut machine = Machine::new(Duration::ZERO);
        let mut seed = 1_u64;
        let mut all = 0.0;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            all += machine.answers(1, Duration::from_millis(10 + (seed >> 33) % 3 * 10)).1;
        }
        assert!(all / 2000.0 > 420e6, "{all}");
    }

    #[test]
    fn a_copy_goes_on_however_much_it_slows_tokens() {
        let mut machine = Machine::new(Duration::from_millis(200));
        machine.answers(100, Duration::from_millis(10));
        let (_, copied) = machine.answers(1000, Duration::from_millis(10));
        assert!(copied > 3e6, "{copied}");
    }

    #[test]
    fn when_the_answer_has_ended_nothing_waits() {
        let mut machine = Machine::new(Duration::from_micros(2300));
        machine.answers(500, Duration::from_millis(10));
        assert!(machine.share.limit(machine.now).is_some());
        let later = machine.now + Duration::from_secs(1);
        assert_eq!([(); 9].map(|()| machine.share.pass(PIECE, later)), [Ok(()); 9]);
    }

    #[test]
    fn steps_of_other_conversations_are_measured_anew() {
        let mut steps = Steps::default();
        let took = Duration::from_millis(10);
        let mut note = |sessions| (0..STEPS).map(|_| steps.note(took, sessions, 0)).last();
        assert_eq!(note(1), Some(Finding::Nothing));
        assert_eq!(steps.note(took, 2, 0), Finding::Measuring);
        assert_eq!(steps.note(took, 2, PIECE as u64), Finding::Measuring);
        assert_eq!(steps.latest.len(), 1, "steps beside a copy do not count");
    }
}
