//! The model behind a chat: on nodes started in this process, or on a node that is already running.

use std::path::Path;

use hive_node::{Event, LocalSwarm, Request, models};
use hive_types::{AnswerFigures, AnswerNews, ReadingProgress, StageLayers};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, Events};
use crate::swarm::RunOptions;
use crate::{Failure, swarm};

/// Where the model runs.
pub(crate) enum Talk {
    Here(LocalSwarm),
    There { client: Client, model: Option<String>, stages: Option<usize> },
}

/// An event of an answer.
pub(crate) enum Piece {
    Text(String),
    /// An event on the way, in words; the answer continues.
    Note(String),
    /// Progress of reading the prompt.
    Reading {
        tokens: usize,
        of: usize,
    },
    /// The answer is complete.
    End(Box<Figures>),
}

/// Figures of an answer, as printed by `--json`.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) finish_reason: String,
    pub(crate) ttft_ms: f64,
    pub(crate) decode_tokens_per_s: f64,
    pub(crate) stages: Vec<StageLayers>,
    /// Options that the model's chat template does not use.
    pub(crate) unknown_options: Vec<String>,
}

/// The request field with the options of the chat template.
const OPTIONS: &str = "chat_template_kwargs";

/// An answer in progress. Dropping it cancels the answer.
pub(crate) enum Answer {
    Here {
        events: tokio::sync::mpsc::Receiver<Event>,
        unknown_options: Vec<String>,
    },
    There {
        events: Box<Events>,
        last: Option<Box<Figures>>,
        /// Whether the text so far ends inside thinking.
        thinks: bool,
    },
}

impl Talk {
    /// Uses a running node, unless the options describe nodes that the command starts itself.
    pub(crate) async fn open(run: &RunOptions, folder: &Path) -> Result<Self, Failure> {
        if !run.describes_own_nodes()
            && let Some(client) = Client::find(folder).await?
        {
            return Ok(Self::There { client, model: run.model.clone(), stages: run.stages });
        }
        Ok(Self::Here(swarm::start(run).await?))
    }

    /// The model's name and its machines, if known before the first request.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Here(swarm) => {
                format!(
                    "{} on {}",
                    swarm.ring().model().name(),
                    swarm::who(&swarm::stage_layers(&swarm.ring().stages()))
                )
            }
            Self::There { model, .. } => {
                format!("{} on the swarm", model.as_deref().unwrap_or(models::starter_name()))
            }
        }
    }

    /// Requests an answer to a conversation.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        match self {
            Self::Here(swarm) => {
                let events = swarm.ring().generate(&request).await.map_err(Failure::new)?;
                let unknown = swarm.ring().model().unknown_options(&request.conversation).await;
                Ok(Answer::Here { events, unknown_options: unknown.unwrap_or_default() })
            }
            Self::There { client, model, stages } => {
                let body = body(&request, model.as_deref(), *stages);
                let events = client.stream(reqwest::Method::POST, "/v1/chat/completions", &body).await?;
                Ok(Answer::There { events: Box::new(events), last: None, thinks: false })
            }
        }
    }

    /// Stops the node that was started for this chat.
    pub(crate) async fn close(self) {
        if let Self::Here(swarm) = self {
            swarm.stop().await;
        }
    }
}

