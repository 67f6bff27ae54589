//! Sends an answer from the node to a window, batched per screen frame instead of per token.

use std::time::Duration;

use hive_node::serving::ModelRequest;
use hive_node::{Conversation, Event, FinishReason, Message, Reply, Request, Sampling, Summary};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri::ipc::Channel;
use tokio::sync::oneshot;

use crate::problem::Problem;
use crate::shell::Shell;

/// One frame at 60 Hz.
const FRAME: Duration = Duration::from_millis(16);

/// Without it, the starter model repeats itself forever on one question in four.
const REPETITION_PENALTY: f32 = 1.1;

/// A chat request.
#[derive(Debug, Clone, Deserialize, Type)]
pub(crate) struct Ask {
    /// ID of the answer, by which it can be stopped.
    pub(crate) id: String,
    /// The model; none selects the starter model.
    pub(crate) model: Option<String>,
    /// The conversation so far.
    pub(crate) messages: Vec<Turn>,
    /// Tokens of an interrupted answer, to resume from.
    pub(crate) said: Vec<u32>,
    /// Sampling temperature; 0 is greedy.
    pub(crate) temperature: f32,
    /// Nucleus sampling: the share of probability to sample from.
    pub(crate) top_p: f32,
    /// Maximum length of the answer, in tokens.
    pub(crate) max_tokens: Option<u32>,
    /// Sampling seed.
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

/// An event of an answer.
#[derive(Debug, Clone, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum News {
    /// More text.
    Text {
        /// The text.
        text: String,
        /// Its tokens.
        tokens: Vec<u32>,
    },
    /// Progress of reading the prompt.
    Reading {
        /// Tokens read so far.
        tokens: u32,
        /// Tokens in total.
        of: u32,
    },
    /// A machine left; the answer continues.
    Status {
        /// What happened, in words.
        text: String,
    },
    /// The answer is complete.
    Done {
        /// The last piece of text.
        text: String,
        /// All tokens of the answer.
        tokens: Vec<u32>,
        /// Speed in tokens per second.
        #[specta(type = i32)]
        tokens_per_s: f64,
        /// Time to first token, in seconds.
        #[specta(type = i32)]
        first_s: f64,
        /// The machines that computed it.
        machines: Vec<String>,
        /// Whether it reached its maximum length and can be continued.
        cut: bool,
        /// Options that the model's chat template does not use.
        unknown_options: Vec<String>,
    },
    /// The answer was interrupted; its text so far is kept.
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
        Ok(Request { conversation, resume_tokens: self.said.clone(), sampling, max_tokens, ..Request::new(Vec::new()) })
    }

    fn wanted(&self) -> ModelRequest {
        self.model.as_deref().map_or_else(ModelRequest::default, ModelRequest::named)
    }
}

/// Answers a question until the answer is complete or stopped.
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
                // The window is closed; returning here cancels the answer.
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
