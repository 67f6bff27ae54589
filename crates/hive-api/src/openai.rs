//! OpenAI's interface: the models, and conversations with them, streamed or whole.
//!
//! What is not served (several choices, log probabilities, tools) is refused by name rather than ignored: an answer
//! that quietly lacks what was asked for is worse than none.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use hive_node::serving::{ServeError, Wish};
use hive_node::{
    AnswerError, Event, GenerateError, Message, PlacedStage, Reply, Request, Ring, Sampling, Summary, models,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::Shared;
use crate::error::Refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/models", get(list)).route("/chat/completions", post(chat))
}

async fn list() -> Json<Value> {
    let model = |id: String| json!({ "id": id, "object": "model", "created": 0, "owned_by": "hivemind" });
    Json(json!({ "object": "list", "data": models::names().into_iter().map(model).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
struct ChatRequest {
    #[serde(default)]
    model: String,
    messages: Vec<ChatMessage>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    #[serde(default)]
    logit_bias: std::collections::BTreeMap<u32, f32>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    n: Option<u32>,
    logprobs: Option<bool>,
    tools: Option<Vec<Value>>,
    response_format: Option<Value>,
    /// HiveMind's own wishes.
    hivemind: Option<HiveWish>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HiveWish {
    /// Over exactly so many machines.
    stages: Option<usize>,
    /// The answer ends after so many seconds, done or not.
    timeout_s: Option<f64>,
    /// Tokens of an answer that broke off, as its failure gave them: only what is missing is answered.
    #[serde(default)]
    said: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: Option<Content>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

impl ChatMessage {
    fn into_message(self) -> Result<Message, Refusal> {
        let content = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let text = |part: Part| match (part.kind.as_str(), part.text) {
                    ("text", Some(text)) => Ok(text),
                    (kind, _) => {
                        Err(Refusal::bad("unsupported", format!("message parts of type {kind} are not served")))
                    }
                };
                parts.into_iter().map(text).collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        Ok(Message { role: self.role, content, more: self.more })
    }
}

impl ChatRequest {
    fn check(&self) -> Result<(), Refusal> {
        let unsupported = |what: &str| Err(Refusal::bad("unsupported", format!("{what} not served yet")));
        if self.n.is_some_and(|n| n != 1) {
            return unsupported("several choices (n) are");
        }
        if self.logprobs == Some(true) {
            return unsupported("log probabilities are");
        }
        if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            return unsupported("tools are");
        }
        if self.response_format.as_ref().is_some_and(|format| format["type"] != "text") {
            return unsupported("response formats other than text are");
        }
        if self.messages.is_empty() {
            return Err(Refusal::bad("no_messages", "there is no message to answer"));
        }
        Ok(())
    }

    fn wish(&self) -> Wish {
        let starter = self.model.is_empty() || self.model == models::starter_name();
        let model = (!starter).then(|| self.model.clone());
        Wish { model, stages: self.hivemind.as_ref().and_then(|wish| wish.stages) }
    }

    fn into_request(self) -> Result<Request, Refusal> {
        let arbitrary = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let defaults = Sampling::default();
        let sampling = Sampling {
            // OpenAI's default; greedy is asked for with 0.
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias: self.logit_bias,
            seed: self.seed.map_or(arbitrary, |seed| seed as u64),
            ..defaults
        };
        let messages = self.messages.into_iter().map(ChatMessage::into_message).collect::<Result<_, _>>()?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(OneOrMany::One(text)) => vec![text],
            Some(OneOrMany::Many(texts)) => texts,
        };
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        let (timeout_s, said) = self.hivemind.map_or((None, Vec::new()), |wish| (wish.timeout_s, wish.said));
        let time = |seconds| Duration::try_from_secs_f64(seconds).map_err(|error| Refusal::bad("invalid_value", error));
        let deadline = timeout_s.map(time).transpose()?;
        Ok(Request { said, sampling, max_tokens, stop, deadline, ..Request::new(messages) })
    }
}

pub(crate) fn serve_refusal(error: ServeError) -> Refusal {
    match error {
        ServeError::Find(error) => Refusal::missing("model_not_found", error),
        ServeError::Plan(error) => Refusal::bad("no_plan", error),
        error @ ServeError::TooFew { .. } => Refusal::bad("too_few_machines", error),
        error @ ServeError::ByHand(_) => Refusal::bad("bad_plan", error),
        ServeError::Load(error) => Refusal::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "not_loaded", error),
    }
}

fn generate_refusal(error: GenerateError) -> Refusal {
    match error {
        GenerateError::TooLong { .. } | GenerateError::NoRoom { .. } => Refusal::bad("context_length_exceeded", error),
        error => Refusal::bad("invalid_value", error),
    }
}

async fn chat(State(shared): State<Shared>, body: axum::body::Bytes) -> Result<Response, Refusal> {
    let request: ChatRequest =
        serde_json::from_slice(&body).map_err(|error| Refusal::bad("invalid_json", format!("the request: {error}")))?;
    request.check()?;
    let (stream, usage) = (request.stream, request.stream_options.as_ref().is_some_and(|o| o.include_usage));
    let wish = request.wish();
    let request = request.into_request()?;
    let so_far = SoFar { text: String::new(), tokens: request.said.clone(), seed: request.sampling.seed };
    let answer = shared.node.generate(&wish, &request).await;
    let Reply { id, ring, events } = answer.map_err(|error| match error {
        AnswerError::Serve(error) => serve_refusal(error),
        AnswerError::Generate(error) => generate_refusal(error),
    })?;
    let head = Head::new(id, &ring);
    if stream {
        let frames = frames(events, head, usage, so_far).map(Ok::<_, Infallible>);
        return Ok(Sse::new(frames).keep_alive(KeepAlive::default()).into_response());
    }
    let (text, summary) = whole(events, so_far).await?;
    Ok(Json(json!({
        "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "logprobs": null,
            "finish_reason": summary.finish_reason.as_str(),
        }],
        "usage": usage_of(&summary),
        "hivemind": figures(&summary),
    }))
    .into_response())
}

/// What every part of an answer begins with.
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(id: u64, ring: &Ring) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { id: format!("chatcmpl-{id}"), created: now.as_secs(), model: ring.model().name() }
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }],
        })
    }
}

