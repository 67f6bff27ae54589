//! An answer on its way: frames in, events out, and going on when a machine leaves.
//!
//! When a stage is lost, another machine takes it over (`ring/mend.rs`). The coordinator then asks every stage which position
//! comes next there, and has the stage before it send on what is missing; to the first stage it sends the tokens itself. So
//! only what the new stage does not have is computed again, at the speed of a prompt, and the answer goes on from the very
//! next token. When no machine can take the stage over, the model is loaded anew wherever it fits, and prompt and answer go
//! through it again. Sampling is keyed by position and the kernels give the same bits in any chunk, so the words are
//! those of an undisturbed run.

mod session;
mod silence;
mod spot;
mod verify;

use std::time::Instant;

use hive_model::Sampling;
use hive_model::detokenizer::Detokenizer;
use hive_model::sampling::Sampled;
use hive_model::stop::{Stop, StopStrings};
use hive_net::{Frame, Kind};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use crate::generate::{Event, FinishReason, Request, Summary};
use crate::ring::{Health, Ring};
use crate::stage::{failure_of, sampled_of};
use hive_protocol::logged;
use hive_worker::text::TextError;

pub(crate) use session::Source;
use silence::{Silence, Stuck};
use spot::Looks;
use verify::Bounds;

/// Losses in a row without one token between them: then it is not the machines, but what they are asked. Stages that are
/// well and pass nothing on are joined anew and then replaced one by one, see [`Stuck`].
const FRUITLESS: usize = 5;

/// What is said of an answer that was not done in the time it had.
const TOO_LATE: &str = "the answer was not done in the time it was given";
/// And of one whose node is stopped.
const STOPPED: &str = "HiveMind is being stopped on this machine";

/// Events on their way to whoever asked.
const EVENT_QUEUE: usize = 256;

/// An answer on its way.
pub(crate) struct Answer {
    id: u64,
    /// Its part of the stages' caches.
    room: Option<OwnedSemaphorePermit>,
    bound: Bound,
    source: Option<Source>,
    ring: Ring,
    /// The state of the ring that the session has been brought to.
    epoch: u32,
    session: u128,
    prompt: Vec<u32>,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    last_position: u32,
    reuse: bool,
    /// How much of what is known the stages have in their caches already.
    cached: usize,
    /// And how much that was when the answer began.
    cached_at_first: usize,
    /// The first ring's traffic when the answer began there.
    traffic: Option<(u64, usize)>,
    /// Whether the ring has come to its end by itself: then the stages' caches are the conversation, and can be kept.
    complete: bool,
    stops: StopStrings,
    detokenizer: Detokenizer,
    tokens: Vec<u32>,
    said_tokens: usize,
    stuck: Stuck,
    looks: Looks,
    /// The first position that the machines that hold the stages now have computed of it.
    rows_from: u32,
    /// And the first token that they have chosen.
    tokens_from: u32,
    started: Instant,
    first: Option<Instant>,
    latest: Instant,
}

/// What a frame led to.
enum Step {
    More(Event),
    End(Event),
    /// Nothing: it tells what was known already, or what cannot be.
    None,
}

/// How one life of an answer ended.
#[derive(Debug)]
enum End {
    /// With its last event.
    Over(Event),
    /// Nobody listens any more.
    Cancelled,
    /// Its time is over.
    TooLate,
    /// Its node stops.
    Stopped,
    /// A stage is on another machine now, which has to catch up.
    Moved,
    /// The model has a better place, where it goes on.
    Superseded,
    /// The stages cannot go on, for this reason.
    Lost(String),
}

/// Whether an answer had its first ring to itself from its first to its last token, by the ring's traffic (sessions ever
/// opened, and open) at either end; then its speed is the ring's. A ring that was mended had pauses.
fn was_alone(at_first: Option<(u64, usize)>, at_last: (u64, usize), epoch: u32) -> bool {
    let (opened, open) = at_last;
    at_first.is_some_and(|(opened_before, open_before)| opened_before == opened && open_before == 1 && open <= 1)
        && epoch == 0
}

