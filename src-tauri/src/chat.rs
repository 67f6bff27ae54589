//! An answer, from the node to a window: text by the frame, not by the token.

use std::time::Duration;

use hive_node::serving::ModelRequest;
use hive_node::{Conversation, Event, FinishReason, Message, Reply, Request, Sampling, Summary};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri::ipc::Channel;
use tokio::sync::oneshot;

use crate::problem::Problem;
use crate::shell::Shell;

/// A frame of a screen.
const FRAME: Duration = Duration::from_millis(16);

/// Without it the starter model answers one question in four by saying the same words for ever.
const REPETITION_PENALTY: f32 = 1.1;

/// A question.
#[derive(Debug, Clone, Deserialize, Type)]
pub(crate) struct Ask {
    /// Names the answer, so that it can be stopped.
    pub(crate) id: String,
    /// The model; none is the starter model.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    pub(crate) messages: Vec<Turn>,
    /// Tokens of an answer that broke off, to go on from.
    pub(crate) said: Vec<u32>,
    /// How free the choice of words is; 0 is not at all.
    pub(crate) temperature: f32,
    /// The part of all probability that words are chosen from.
    pub(crate) top_p: f32,
    /// Longest answer, in tokens.
    pub(crate) max_tokens: Option<u32>,
    /// Fixes the choice of words.
    pub(crate) seed: u32,
    /// Options of the model's chat template, each as `NAME=VALUE`.
    pub(crate) options: Vec<String>,
    /// When the conversation began, in seconds since 1970.
    #[specta(type = Option<i32>)]
    pub(crate) began_s: Option<f64>,
}

/// A message.
#[derive(Debug, Clone, Deserialize, Type)]
pub(crate) struct Turn {
    /// `system`, `user` or `assistant`.
    pub(crate) role: String,
    /// Its text.
    pub(crate) text: String,
}

/// What happens to an answer.
#[derive(Debug, Clone, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum News {
    /// More of it.
    Text {
        /// The text.
        text: String,
        /// Its tokens.
        tokens: Vec<u32>,
    },
    /// So many tokens of the question are read.
    Reading {
        /// Tokens.
        tokens: u32,
        /// Of so many.
        of: u32,
    },
    /// A machine left; it goes on.
    Status {
        /// In words.
        text: String,
    },
    /// It is whole.
    Done {
        /// The last text.
        text: String,
        /// All its tokens.
        tokens: Vec<u32>,
        /// Tokens per second.
        #[specta(type = i32)]
        tokens_per_s: f64,
        /// Until the first word, in seconds.
        #[specta(type = i32)]
        first_s: f64,
        /// The machines that computed it.
        machines: Vec<String>,
        /// Whether it was cut for its length, and could be gone on with.
        cut: bool,
        /// Options that the model's chat template does not look at.
        unknown_options: Vec<String>,
    },
    /// It broke off; what came stands.
    Failed {
        /// Why.
        why: String,
    },
}

impl Ask {
    fn request(&self) -> Result<Request, Problem> {
        let message = |turn: &Turn| Message {
            role: turn.role.clone(),
            content: turn.text.clone().into(),
            more: serde_json::Map::default(),
        };
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            repetition_penalty: REPETITION_PENALTY,
            seed: u64::from(self.seed),
            ..Sampling::default()
        };
        let variables = self.options.iter().map(|option| hive_node::variable(option)).collect::<Result<_, _>>();
        let conversation = Conversation {
            variables: variables.map_err(Problem::of("bad_option"))?,
            began: self.began_s.and_then(hive_node::local_time),
            ..Conversation::new(self.messages.iter().map(message).collect::<Vec<_>>())
        };
        let max_tokens = self.max_tokens.map(|tokens| tokens as usize);
        Ok(Request { conversation, said: self.said.clone(), sampling, max_tokens, ..Request::new(Vec::new()) })
    }

    fn wanted(&self) -> ModelRequest {
        self.model.as_deref().map_or_else(ModelRequest::default, ModelRequest::named)
    }
}

/// Answers a question, until it is whole or stopped.
pub(crate) async fn answer(shell: &Shell, ask: &Ask, news: &Channel<News>) -> Result<(), Problem> {
    let (stop, stopped) = oneshot::channel();
    shell.answers().insert(ask.id.clone(), stop);
    let ended = tokio::select! {
        ended = tell(shell, ask, news) => ended,
        _ = stopped => Ok(()),
    };
    shell.answers().remove(&ask.id);
    ended
}

async fn tell(shell: &Shell, ask: &Ask, news: &Channel<News>) -> Result<(), Problem> {
    let request = ask.request()?;
    let asked = shell.node.generate(&ask.wanted(), &request).await;
    let Reply { mut events, ring, .. } = asked.map_err(Problem::of("not_answered"))?;
    let unknown_options = ring.model().unknown_options(&request.conversation).await.unwrap_or_default();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut frame = tokio::time::interval(FRAME);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = frame.tick(), if !tokens.is_empty() => {
                let more = News::Text { text: std::mem::take(&mut text), tokens: std::mem::take(&mut tokens) };
                // A window that has gone hears nothing more, and the answer ends with this function.
                if news.send(more).is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        let last = match event {
            Some(Event::Token { sampled, text: more }) => {
                tokens.push(sampled.token);
                text += &more;
                continue;
            }
            Some(Event::Reading { tokens, of }) => {
                let _ = news.send(News::Reading { tokens: tokens as u32, of: of as u32 });
                continue;
            }
            Some(Event::Recovering(why)) => {
                let _ = news.send(News::Status { text: why });
                continue;
            }
            Some(Event::Finished { text: rest, summary }) => done(text + &rest, &summary, unknown_options),
            Some(Event::Failed(why)) => {
                let _ = news.send(News::Text { text, tokens });
                News::Failed { why }
            }
            None => News::Failed { why: "the node has stopped".to_owned() },
        };
        let _ = news.send(last);
        return Ok(());
    }
}

fn done(text: String, summary: &Summary, unknown_options: Vec<String>) -> News {
    let mut machines: Vec<String> = summary.stages.iter().map(|stage| stage.placement.name.clone()).collect();
    machines.dedup();
    News::Done {
        text,
        tokens: summary.tokens.clone(),
        tokens_per_s: summary.decode_tokens_per_s(),
        first_s: summary.time_to_first_token.as_secs_f64(),
        machines,
        cut: summary.finish_reason == FinishReason::Length,
        unknown_options,
    }
}
