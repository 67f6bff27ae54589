//! An answer in progress: collects the model's output, shows it once per screen frame, and saves it every second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hive_types::Trouble;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::conversation::{Computed, Interruption, Message, Part};
use crate::live::{Inner, Status};
use crate::model::{AnswerEvent, Asked, Failure, Question};
use crate::naming;

/// One frame at 60 Hz.
const FRAME: Duration = Duration::from_millis(16);

/// How often an answer in progress is saved: a crash loses at most the text since then.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Pause before another attempt to save, when the disk refused.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// An answer, and the figures of its computation so far.
#[derive(Debug)]
struct Growth {
    message: Message,
    /// Text of the message that no window has yet.
    unseen: String,
    /// Since when no token came, and why.
    pause: Option<(Instant, Trouble)>,
    asked: Instant,
    first_token: Option<Instant>,
    /// Tokens since this attempt began.
    tokens: u32,
}

/// Computes the answer `message` of the conversation `id` until it is complete, interrupted or stopped.
pub(crate) async fn run(inner: Arc<Inner>, id: String, question: Question, message: Message, stop: CancellationToken) {
    let (unseen, asked) = (String::new(), Instant::now());
    let mut growth = Growth { message, unseen, pause: None, asked, first_token: None, tokens: 0 };
    let problem = grow(&inner, &id, question, &mut growth, &stop).await;
    growth.measure();
    growth.show(&inner, &id);
    // A disk that is full now may have room again in a moment; until then the answer stays in memory.
    loop {
        match inner.save(&id, &growth.message).await {
            Ok(()) => break,
            Err(error) => inner.set_status(&id, Status::Unsaved { why: error.to_string() }),
        }
        tokio::select! {
            () = sleep(SAVE_AGAIN) => {}
            () = inner.closing() => break,
        }
    }
    inner.ended(&id, &growth.message, problem).await;
    naming::wake(&inner);
}

/// Takes the answer's events until it ends or is stopped; returns why it was interrupted, if it was.
async fn grow(
    inner: &Arc<Inner>,
    id: &str,
    question: Question,
    growth: &mut Growth,
    stop: &CancellationToken,
) -> Option<Failure> {
    let asked = tokio::select! {
        asked = inner.model().answer(question) => asked,
        () = stop.cancelled() => return None,
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return Some(why),
    };
    let Asked { machines, context_limit, unknown_options, mut events } = asked;
    let computed = growth.message.computed.get_or_insert_default();
    (computed.unknown_options, computed.context_limit) = (unknown_options, Some(context_limit));
    computed.begin(machines, None);
    let (mut frame, mut save) = (interval(FRAME), interval(SAVE_EVERY));
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    save.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut saved_tokens = growth.message.tokens.len();
    loop {
        let event = tokio::select! {
            // A save under way is waited for: its writing cannot be cancelled, and would come after the last one.
            () = stop.cancelled() => return None,
            event = events.next() => event,
            _ = frame.tick(), if !growth.unseen.is_empty() => {
                growth.show(inner, id);
                continue;
            }
            _ = save.tick(), if growth.message.tokens.len() != saved_tokens => {
                saved_tokens = growth.message.tokens.len();
                if let Err(error) = inner.save(id, &growth.message).await {
                    tracing::warn!("an answer in progress is not saved: {error}");
                }
                continue;
            }
        };
        match event {
            Some(AnswerEvent::Reading { tokens, of }) => inner.set_status(id, Status::Reading { tokens, of }),
            Some(AnswerEvent::Recovering(trouble)) => {
                let why = trouble.to_string();
                growth.pauses(trouble.clone());
                inner.set_status(id, Status::Recovering { why, trouble: Some(trouble) });
            }
            Some(AnswerEvent::Machines(machines)) => growth.continue_on(machines),
            Some(AnswerEvent::Token { token, text }) => growth.take(token, &text),
            Some(AnswerEvent::Finished { text, tokens, prompt_tokens, tokens_per_s, first_s, cut }) => {
                let context_tokens = prompt_tokens.saturating_add(tokens.len() as u32);
                growth.finish(&text, tokens, cut);
                let computed = growth.message.computed.get_or_insert_default();
                (computed.tokens_per_s, computed.first_s) = (Some(tokens_per_s), Some(first_s));
                computed.context_tokens = Some(context_tokens);
                return None;
            }
            Some(AnswerEvent::Failed(why)) => return Some(why),
            None => return Some("HiveMind stopped".to_owned().into()),
        }
    }
}

