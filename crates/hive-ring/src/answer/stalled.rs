//! How an answer that makes no progress is investigated and unblocked.

use std::time::Duration;

use hive_types::Trouble;

use super::Answer;
use super::silence::{SilenceTimer, Stall};
use crate::ring::checkup::{News, Verdict};
use crate::ring::timing::{Expected, silence_limit, suspect};

/// Interval between two checkups while a stage is at work.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// A stage that is at work may be serving other answers only. This is longer than any of their chunks should take.
const PASSED_OVER_TIMEOUT: Duration = Duration::from_mins(2);
/// Consecutive checkups that must find all stages idle: a frame may be on its way between two stages.
const IDLE_CHECKS: u32 = 2;

impl Answer {
    /// How long the next progress should take: a chunk of the prompt, or a token.
    pub(super) fn awaited(&self, read: usize, expected: &Expected) -> Duration {
        match self.next_position() as usize - read.min(self.next_position() as usize) {
            0 | 1 => expected.token(),
            rows => expected.chunk(rows.min(self.ring.prompt_chunk())),
        }
    }

    /// Investigates a silence; returns what to tell the reader, if anything.
    pub(super) async fn investigate(
        &mut self,
        silence: &mut SilenceTimer,
        news: Option<News>,
        usual: Duration,
    ) -> Option<Trouble> {
        match news {
            None => {
                silence.checkup = self.ring.check_up(self.epoch);
                if silence.checkup.is_none() {
                    // A checkup is under way, and serves all answers.
                    silence.check_in(CHECK_AGAIN);
                }
                None
            }
            Some(News::Waiting(_)) if silence.was_notified => None,
            Some(News::Waiting(machines)) => {
                silence.was_notified = true;
                let seconds = silence.since.elapsed().as_secs();
                Some(Trouble::NotAnswering { machines, seconds })
            }
            Some(News::Verdict(Verdict::Wait)) => {
                silence.idle_checks = 0;
                silence.check_in(CHECK_AGAIN);
                if silence.since.elapsed() > PASSED_OVER_TIMEOUT {
                    self.ring.report_fault(self.epoch, format!("nothing came for {} s", PASSED_OVER_TIMEOUT.as_secs()));
                    silence.check_in(PASSED_OVER_TIMEOUT);
                }
                None
            }
            Some(News::Verdict(Verdict::Hung(index, why))) => {
                self.ring.report_no_progress(self.epoch, index, why);
                silence.check_in(silence_limit(usual));
                None
            }
            Some(News::Verdict(Verdict::AllIdle)) => {
                silence.idle_checks += 1;
                silence.check_in(CHECK_AGAIN);
                // While other answers' tokens go round, all stages may be idle at the moment of a checkup.
                let is_quiet = self.ring.quiet() >= silence_limit(usual);
                if silence.idle_checks >= IDLE_CHECKS && is_quiet {
                    silence.idle_checks = 0;
                    silence.check_in(silence_limit(usual));
                    self.unblock().await;
                }
                None
            }
        }
    }

    /// Every stage is healthy and nothing arrives. Rejoins the stages, which replays lost frames. If that has not
    /// helped, replaces the stage that blocks the answer.
    async fn unblock(&mut self) {
        if self.stall.tokens != self.tokens.len() {
            self.stall = Stall { tokens: self.tokens.len(), ..Stall::default() };
        }
        if !self.stall.rejoined {
            self.stall.rejoined = true;
            self.ring.report_fault(self.epoch, "nothing comes although every stage is healthy".to_owned());
            return;
        }
        let opened =
            tokio::time::timeout(PASSED_OVER_TIMEOUT, self.ring.open(&self.spec(None), self.adapter.as_ref())).await;
        let Ok(Ok(next)) = opened else { return };
        let index = suspect(&next, self.next_position(), &self.stall.suspected);
        self.stall.suspected.push(index);
        let name = self.ring.stages().get(index).map(|stage| stage.placement.name.clone()).unwrap_or_default();
        self.ring.report_no_progress(self.epoch, index, format!("{name} passes nothing on"));
    }
}
