//! An answer from its first event to its last.

use std::collections::BTreeSet;

use hive_net::{Frame, Kind};
use hive_protocol::logged;
use hive_stage::aside;
use hive_worker::text::TextError;
use tokio::sync::mpsc;

use super::Answer;
use super::end::{End, broken_off, unless_over};
use super::silence::SilenceTimer;
use super::tokens::Step;
use crate::events::Event;
use crate::ring::Health;

/// Consecutive failovers without a new token after which the answer itself is considered the cause. Stages that are
/// healthy but produce nothing are rejoined, then replaced one by one, see [`super::silence::Stall`].
const MOST_FRUITLESS: usize = 5;

/// Events on their way to the receiver.
const EVENT_QUEUE: usize = 256;

/// Whether the answer had its ring to itself from first to last token, so that its speed measures the ring. Compares
/// the ring's traffic (sessions opened so far, and sessions open) at both ends. A failover would have added pauses.
fn was_alone(at_first: Option<(u64, usize)>, at_last: (u64, usize), epoch: u32) -> bool {
    let (opened, open) = at_last;
    at_first.is_some_and(|(opened_before, open_before)| opened_before == opened && open_before == 1 && open <= 1)
        && epoch == 0
}

/// Starts an answer, which runs as soon as the stages have room for it. Its events arrive on the receiver.
pub(crate) async fn start(mut answer: Answer) -> Result<mpsc::Receiver<Event>, TextError> {
    // The text of the resume tokens was shown before, except for text that was held back.
    for token in answer.tokens.clone() {
        let piece = answer.ring.model().push(&mut answer.detokenizer, token).await?;
        answer.watch(&piece);
    }
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let tasks = answer.ring.host().membership().tasks().clone();
    tasks.spawn(answer.run(events));
    Ok(receiver)
}

impl Answer {
    async fn run(mut self, events: mpsc::Sender<Event>) {
        tracing::info!(answer = self.id, prompt_tokens = self.prompt.len(), "an answer was asked for");
        let bound = self.bound.clone();
        let mut frames = match unless_over(&events, &bound, self.begin()).await {
            Ok(frames) => frames,
            Err(end) => {
                // Some stages may already have opened it. The reader is told why it ends.
                self.leave();
                let _ = events.send(Event::Failed(broken_off(&end).to_owned())).await;
                return;
            }
        };
        // Only for the first ring: an answer that resumes on another includes a pause.
        self.traffic = Some(self.ring.traffic()).filter(|_| self.epoch == 0);
        let (mut fruitless, mut pending_end) = (0, None);
        let last = loop {
            let tokens_before = self.tokens.len();
            let end = match pending_end.take() {
                Some(end) => end,
                None => self.follow(&mut frames, &events).await,
            };
            fruitless = if self.tokens.len() > tokens_before { 0 } else { fruitless + 1 };
            match end {
                End::Over(event) => {
                    self.report_speed();
                    if let Some(trouble) = self.last_spot_check().await {
                        let _ = events.send(Event::Recovering(trouble)).await;
                        self.complete = false;
                    }
                    self.end().await;
                    break Some(event);
                }
                End::Cancelled => {
                    self.ring.close(self.session).await;
                    break None;
                }
                end @ (End::TooLate | End::Stopped) => {
                    // Not waited for: a machine that does not answer may be the reason.
                    self.leave();
                    break Some(Event::Failed(broken_off(&end).to_owned()));
                }
                End::Moved | End::Superseded | End::Lost(_) if self.unfit.is_some() => {
                    self.leave();
                    break self.unfit.take().map(Event::Failed);
                }
                End::Moved if fruitless < MOST_FRUITLESS => {
                    pending_end = unless_over(&events, &bound, self.resume(&mut frames)).await.err();
                }
                End::Moved => {
                    self.leave();
                    break Some(Event::Failed("it kept losing the machines it was running on".to_owned()));
                }
                End::Superseded => {
                    self.failed = self.ring.failure(self.session).or(self.failed);
                    self.leave();
                    match self.resume_elsewhere(&events).await {
                        Ok(Ok(resumed)) => frames = resumed,
                        Ok(Err(why)) => break Some(Event::Failed(why)),
                        Err(end) => pending_end = Some(end),
                    }
                }
                End::Lost(why) => {
                    self.failed = self.ring.failure(self.session).or(self.failed);
                    self.leave();
                    if self.source.is_none() || fruitless >= MOST_FRUITLESS {
                        break Some(Event::Failed(why));
                    }
                    tracing::info!(
                        answer = self.id,
                        session = logged(self.session),
                        tokens = self.tokens.len(),
                        "an answer resumes elsewhere: {why}"
                    );
                    match self.resume_elsewhere(&events).await {
                        Ok(Ok(resumed)) => frames = resumed,
                        Ok(Err(cause)) => {
                            break Some(Event::Failed(format!("{why}, and it could not resume: {cause}")));
                        }
                        Err(end) => pending_end = Some(end),
                    }
                }
            }
        };
        tracing::info!(
            answer = self.id,
            session = logged(self.session),
            tokens = self.tokens.len(),
            "the answer has ended"
        );
        if let Some(event) = last {
            let _ = events.send(event).await;
        }
        self.count();
    }

