//! OpenAI's API: list models and chat with them, streamed or whole.
//!
//! Unsupported features (several choices, log probabilities, tools) are refused by name rather than ignored: an answer
//! that silently ignores part of a request is worse than none.

mod ask;
mod fields;
mod json;

use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use hive_node::models::FindError;
use hive_node::reasoning::{Piece, Splitter};
use hive_node::serving::ServeError;
use hive_node::{
    AnswerError, Event, GenerateError, ModelOnDisk, PlacedStage, Reply, Ring, RingError, Summary, TextError,
};
use hive_types::{AnswerFigures, AnswerNews, ErrorDetails, ReadingProgress, StageLayers};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::Refusal;
use crate::rights::{CHAT, CHAT_OR_MODELS};
use crate::routes::Routes;
use crate::shared::Shared;
use ask::Asked;

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new()
        .get("/models", CHAT_OR_MODELS, list)
        .get("/models/{*id}", CHAT_OR_MODELS, one)
        .post("/chat/completions", CHAT, chat)
        .map(|router| router.layer(DefaultBodyLimit::max(LONGEST_BODY_BYTES)))
}

/// Usable models only. `/hive/v1/models` also lists those that cannot be loaded, and why.
async fn list(State(shared): State<Shared>) -> Json<Value> {
    let models = shared.node.models().await;
    let usable = models.iter().filter(|model| model.unusable.is_none());
    let names = |model: &ModelOnDisk| {
        std::iter::once(&model.name).chain(&model.aliases).chain(&model.adapted).cloned().collect::<Vec<_>>()
    };
    let listed = usable.flat_map(|model| names(model).into_iter().map(|id| listed(&id, model)));
    Json(json!({ "object": "list", "data": listed.collect::<Vec<_>>() }))
}

/// One model. Names contain slashes.
async fn one(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let models = shared.node.models().await;
    match models.iter().find(|model| model.name == id || model.aliases.contains(&id) || model.adapted.contains(&id)) {
        Some(ModelOnDisk { unusable: Some(why), .. }) => Err(Refusal::bad("model_unusable", why)),
        Some(model) => Ok(Json(listed(&id, model))),
        None => Err(Refusal::missing("model_not_found", format!("there is no model \"{id}\" here"))
            .hint("GET /v1/models lists those there are")),
    }
}

/// A model under one of its names.
fn listed(id: &str, model: &ModelOnDisk) -> Value {
    json!({
        "id": id, "object": "model", "created": 0, "owned_by": "hivemind",
        "hivemind": {
            "name": model.name, "adapter": model.adapted.iter().any(|name| name == id),
            "also_on": model.also_on, "lacking": model.lacking,
        },
    })
}

/// Maps a fault of the model or the request to a client error, which is not retried, and a fault of a machine to a
/// server error, which may be.
pub(crate) fn serve_refusal(error: ServeError) -> Refusal {
    let code = match error.cause() {
        ServeError::Find(FindError::NoStarter | FindError::Unknown { .. } | FindError::Other { .. }) => {
            return Refusal::missing("model_not_found", error).hint("GET /v1/models lists those there are");
        }
        ServeError::Find(FindError::Open(TextError::Start(_)))
        | ServeError::Load(RingError::Text(TextError::Start(_))) => {
            return Refusal::internal(error);
        }
        ServeError::Find(FindError::Open(_)) | ServeError::Load(RingError::Unfit(_) | RingError::Text(_)) => {
            "model_unusable"
        }
        ServeError::Find(FindError::Unfetched { .. }) => {
            return Refusal::new(StatusCode::BAD_GATEWAY, "model_not_fetched", error);
        }
        // The hub refuses this owner, not the program that asks.
        ServeError::Find(FindError::Denied { .. }) => {
            return Refusal::new(StatusCode::BAD_GATEWAY, "model_denied", error);
        }
        ServeError::Find(FindError::Several { .. } | FindError::SeveralFiles { .. }) => "several_models",
        ServeError::Plan { .. } => "no_plan",
        ServeError::TooFew { .. } => "too_few_machines",
        ServeError::ManualPlan(_) => "bad_plan",
        ServeError::Load(RingError::Lacking(_)) => "model_missing_there",
        ServeError::Load(RingError::Stage { .. }) => {
            return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_loaded", error);
        }
        // Client libraries repeat a conflict by themselves, and would resume the download.
        ServeError::Paused(_) => "download_paused",
        ServeError::Stopping => return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", error),
        ServeError::Shared(_) => return Refusal::internal(error),
    };
    Refusal::bad(code, error)
}