/// What ends an answer from outside.
#[derive(Debug, Clone)]
struct Bound {
    deadline: Option<Instant>,
    /// Turns true when its node ends its answers.
    ending: watch::Receiver<bool>,
}

impl Bound {
    /// Waits until the answer has to end.
    async fn reached(&self) -> End {
        let mut ending = self.ending.clone();
        tokio::select! {
            // Where the node has gone, so has whatever computes.
            _ = ending.wait_for(|ending| *ending) => End::Stopped,
            () = until(self.deadline) => End::TooLate,
        }
    }
}

/// Does something for an answer, unless nobody listens any more, its time is over or its node stops.
async fn unless_over<T>(events: &mpsc::Sender<Event>, bound: &Bound, doing: impl Future<Output = T>) -> Result<T, End> {
    tokio::select! {
        done = doing => Ok(done),
        () = events.closed() => Err(End::Cancelled),
        end = bound.reached() => Err(end),
    }
}

/// What is said of an answer that ends for this before it is complete.
fn broken_off(end: &End) -> &'static str {
    if matches!(end, End::Stopped) { STOPPED } else { TOO_LATE }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Answer {
    /// Lets an answer run, as soon as the stages have room for it; its events arrive on the receiver.
    pub(crate) async fn start(
        id: u64,
        ring: Ring,
        source: Option<Source>,
        prompt: Vec<u32>,
        request: &Request,
        max_tokens: usize,
        started: Instant,
    ) -> Result<mpsc::Receiver<Event>, TextError> {
        let mut answer = Self::new(id, ring, source, prompt, request, max_tokens, started);
        // Its text was shown before; only what was held back is still to come.
        for token in &request.said {
            let piece = answer.ring.model().push(&mut answer.detokenizer, *token).await?;
            answer.watch(&piece);
        }
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let node = answer.ring.node().clone();
        node.spawn(answer.run(events));
        Ok(receiver)
    }

    fn new(
        id: u64,
        ring: Ring,
        source: Option<Source>,
        prompt: Vec<u32>,
        request: &Request,
        max_tokens: usize,
        started: Instant,
    ) -> Self {
        let card = ring.model().card();
        Self {
            id,
            room: None,
            bound: Bound { deadline: request.deadline.map(|time| started + time), ending: ring.ending() },
            source,
            epoch: 0,
            session: 0,
            sampling: request.sampling.clone(),
            end_tokens: if request.ignore_end { Vec::new() } else { card.end_tokens.clone() },
            last_position: (prompt.len() + request.said.len() + max_tokens - 1) as u32,
            reuse: request.reuse,
            cached: 0,
            cached_at_first: 0,
            traffic: None,
            complete: false,
            stops: StopStrings::new(request.stop.clone()),
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: request.said.clone(),
            said_tokens: request.said.len(),
            stuck: Stuck::default(),
            looks: Looks::default(),
            rows_from: 0,
            tokens_from: 0,
            started,
            first: None,
            latest: started,
            ring,
        }
    }

    async fn run(mut self, events: mpsc::Sender<Event>) {
        tracing::info!(answer = self.id, prompt_tokens = self.prompt.len(), "an answer was asked for");
        let bound = self.bound.clone();
        let mut frames = match unless_over(&events, &bound, self.begin()).await {
            Ok(frames) => frames,
            Err(end) => {
                // Some of the stages may have opened it by now. Whoever waits for it hears why that is in vain.
                self.leave();
                let _ = events.send(Event::Failed(broken_off(&end).to_owned())).await;
                return;
            }
        };
        // Only here: one that goes on elsewhere has been silent between, and says nothing of anybody's speed.
        self.traffic = Some(self.ring.traffic()).filter(|_| self.epoch == 0);
        let (mut fruitless, mut over) = (0, None);
        let last = loop {
            let had = self.tokens.len();
            let end = match over.take() {
                Some(end) => end,
                None => self.follow(&mut frames, &events).await,
            };
            fruitless = if self.tokens.len() > had { 0 } else { fruitless + 1 };
            match end {
                End::Over(event) => {
                    self.tell_speed();
                    if let Some(words) = self.last_look().await {
                        let _ = events.send(Event::Recovering(words)).await;
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
                    // Whoever waits has waited long enough, and a machine that is silent may be the reason.
                    self.leave();
                    break Some(Event::Failed(broken_off(&end).to_owned()));
                }
                End::Moved if fruitless < FRUITLESS => {
                    over = unless_over(&events, &bound, self.moved(&mut frames)).await.err();
                }
                End::Moved => {
                    self.leave();
                    break Some(Event::Failed("its stages were lost again and again".to_owned()));
                }
                End::Superseded => {
                    self.leave();
                    match self.go_on_elsewhere(&events).await {
                        Ok(Ok(again)) => frames = again,
                        Ok(Err(why)) => break Some(Event::Failed(why)),
                        Err(end) => over = Some(end),
                    }
                }
                End::Lost(why) => {
                    self.leave();
                    if self.source.is_none() || fruitless >= FRUITLESS {
                        break Some(Event::Failed(why));
                    }
                    tracing::info!(
                        answer = self.id,
                        session = logged(self.session),
                        tokens = self.tokens.len(),
                        "an answer goes on elsewhere: {why}"
                    );
                    match self.go_on_elsewhere(&events).await {
                        Ok(Ok(again)) => frames = again,
                        Ok(Err(cause)) => {
                            break Some(Event::Failed(format!("{why}, and it could not go on: {cause}")));
                        }
                        Err(end) => over = Some(end),
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
    }

    /// Goes on with the stages as they are now.
    async fn moved(&mut self, frames: &mut mpsc::Receiver<Frame>) {
        if self.ring.is_tainted(self.epoch) {
            *frames = self.read_anew().await;
        } else if let Err(why) = self.catch_up().await {
            self.ring.complain(self.epoch, why);
        }
    }

    /// Has the node learn from an answer that was alone from its first to its last token.
    fn tell_speed(&self) {
        let alone = was_alone(self.traffic, self.ring.traffic(), self.ring.state().borrow().epoch);
        if let (true, Some(Source { node, .. }), Some(first)) = (alone, &self.source, self.first) {
            let (node, ring) = (node.clone(), self.ring.clone());
            let (tokens, time) = (self.tokens.len().saturating_sub(self.said_tokens + 1), self.latest - first);
            let here = node.clone();
            here.spawn(async move { node.judge(&ring, tokens, time).await });
        }
    }

    /// One life: until the answer ends, nobody listens, or a stage is lost.
    async fn follow(&mut self, frames: &mut mpsc::Receiver<Frame>, events: &mpsc::Sender<Event>) -> End {
        let mut state = self.ring.state();
        state.mark_changed();
        let mut read = self.cached;
        let times = self.ring.expected();
        let mut expected = self.awaited(read, &times);
        let mut silence = Silence::new(expected);
        let mut is_whole = true;
        let bound = self.bound.clone();
        let reached = bound.reached();
        tokio::pin!(reached);
        loop {
            let frame = tokio::select! {
                // What has come counts, also from a machine that has left since.
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
                        Health::Lost(why) => return End::Lost(why),
                        Health::Superseded => return End::Superseded,
                        Health::Whole if now.epoch != self.epoch => return End::Moved,
                        Health::Whole => {}
                        Health::Mending(why) => {
                            if events.send(Event::Recovering(format!("{why}; going on without it"))).await.is_err() {
                                return End::Cancelled;
                            }
                        }
                    }
                    continue;
                }
                Some(looked) = self.looks.under_way.join_next(), if is_whole => {
                    if let Some(words) = self.looked(looked)
                        && events.send(Event::Recovering(words)).await.is_err()
                    {
                        return End::Cancelled;
                    }
                    continue;
                }
                news = silence.next(), if is_whole => {
                    let looking = self.look_into(&mut silence, news, expected);
                    let words = match unless_over(events, &bound, looking).await {
                        Ok(words) => words,
                        Err(over) => return over,
                    };
                    if let Some(words) = words
                        && events.send(Event::Recovering(words)).await.is_err()
                    {
                        return End::Cancelled;
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { return End::Lost("the model was unloaded".to_owned()) };
            let known = self.next_position();
            let step = match frame.kind {
                // A token that was sent again after a link was mended, or that comes again after those before it.
                Kind::Token if frame.position != known => Step::None,
                // The same of a piece of the prompt.
                Kind::Read if frame.position as usize <= read || frame.position > known => Step::None,
                _ => self.take(&frame).await,
            };
            if !matches!(step, Step::None) {
                // Only what brings the answer on ends the silence: a stage that repeats itself might as well say nothing.
                read = read.max(frame.position as usize);
                expected = self.awaited(read, &times);
                silence = Silence::new(expected);
            }
            match step {
                Step::None => {}
                Step::More(event) => {
                    self.look_if_due();
                    if events.send(event).await.is_err() {
                        return End::Cancelled;
                    }
                }
                Step::End(event) => return End::Over(event),
            }
        }
    }

    /// Where the next token stands.
    fn next_position(&self) -> u32 {
        (self.prompt.len() + self.tokens.len()) as u32
    }

    fn bounds(&self) -> Bounds<'_> {
        Bounds {
            vocabulary: self.ring.model().card().vocabulary,
            end_tokens: &self.end_tokens,
            last_position: self.last_position,
            sampling: &self.sampling,
        }
    }

    async fn take(&mut self, frame: &Frame) -> Step {
        match frame.kind {
            Kind::Token => {
                let sampled = sampled_of(frame);
                let bounds = self.bounds();
                let is_last = bounds.ends_with(sampled.token, frame.position);
                let possible = bounds.check(&sampled);
                let ends = bounds.check_end(sampled.token, frame.position, frame.last);
                if let Err(why) = possible.and(ends) {
                    // The word of the last stage alone: whatever it was given, this it cannot have computed.
                    self.ring.complain_of_last(self.epoch, why.to_string());
                }
                if possible.is_err() || (ends.is_err() && !is_last) {
                    return Step::None;
                }
                self.token(sampled, is_last).await.unwrap_or_else(|error| Step::End(Event::Failed(error.to_string())))
            }
            Kind::Failed => Step::End(Event::Failed(failure_of(frame).why)),
            Kind::Read => {
                let of = self.prompt.len() + self.tokens.len();
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
        self.tokens.push(sampled.token);
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
    fn watch(&mut self, piece: &str) -> (String, bool) {
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
            said_tokens: self.said_tokens,
            prompt_tokens: self.prompt.len(),
            cached_tokens: self.cached_at_first.min(self.prompt.len()),
            time_to_first_token: first - self.started,
            decode_time: self.latest - first,
            stages: self.ring.stages(),
        }
    }
}

#[cfg(test)]
mod against_liars;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nothing_is_done_for_an_answer_that_is_over() {
        let (events, listens) = mpsc::channel(1);
        let (end, ending) = watch::channel(false);
        let bound = |deadline| Bound { deadline, ending: ending.clone() };
        assert!(matches!(unless_over(&events, &bound(None), async { 7 }).await, Ok(7)));
        let soon = bound(Some(Instant::now() + Duration::from_millis(10)));
        assert!(matches!(unless_over(&events, &soon, std::future::pending::<()>()).await, Err(End::TooLate)));
        end.send_replace(true);
        let over = unless_over(&events, &bound(None), std::future::pending::<()>()).await.unwrap_err();
        assert!(matches!(over, End::Stopped) && broken_off(&over) == STOPPED, "{over:?}");
        end.send_replace(false);
        drop(listens);
        assert!(matches!(unless_over(&events, &bound(None), std::future::pending::<()>()).await, Err(End::Cancelled)));
    }

    #[test]
    fn only_an_answer_that_was_alone_on_a_whole_ring_tells_of_its_speed() {
        assert!(was_alone(Some((7, 1)), (7, 1), 0));
        assert!(was_alone(Some((7, 1)), (7, 0), 0), "it may have ended");
        assert!(!was_alone(Some((7, 2)), (7, 1), 0), "another was there when it began");
        assert!(!was_alone(Some((7, 1)), (8, 1), 0), "another came and went");
        assert!(!was_alone(Some((7, 1)), (8, 2), 0));
        assert!(!was_alone(Some((7, 1)), (7, 1), 1), "the ring was mended");
        assert!(!was_alone(None, (7, 1), 0), "it began elsewhere");
    }
}