    /// Counts the answer for the machines that hold the stages at its end.
    fn count(&self) {
        let tokens = self.tokens.len().saturating_sub(self.resumed_tokens) as u64;
        if tokens > 0 {
            let machines: BTreeSet<_> = self.ring.stages().iter().map(|stage| stage.placement.addr.id()).collect();
            aside(|| self.ring.host().membership().count_answer(machines, tokens));
        }
    }

    /// Resumes on the stages as they are now.
    async fn resume(&mut self, frames: &mut mpsc::Receiver<Frame>) {
        if self.ring.is_tainted(self.epoch) {
            *frames = self.start_over().await;
        } else if let Err(why) = self.replay().await {
            self.ring.report_fault(self.epoch, why);
        }
    }

    /// Reports the speed of an answer that had the ring to itself from its first to its last token. An adapter costs time
    /// that no plan knows of.
    fn report_speed(&self) {
        if self.adapter.is_some() {
            return;
        }
        let alone = was_alone(self.traffic, self.ring.traffic(), self.ring.state().borrow().epoch);
        if let (true, Some(source), Some(first)) = (alone, &self.source, self.first) {
            let tokens = self.tokens.len().saturating_sub(self.resumed_tokens + 1);
            source.finished(self.ring.clone(), tokens, self.latest - first);
        }
    }

    /// Follows the answer until it ends or must resume elsewhere.
    async fn follow(&mut self, frames: &mut mpsc::Receiver<Frame>, events: &mpsc::Sender<Event>) -> End {
        let mut state = self.ring.state();
        state.mark_changed();
        let mut read = self.cached;
        let times = self.ring.expected();
        let mut expected = self.awaited(read, &times);
        let mut silence = SilenceTimer::new(expected);
        let mut is_whole = true;
        let bound = self.bound.clone();
        let reached = bound.reached();
        tokio::pin!(reached);
        loop {
            let frame = tokio::select! {
                // Frames that have arrived count, even if their machine has left since.
                biased;
                frame = frames.recv() => frame,
                () = events.closed() => return End::Cancelled,
                end = &mut reached => return end,
                changed = state.changed() => {
                    if changed.is_err() {
                        return End::Lost("the model was unloaded".to_owned());
                    }
                    let now = state.borrow_and_update().clone();
                    is_whole = now.health == Health::Whole;
                    match now.health {
                        Health::Abandoned(why) => return End::Lost(why),
                        Health::Superseded => return End::Superseded,
                        Health::Whole if now.epoch != self.epoch => return End::Moved,
                        Health::Whole => {}
                        Health::FailingOver(trouble) => {
                            if events.send(Event::Recovering(trouble)).await.is_err() {
                                return End::Cancelled;
                            }
                        }
                    }
                    continue;
                }
                Some(checked) = self.spot_checks.under_way.join_next(), if is_whole => {
                    if let Some(trouble) = self.spot_checked(checked)
                        && events.send(Event::Recovering(trouble)).await.is_err()
                    {
                        return End::Cancelled;
                    }
                    continue;
                }
                news = silence.next(), if is_whole => {
                    let investigating = self.investigate(&mut silence, news, expected);
                    let trouble = match unless_over(events, &bound, investigating).await {
                        Ok(trouble) => trouble,
                        Err(over) => return over,
                    };
                    if let Some(trouble) = trouble
                        && events.send(Event::Recovering(trouble)).await.is_err()
                    {
                        return End::Cancelled;
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { return End::Lost("the model was unloaded".to_owned()) };
            let known = self.next_position();
            let step = match frame.kind {
                // A token that was sent again over a new connection, or was replayed.
                Kind::Token if frame.position != known => Step::None,
                // The same for progress on the prompt.
                Kind::Read if frame.position as usize <= read || frame.position > known => Step::None,
                _ => self.take(&frame).await,
            };
            if !matches!(step, Step::None) {
                // Only progress resets the silence timer; repeated frames do not.
                read = read.max(frame.position as usize);
                expected = self.awaited(read, &times);
                silence = SilenceTimer::new(expected);
            }
            match step {
                Step::None => {}
                Step::More(event) => {
                    self.spot_check_if_due();
                    if events.send(event).await.is_err() {
                        return End::Cancelled;
                    }
                }
                Step::End(event) => return End::Over(event),
            }
        }
    }
}
