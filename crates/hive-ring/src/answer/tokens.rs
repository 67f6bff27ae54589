//! From frames to events: tokens, text, and the end of the answer.

use std::time::Instant;

use hive_model::sampling::Sampled;
use hive_net::{Frame, Kind};
use hive_stage::{Failure, Fault, failure_of, sampled_of};
use hive_text::stop::Stop;
use hive_worker::text::TextError;

use super::Answer;
use super::verify::Bounds;
use crate::events::{Event, FinishReason, Summary};

/// The effect of a frame.
pub(super) enum Step {
    More(Event),
    End(Event),
    /// Nothing: it is a repetition, or impossible.
    None,
}

impl Answer {
    fn bounds(&self) -> Bounds<'_> {
        Bounds {
            vocabulary: self.ring.model().card().vocabulary,
            end_tokens: &self.end_tokens,
            last_position: self.last_position,
            sampling: &self.sampling,
        }
    }

    pub(super) async fn take(&mut self, frame: &Frame) -> Step {
        match frame.kind {
            Kind::Token => {
                let sampled = sampled_of(frame);
                let bounds = self.bounds();
                let is_last = bounds.ends_with(sampled.token, frame.position);
                let possible = bounds.check(&sampled);
                let ends = bounds.check_end(sampled.token, frame.position, frame.last);
                if let Err(why) = possible.and(ends) {
                    // The last stage alone is to blame: no input could lead to this.
                    self.ring.report_wrong_token(self.epoch, why.to_string());
                }
                if possible.is_err() || (ends.is_err() && !is_last) {
                    return Step::None;
                }
                self.token(sampled, is_last).await.unwrap_or_else(|error| Step::End(Event::Failed(error.to_string())))
            }
            Kind::Failed => Step::End(Event::Failed(words(failure_of(frame)))),
            Kind::Read => {
                let of = self.prompt.len() + self.tokens.len();
                // The last stage has computed a piece up to here.
                self.pieces.began(frame.position);
                Step::More(Event::Reading { tokens: (frame.position as usize).min(of), of })
            }
            Kind::Tokens | Kind::Hidden => {
                Step::End(Event::Failed("a stage sent the coordinator what belongs to a stage".to_owned()))
            }
        }
    }

    async fn token(&mut self, sampled: Sampled, last: bool) -> Result<Step, TextError> {
        self.latest = Instant::now();
        self.first.get_or_insert(self.latest);
        // Its own row will be a piece of its own.
        self.pieces.began(self.next_position());
        self.tokens.push(sampled.token);
        self.failed = None;
        self.ring.count_token();
        self.ring.warmed_up(self.epoch);
        self.complete = last;
        let is_end = self.end_tokens.contains(&sampled.token);
        let mut text = String::new();
        let mut stopped = false;
        if !is_end {
            let piece = self.ring.model().push(&mut self.detokenizer, sampled.token).await?;
            (text, stopped) = self.watch(&piece);
        }
        if !stopped && last {
            let rest = self.ring.model().finish(&mut self.detokenizer).await?;
            let (more, late) = self.watch(&rest);
            text += &more;
            stopped = late;
            if !stopped {
                text += &self.stops.finish();
            }
        }
        if stopped || last {
            let finish_reason = if stopped || is_end { FinishReason::Stop } else { FinishReason::Length };
            return Ok(Step::End(Event::Finished { text, summary: self.summary(finish_reason) }));
        }
        Ok(Step::More(Event::Token { sampled, text }))
    }

    /// The text that may be shown, and whether a stop text ended the answer.
    pub(super) fn watch(&mut self, piece: &str) -> (String, bool) {
        match self.stops.push(piece) {
            Stop::Continue(text) => (text, false),
            Stop::Stopped(text) => (text, true),
        }
    }

    fn summary(&self, finish_reason: FinishReason) -> Summary {
        let first = self.first.unwrap_or(self.latest);
        Summary {
            finish_reason,
            tokens: self.tokens.clone(),
            resumed_tokens: self.resumed_tokens,
            prompt_tokens: self.prompt.len(),
            cached_tokens: self.cached_at_first.min(self.prompt.len()),
            time_to_first_token: first - self.started,
            decode_time: self.latest - first,
            stages: self.ring.stages(),
        }
    }
}

/// Why an answer failed, for people. A failure that is not the request's ends an answer only if it was repeated.
fn words(Failure { fault, why }: Failure) -> String {
    match fault {
        Fault::Request => why,
        _ => format!(
            "the model cannot compute this conversation: {why}, also after its layers were loaded again; its files may be \
             damaged"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_no_machine_can_compute_says_that_it_is_the_models_fault() {
        let why = || "layers 0..4 computed numbers that are not finite".to_owned();
        let repeated = words(Failure { fault: Fault::Stage(0), why: why() });
        assert!(repeated.starts_with("the model cannot compute this conversation: layers 0..4"), "{repeated}");
        assert_eq!(words(Failure { fault: Fault::Request, why: why() }), why());
    }
}