impl Growth {
    fn take(&mut self, token: u32, text: &str) {
        self.pause = None;
        self.tokens += 1;
        self.first_token.get_or_insert_with(Instant::now);
        self.message.tokens.push(token);
        self.add(text);
        if let Some(part) = self.message.computed.get_or_insert_default().parts.last_mut() {
            part.tokens += 1;
        }
    }

    fn add(&mut self, text: &str) {
        self.message.text += text;
        self.unseen += text;
    }

    fn finish(&mut self, text: &str, tokens: Vec<u32>, cut: bool) {
        self.add(text);
        self.message.tokens = tokens;
        self.message.complete = !cut;
    }

    /// Notes trouble. A machine that turns out to be lost explains the pause better than its silence before.
    fn pauses(&mut self, trouble: Trouble) {
        let (since, _) = self.pause.get_or_insert_with(|| (Instant::now(), trouble.clone()));
        if matches!(trouble, Trouble::Lost { .. }) {
            self.pause = Some((*since, trouble));
        }
    }

    /// Begins a part on other machines, after the pause that came before.
    fn continue_on(&mut self, machines: Vec<String>) {
        let interruption = |(since, trouble): (Instant, Trouble)| Interruption {
            why: trouble.to_string(),
            trouble: Some(trouble),
            pause_s: since.elapsed().as_secs_f64(),
        };
        let after = self.pause.take().map(interruption);
        self.message.computed.get_or_insert_default().begin(machines, after);
    }

    /// Completes the figures of the computation, also of an answer that was stopped or interrupted.
    fn measure(&mut self) {
        let Some(computed) = &mut self.message.computed else { return };
        if let Some(first) = self.first_token {
            let decode_s = first.elapsed().as_secs_f64();
            let measured = f64::from(self.tokens - 1) / decode_s.max(f64::MIN_POSITIVE);
            computed.tokens_per_s.get_or_insert(measured);
            computed.first_s.get_or_insert((first - self.asked).as_secs_f64());
        }
        self.message.note = Some(computed.note());
    }

    /// Sends the windows the text that they do not have yet.
    fn show(&mut self, inner: &Inner, id: &str) {
        inner.grown(id, &self.message, std::mem::take(&mut self.unseen));
    }
}

impl Computed {
    /// Begins a part. Without an interruption, machines that computed the part before it continue it.
    fn begin(&mut self, machines: Vec<String>, after: Option<Interruption>) {
        let continues = after.is_none() && self.parts.last().is_some_and(|part| part.machines == machines);
        if !continues {
            self.parts.push(Part { tokens: 0, machines, after });
        }
    }

    /// How an answer was computed, in words.
    pub(crate) fn note(&self) -> String {
        let mut words = Vec::new();
        if let Some(speed) = self.tokens_per_s.filter(|&speed| speed > 0.0) {
            words.push(format!("{speed:.1} tok/s"));
        }
        let mut machines: Vec<&str> = Vec::new();
        for name in self.parts.iter().flat_map(|part| &part.machines) {
            if !machines.contains(&name.as_str()) {
                machines.push(name);
            }
        }
        if !machines.is_empty() {
            words.push(machines.join(" + "));
        }
        if let Some(first) = self.first_s {
            words.push(format!("{first:.1} s to first word"));
        }
        words.join(" · ")
    }
}