/// HiveMind's own figures: who computed, how fast, and the tokens themselves.
fn figures(summary: &Summary) -> Value {
    let stage =
        |stage: &PlacedStage| json!({ "node": stage.placement.name, "layers": [stage.layers.start, stage.layers.end] });
    json!({
        "stages": summary.stages.iter().map(stage).collect::<Vec<_>>(),
        "tokens": summary.tokens,
        "ttft_ms": summary.time_to_first_token.as_secs_f64() * 1e3,
        "decode_tokens_per_s": summary.decode_tokens_per_s(),
    })
}

fn usage_of(summary: &Summary) -> Value {
    let (prompt, completion) = (summary.prompt_tokens, summary.tokens.len());
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": summary.cached_tokens },
    })
}

/// What there is of an answer. If it breaks off, this is what it can be gone on with.
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
            .hint("ask again with these tokens as hivemind.said, and this seed, to go on from here")
            .more(json!({ "text": text, "tokens": tokens, "seed": seed }))
    }
}

async fn whole(mut events: mpsc::Receiver<Event>, mut so_far: SoFar) -> Result<(String, Summary), Refusal> {
    loop {
        match events.recv().await {
            Some(Event::Token { sampled, text }) => so_far.add(sampled.token, &text),
            Some(Event::Recovering(_) | Event::Reading { .. }) => {}
            Some(Event::Finished { text, summary }) => return Ok((so_far.text + &text, summary)),
            Some(Event::Failed(why)) => return Err(so_far.broken(&why)),
            None => return Err(so_far.broken("the node has stopped")),
        }
    }
}

/// An answer as server-sent events. A reader that goes away drops the stream, and with it the answer.
fn frames(events: mpsc::Receiver<Event>, head: Head, usage: bool, so_far: SoFar) -> impl Stream<Item = SseEvent> {
    let data = |value: &Value| SseEvent::default().data(value.to_string());
    let first = data(&head.chunk(&json!({ "role": "assistant", "content": "" }), None));
    let rest = futures_util::stream::unfold(Some((events, head, so_far)), move |state| async move {
        let (mut events, head, mut so_far) = state?;
        let text = |text: &str| data(&head.chunk(&json!({ "content": text }), None));
        let done = SseEvent::default().data("[DONE]");
        Some(match events.recv().await {
            Some(Event::Token { sampled, text: piece }) => {
                so_far.add(sampled.token, &piece);
                // Text that is not certain yet is no event.
                let news = if piece.is_empty() { Vec::new() } else { vec![text(&piece)] };
                (news, Some((events, head, so_far)))
            }
            Some(Event::Recovering(status)) => {
                let mut chunk = head.chunk(&json!({}), None);
                chunk["hivemind"] = json!({ "status": status });
                (vec![data(&chunk)], Some((events, head, so_far)))
            }
            Some(Event::Reading { tokens, of }) => {
                let mut chunk = head.chunk(&json!({}), None);
                chunk["hivemind"] = json!({ "reading": { "tokens": tokens, "of": of } });
                (vec![data(&chunk)], Some((events, head, so_far)))
            }
            Some(Event::Finished { text: piece, summary }) => {
                let mut last = Vec::new();
                if !piece.is_empty() {
                    last.push(text(&piece));
                }
                let mut end = head.chunk(&json!({}), Some(summary.finish_reason.as_str()));
                end["hivemind"] = figures(&summary);
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
            Some(Event::Failed(why)) => (vec![data(&so_far.broken(&why).body()), done], None),
            None => (vec![data(&so_far.broken("the node has stopped").body()), done], None),
        })
    });
    futures_util::stream::once(async move { first }).chain(rest.flat_map(futures_util::stream::iter))
}
