//! Answers of the swarm, for conversations.

use std::future::Future;
use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use hive_mind::{AnswerEvent, Asked, Chats, Choices, Failure, Model, Question, Store};
use hive_node::serving::ModelRequest;
use hive_node::{AnswerError, Conversation, Event, FinishReason, Message, Node, Reply, Request, Ring, Sampling};
use hive_types::Trouble;
use tokio::sync::mpsc;

use crate::openai::answer_refusal;

/// Without it, the starter model repeats itself forever on one question in four.
const REPETITION_PENALTY: f32 = 1.1;

/// The owner's conversations; `node` answers in them.
pub fn chats(store: Store, node: Node) -> Chats {
    Chats::new(store, Swarm { node })
}

/// The node's swarm.
struct Swarm {
    node: Node,
}

impl Model for Swarm {
    fn answer(&self, question: Question) -> Pin<Box<dyn Future<Output = Result<Asked, Failure>> + Send>> {
        let node = self.node.clone();
        Box::pin(async move {
            let request = request(&question)?;
            let wanted = question.choices.model.as_deref().map_or_else(|| node.default_model(), ModelRequest::named);
            let Reply { events, ring, .. } = node.generate(&wanted, &request).await.map_err(failure)?;
            let unknown_options = ring.model().unknown_options(&request.conversation).await.unwrap_or_default();
            let (machines, context_limit) = (machines(&ring), ring.model().card().max_context as u32);
            let progress =
                Progress { events, ring, told: machines.clone(), had_trouble: false, has_lost: false, waiting: None };
            let events = stream::unfold(progress, |mut progress| async { Some((progress.next().await?, progress)) });
            Ok(Asked { machines, context_limit, unknown_options, events: events.boxed() })
        })
    }

    fn weight_bytes(&self, choices: &Choices) -> BoxFuture<'static, Option<u64>> {
        let (node, wanted) = (self.node.clone(), choices.model.clone());
        Box::pin(async move {
            let wanted = wanted.or_else(|| node.default_model().model).map(|name| node.serving().name_of(&name));
            let models = node.models().await;
            // The default model is the first.
            let found = models.iter().find(|model| wanted.as_ref().is_none_or(|wanted| *wanted == model.name));
            found.map(|model| model.bytes)
        })
    }

    fn is_busy(&self) -> bool {
        self.node.as_ref().is_busy()
    }
}

fn failure(error: AnswerError) -> Failure {
    let why = error.to_string();
    Failure { why, code: Some(answer_refusal(error).code) }
}

fn request(question: &Question) -> Result<Request, String> {
    let message = |turn: &hive_mind::Turn| Message {
        role: turn.role.to_owned(),
        content: turn.text.clone().into(),
        more: serde_json::Map::default(),
    };
    let choices = &question.choices;
    let sampling = Sampling {
        temperature: choices.temperature,
        top_p: choices.top_p,
        repetition_penalty: REPETITION_PENALTY,
        seed: u64::from(question.seed),
        ..Sampling::default()
    };
    let variables = choices.options.iter().map(|option| hive_node::variable(option)).collect::<Result<_, _>>();
    let conversation = Conversation {
        variables: variables.map_err(|error| error.to_string())?,
        began: question.began_s.and_then(hive_node::local_time),
        ..Conversation::new(question.turns.iter().map(message).collect::<Vec<_>>())
    };
    let max_tokens = choices.max_tokens.map(|tokens| tokens as usize);
    let resume_tokens = question.resume_tokens.clone();
    let reuse = !question.aside;
    Ok(Request { conversation, resume_tokens, sampling, max_tokens, reuse, ..Request::new(Vec::new()) })
}

/// The machines of a ring, in the order of their layers.
fn machines(ring: &Ring) -> Vec<String> {
    let mut machines: Vec<String> = ring.stages().into_iter().map(|stage| stage.placement.name).collect();
    machines.dedup();
    machines
}

/// An answer in progress.
struct Progress {
    events: mpsc::Receiver<Event>,
    ring: Ring,
    /// The machines that were told last.
    told: Vec<String>,
    /// Whether there was trouble since the last token.
    had_trouble: bool,
    /// Whether a machine was lost since then.
    has_lost: bool,
    /// The event that comes next.
    waiting: Option<AnswerEvent>,
}

impl Progress {
    async fn next(&mut self) -> Option<AnswerEvent> {
        if let Some(waiting) = self.waiting.take() {
            return Some(waiting);
        }
        Some(match self.events.recv().await? {
            Event::Reading { tokens, of } => AnswerEvent::Reading { tokens: tokens as u32, of: of as u32 },
            Event::Recovering(trouble) => {
                self.had_trouble = true;
                self.has_lost |= matches!(trouble, Trouble::Lost { .. });
                AnswerEvent::Recovering(trouble)
            }
            Event::Token { sampled, text } => {
                let token = AnswerEvent::Token { token: sampled.token, text };
                if !std::mem::take(&mut self.had_trouble) {
                    return Some(token);
                }
                // Trouble of another kind may also end with other machines.
                let now = machines(&self.ring);
                if !std::mem::take(&mut self.has_lost) && now == self.told {
                    return Some(token);
                }
                self.told.clone_from(&now);
                self.waiting = Some(token);
                AnswerEvent::Machines(now)
            }
            Event::Finished { text, summary } => AnswerEvent::Finished {
                text,
                prompt_tokens: summary.prompt_tokens as u32,
                tokens_per_s: summary.decode_tokens_per_s(),
                first_s: summary.time_to_first_token.as_secs_f64(),
                cut: summary.finish_reason == FinishReason::Length,
                tokens: summary.tokens,
            },
            Event::Failed(why) => AnswerEvent::Failed(why.into()),
        })
    }
}