/// Maps the error of an answer that did not begin.
pub(crate) fn answer_refusal(error: AnswerError) -> Refusal {
    match error {
        AnswerError::Serve(error) => serve_refusal(error),
        AnswerError::Generate(error) => generate_refusal(error),
    }
}

fn generate_refusal(error: GenerateError) -> Refusal {
    match error {
        GenerateError::TooLong { .. } | GenerateError::NoRoom { .. } => Refusal::bad("context_length_exceeded", error),
        GenerateError::Adapter(_) => Refusal::bad("adapter_not_usable", error),
        GenerateError::Prompt(TextError::Start(_)) => Refusal::internal(error),
        error => Refusal::bad("invalid_value", error),
    }
}

async fn chat(State(shared): State<Shared>, body: Result<Bytes, BytesRejection>) -> Result<Response, Refusal> {
    let Asked { wanted, request, stream, usage, options, mut ignored } = ask::read(&body.map_err(too_long)?)?;
    let so_far = SoFar { text: String::new(), tokens: request.resume_tokens.clone(), seed: request.sampling.seed };
    let answer = shared.node.generate(&wanted, &request).await;
    let Reply { id, ring, events } = answer.map_err(answer_refusal)?;
    // The answer has begun; failing to check its template options does not end it.
    let unknown = ring.model().unknown_options(&request.conversation).await.unwrap_or_default();
    ignored.extend(unknown.into_iter().filter_map(|name| options.get(&name).cloned()));
    // Nor does failing to ask how it thinks.
    let splitter = ring.model().splitter(&request.conversation, &request.resume_tokens).await;
    let splitter = splitter.unwrap_or_else(|_| Splitter::new(None, false));
    let head = Head::new(id, &ring, ignored);
    if stream {
        let frames = frames(events, head, usage, so_far, splitter).map(Ok::<_, Infallible>);
        return Ok(Sse::new(frames).keep_alive(KeepAlive::default()).into_response());
    }
    let (message, summary) = whole(events, so_far, splitter).await?;
    Ok(Json(json!({
        "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": summary.finish_reason.as_str(),
        }],
        "usage": usage_of(&summary),
        "hivemind": head.figures(&summary),
    }))
    .into_response())
}

/// Maximum request body, in bytes: the longest conversation with all its JSON, at several bytes per character.
pub(crate) const LONGEST_BODY_BYTES: usize = 64_000_000;

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn too_long(rejection: BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the request is longer than {} MB", LONGEST_BODY_BYTES / 1_000_000);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", message).hint("leave out the oldest messages")
        }
        _ => Refusal::bad("broken_off", "the request broke off"),
    }
}

/// Fields common to every chunk of an answer.
struct Head {
    id: String,
    created: u64,
    model: String,
    /// Request fields that had no effect.
    ignored: Vec<String>,
}

impl Head {
    fn new(id: u64, ring: &Ring, ignored: Vec<String>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { id: format!("chatcmpl-{id}"), created: now.as_secs(), model: ring.model().name(), ignored }
    }

    /// HiveMind's own figures: stages, speed, tokens, and request fields that had no effect.
    fn figures(&self, summary: &Summary) -> AnswerNews {
        let stage = |stage: &PlacedStage| StageLayers {
            node: stage.placement.name.clone(),
            layers: [stage.layers.start, stage.layers.end],
        };
        AnswerNews::Figures(AnswerFigures {
            stages: summary.stages.iter().map(stage).collect(),
            tokens: summary.tokens.clone(),
            ttft_ms: summary.time_to_first_token.as_secs_f64() * 1e3,
            decode_tokens_per_s: summary.decode_tokens_per_s(),
            ignored: self.ignored.clone(),
        })
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }],
        })
    }
}

fn usage_of(summary: &Summary) -> Value {
    let (prompt, completion) = (summary.prompt_tokens, summary.tokens.len());
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": summary.cached_tokens },
    })
}

/// The answer so far; if it is interrupted, the client can resume from this.
struct SoFar {
    text: String,
    tokens: Vec<u32>,
    seed: u64,
}

impl SoFar {
    fn add(&mut self, token: u32, text: &str) {
        self.tokens.push(token);
        self.text += text;
    }