impl Answer {
    /// The next piece; the last is always [`Piece::End`].
    pub(crate) async fn next(&mut self) -> Result<Piece, Failure> {
        let broke_off = || Failure::new("the answer was interrupted");
        match self {
            Self::Here { events, unknown_options } => match events.recv().await {
                Some(Event::Token { text, .. }) => Ok(Piece::Text(text)),
                Some(Event::Recovering(trouble)) => Ok(Piece::Note(trouble.to_string())),
                Some(Event::Reading { tokens, of }) => Ok(Piece::Reading { tokens, of }),
                Some(Event::Finished { text, summary }) if !text.is_empty() => {
                    // Return the last text first; the summary follows on the channel.
                    let (sender, rest) = tokio::sync::mpsc::channel(1);
                    let _ = sender.try_send(Event::Finished { text: String::new(), summary });
                    *events = rest;
                    Ok(Piece::Text(text))
                }
                Some(Event::Finished { summary, .. }) => Ok(Piece::End(Box::new(Figures {
                    tokens: summary.tokens.clone(),
                    prompt_tokens: summary.prompt_tokens as u64,
                    cached_tokens: summary.cached_tokens as u64,
                    completion_tokens: summary.tokens.len() as u64,
                    finish_reason: summary.finish_reason.as_str().to_owned(),
                    ttft_ms: summary.time_to_first_token.as_secs_f64() * 1e3,
                    decode_tokens_per_s: summary.decode_tokens_per_s(),
                    stages: swarm::stage_layers(&summary.stages),
                    unknown_options: std::mem::take(unknown_options),
                }))),
                Some(Event::Failed(why)) => Err(Failure::new(format_args!("the answer was interrupted: {why}"))),
                None => Err(broke_off()),
            },
            Self::There { events, last, thinks } => loop {
                let Some(chunk) = events.next::<Chunk>().await? else {
                    return last.take().map(Piece::End).ok_or_else(broke_off);
                };
                if let Some(usage) = chunk.usage {
                    if let Some(last) = last {
                        last.prompt_tokens = usage.prompt_tokens;
                        last.cached_tokens = usage.prompt_tokens_details.cached_tokens;
                        last.completion_tokens = usage.completion_tokens;
                    }
                    continue;
                }
                let figures = match chunk.hivemind {
                    Some(AnswerNews::Status { status }) => return Ok(Piece::Note(status)),
                    Some(AnswerNews::Reading { reading: ReadingProgress { tokens, of } }) => {
                        return Ok(Piece::Reading { tokens, of });
                    }
                    Some(AnswerNews::Figures(figures)) => figures,
                    None => AnswerFigures::default(),
                };
                let Some(choice) = chunk.choices.into_iter().next() else { continue };
                if let Some(reason) = choice.finish_reason {
                    *last = Some(Box::new(Figures::of(figures, reason)));
                } else if let Some(text) = choice.delta.text(thinks) {
                    return Ok(Piece::Text(text));
                }
            },
        }
    }
}

impl Figures {
    /// Figures of an answer from another node; its usage follows separately.
    fn of(figures: AnswerFigures, finish_reason: String) -> Self {
        let AnswerFigures { stages, tokens, ttft_ms, decode_tokens_per_s, ignored } = figures;
        Self {
            tokens,
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            finish_reason,
            ttft_ms,
            decode_tokens_per_s,
            stages,
            unknown_options: unknown_options(&ignored),
        }
    }
}

/// The ignored fields that are options of the chat template.
fn unknown_options(ignored: &[String]) -> Vec<String> {
    let name = |field: &String| Some(field.strip_prefix(OPTIONS)?.strip_prefix('.')?.to_owned());
    ignored.iter().filter_map(name).collect()
}

/// The parts of a streamed chunk that are used here.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    hivemind: Option<AnswerNews>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

impl Delta {
    /// The text as most models write it: thinking between marks, which chat templates take out of a message. `thinks`
    /// says whether the text before it ends inside thinking.
    fn text(self, thinks: &mut bool) -> Option<String> {
        if let Some(text) = self.reasoning_content {
            let begins = !std::mem::replace(thinks, true);
            return Some(if begins { format!("<think>\n{text}") } else { text });
        }
        let text = self.content?;
        let ends = std::mem::take(thinks);
        Some(if ends { format!("\n</think>\n\n{text}") } else { text })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: PromptTokens,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptTokens {
    cached_tokens: u64,
}

fn body(request: &Request, model: Option<&str>, stages: Option<usize>) -> Value {
    let sampling = &request.sampling;
    let conversation = &request.conversation;
    let mut body = json!({
        "model": model.unwrap_or_default(),
        "messages": conversation.messages,
        OPTIONS: conversation.variables,
        "stream": true,
        "stream_options": { "include_usage": true },
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed as i64,
        "stop": request.stop,
    });
    if let Some(max_tokens) = request.max_tokens {
        body["max_tokens"] = json!(max_tokens);
    }
    body["hivemind"] = json!({ "stages": stages, "said": request.resume_tokens, "date": conversation.began });
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_from_another_node_reads_as_a_model_writes_it() {
        let mut thinks = false;
        let deltas = [
            json!({ "role": "assistant", "content": "" }),
            json!({ "reasoning_content": "A bee" }),
            json!({ "reasoning_content": "?" }),
            json!({ "content": "Be" }),
            json!({ "content": "es." }),
            json!({}),
        ];
        let texts = deltas.map(|delta| serde_json::from_value::<Delta>(delta).unwrap().text(&mut thinks));
        let text: String = texts.into_iter().flatten().collect();
        assert_eq!(text, "<think>\nA bee?\n</think>\n\nBees.");
    }
}
