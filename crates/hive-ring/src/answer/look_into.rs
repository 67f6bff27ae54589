//! What an answer does about a silence.

use std::time::Duration;

use super::Answer;
use super::silence::{Silence, Stuck};
use crate::ring::checkup::{News, Verdict};
use crate::ring::patience::{Expected, patience, suspect};

/// Between two looks at stages of which some are at work.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest silence for one answer while the others beside it go on.
const PASSED_OVER: Duration = Duration::from_mins(2);
/// Looks in a row that find everybody idle before that means something: what one has sent and the next does not have yet may
/// be on its way.
const IDLE_LOOKS: u32 = 2;

impl Answer {
    /// What the answer is waiting for should take so long: a piece of what is being read, or a token.
    pub(super) fn awaited(&self, read: usize, expected: &Expected) -> Duration {
        match self.next_position() as usize - read.min(self.next_position() as usize) {
            0 | 1 => expected.token(),
            rows => expected.chunk(rows.min(self.ring.prompt_chunk())),
        }
    }

    /// Looks into a silence; gives what is worth telling whoever waits.
    pub(super) async fn look_into(
        &mut self,
        silence: &mut Silence,
        news: Option<News>,
        usual: Duration,
    ) -> Option<String> {
        match news {
            None => {
                silence.checkup = self.ring.check_up(self.epoch);
                if silence.checkup.is_none() {
                    // Somebody looks already, and all hear of it.
                    silence.look_in(LOOK_AGAIN);
                }
                None
            }
            Some(News::Waiting(_)) if silence.was_told => None,
            Some(News::Waiting(names)) => {
                silence.was_told = true;
                let seconds = silence.since.elapsed().as_secs();
                let who = if names.is_empty() { "The model".to_owned() } else { names.join(", ") };
                Some(format!("{who} has not answered for {seconds} s; checking"))
            }
            Some(News::Verdict(Verdict::Wait)) => {
                silence.idle_looks = 0;
                silence.look_in(LOOK_AGAIN);
                if silence.since.elapsed() > PASSED_OVER {
                    self.ring.complain(self.epoch, format!("nothing came for {} s", PASSED_OVER.as_secs()));
                    silence.look_in(PASSED_OVER);
                }
                None
            }
            Some(News::Verdict(Verdict::Hung(index, why))) => {
                self.ring.complain_of_hung(self.epoch, index, why);
                silence.look_in(patience(usual));
                None
            }
            Some(News::Verdict(Verdict::NobodyHasIt)) => {
                silence.idle_looks += 1;
                silence.look_in(LOOK_AGAIN);
                // In a ring where others' tokens go round, nobody may have anything to do at the moment of a look.
                let is_quiet = self.ring.quiet() >= patience(usual);
                if silence.idle_looks >= IDLE_LOOKS && is_quiet {
                    silence.idle_looks = 0;
                    silence.look_in(patience(usual));
                    self.get_going().await;
                }
                None
            }
        }
    }

    /// Everybody is well and nothing comes: what was lost on the way comes again when the stages are joined anew. Where that
    /// did not help, the stage that keeps it is replaced.
    async fn get_going(&mut self) {
        if self.stuck.tokens != self.tokens.len() {
            self.stuck = Stuck { tokens: self.tokens.len(), ..Stuck::default() };
        }
        if !self.stuck.rejoined {
            self.stuck.rejoined = true;
            self.ring.complain(self.epoch, "nothing comes although every stage is well".to_owned());
            return;
        }
        let opened = tokio::time::timeout(PASSED_OVER, self.ring.open(&self.spec(None))).await;
        let Ok(Ok(next)) = opened else { return };
        let index = suspect(&next, self.next_position(), &self.stuck.suspected);
        self.stuck.suspected.push(index);
        let name = self.ring.stages().get(index).map(|stage| stage.placement.name.clone()).unwrap_or_default();
        self.ring.complain_of_hung(self.epoch, index, format!("{name} passes nothing on"));
    }
}