    fn broken(self, why: &str) -> Refusal {
        let Self { text, tokens, seed } = self;
        Refusal::internal(format!("the answer broke off: {why}"))
            .hint("send these tokens as hivemind.said with the same seed to continue from here")
            .more(ErrorDetails::BrokenAnswer { text, tokens, seed })
    }
}

/// The message of an answer, with its thinking beside it, and the answer in numbers.
async fn whole(
    mut events: mpsc::Receiver<Event>,
    mut so_far: SoFar,
    mut splitter: Splitter,
) -> Result<(Value, Summary), Refusal> {
    let (mut thinking, mut content) = (String::new(), String::new());
    let mut add = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Thinking(text) => thinking += &text,
                Piece::Answer(text) => content += &text,
            }
        }
    };
    let summary = loop {
        match events.recv().await {
            Some(Event::Token { sampled, text }) => {
                so_far.add(sampled.token, &text);
                add(splitter.push(&text));
            }
            Some(Event::Recovering(_) | Event::Reading { .. }) => {}
            Some(Event::Finished { text, summary }) => {
                add(splitter.push(&text));
                add(splitter.finish());
                break summary;
            }
            Some(Event::Failed(why)) => return Err(so_far.broken(&why)),
            None => return Err(so_far.broken("the node has stopped")),
        }
    };
    let mut message = json!({ "role": "assistant", "content": content });
    if !thinking.is_empty() {
        message["reasoning_content"] = thinking.into();
    }
    Ok((message, summary))
}

/// A part of an answer, as a chunk has it.
fn delta(piece: &Piece) -> Value {
    match piece {
        Piece::Thinking(text) => json!({ "reasoning_content": text }),
        Piece::Answer(text) => json!({ "content": text }),
    }
}

/// Streams an answer as server-sent events. A client that disconnects drops the stream, which cancels the answer.
fn frames(
    events: mpsc::Receiver<Event>,
    head: Head,
    usage: bool,
    so_far: SoFar,
    splitter: Splitter,
) -> impl Stream<Item = SseEvent> {
    let data = |value: &Value| SseEvent::default().data(value.to_string());
    let first = data(&head.chunk(&json!({ "role": "assistant", "content": "" }), None));
    let rest = futures_util::stream::unfold(Some((events, head, so_far, splitter)), move |state| async move {
        let (mut events, head, mut so_far, mut splitter) = state?;
        let chunks = |pieces: Vec<Piece>| -> Vec<SseEvent> {
            pieces.iter().map(|piece| data(&head.chunk(&delta(piece), None))).collect()
        };
        let done = SseEvent::default().data("[DONE]");
        Some(match events.recv().await {
            Some(Event::Token { sampled, text: piece }) => {
                so_far.add(sampled.token, &piece);
                // Text that may still change is held back and sends no event.
                let news = chunks(splitter.push(&piece));
                (news, Some((events, head, so_far, splitter)))
            }
            Some(Event::Recovering(trouble)) => {
                let mut chunk = head.chunk(&json!({}), None);
                chunk["hivemind"] = json!(AnswerNews::Status { status: trouble.to_string() });
                (vec![data(&chunk)], Some((events, head, so_far, splitter)))
            }
            Some(Event::Reading { tokens, of }) => {
                let mut chunk = head.chunk(&json!({}), None);
                chunk["hivemind"] = json!(AnswerNews::Reading { reading: ReadingProgress { tokens, of } });
                (vec![data(&chunk)], Some((events, head, so_far, splitter)))
            }
            Some(Event::Finished { text: piece, summary }) => {
                let mut last = chunks(splitter.push(&piece));
                last.extend(chunks(splitter.finish()));
                let mut end = head.chunk(&json!({}), Some(summary.finish_reason.as_str()));
                end["hivemind"] = json!(head.figures(&summary));
                last.push(data(&end));
                if usage {
                    let mut chunk = head.chunk(&json!({}), None);
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage_of(&summary);
                    last.push(data(&chunk));
                }
                last.push(done);
                (last, None)
            }
            Some(Event::Failed(why)) => (vec![SseEvent::default().data(so_far.broken(&why).into_json()), done], None),
            None => {
                let broken = so_far.broken("the node has stopped").into_json();
                (vec![SseEvent::default().data(broken), done], None)
            }
        })
    });
    futures_util::stream::once(async move { first }).chain(rest.flat_map(futures_util::stream::iter))
}

#[cfg(test)]
mod tests;
