//! Error responses: a status, a stable code, a message and a hint.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hive_node::border;
use hive_types::{ErrorBody, ErrorDetails, ErrorKind, ErrorReply};

/// Maximum width of a message, in columns; longer than any of ours, whatever it quotes.
const LONGEST_MESSAGE_COLUMNS: usize = 2000;

/// Why a request was refused.
///
/// The body suits both kinds of clients: OpenAI clients read `error.message`, `error.type` and `error.code`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    pub(crate) code: &'static str,
    message: String,
    hint: Option<Box<str>>,
    /// The request field at fault.
    param: Option<Box<str>>,
    /// Details for HiveMind's own clients.
    more: Option<Box<ErrorDetails>>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl std::fmt::Display) -> Self {
        // A message may quote an untrusted file or another machine.
        let message = border::line(&message.to_string(), LONGEST_MESSAGE_COLUMNS);
        Self { status, code, message, hint: None, param: None, more: None }
    }

    pub(crate) fn bad(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn missing(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn conflict(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(crate) fn unavailable(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(crate) fn forbidden(code: &'static str, message: &str, hint: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message).hint(hint)
    }

    pub(crate) fn unauthorized(message: &str, hint: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message).hint(hint)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the request field at fault.
    pub(crate) fn param(mut self, field: impl Into<Box<str>>) -> Self {
        self.param = Some(field.into());
        self
    }

    pub(crate) fn more(mut self, more: ErrorDetails) -> Self {
        self.more = Some(Box::new(more));
        self
    }

    fn reply(self) -> ErrorReply {
        let is_the_requests = self.status.is_client_error();
        ErrorReply {
            error: ErrorBody {
                message: self.message,
                kind: if is_the_requests { ErrorKind::InvalidRequestError } else { ErrorKind::ServerError },
                code: self.code.to_owned(),
                param: self.param.map(String::from),
                hint: self.hint.map(String::from),
                hivemind: self.more.map(|more| *more),
            },
        }
    }

    /// The body as JSON, for a stream event.
    pub(crate) fn into_json(self) -> String {
        serde_json::to_string(&self.reply()).unwrap_or_default()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.reply())).into_response()
    }
}

/// Endpoints that other servers have and this one does not.
const ELSEWHERE: [&str; 9] =
    ["completions", "embeddings", "responses", "audio", "images", "moderations", "files", "messages", "rerank"];

pub(crate) async fn not_found(at: Uri) -> Refusal {
    let what = at.path().trim_matches('/');
    let what = what.strip_prefix("v1/").unwrap_or(what);
    if ELSEWHERE.iter().any(|other| what.split('/').next() == Some(*other)) {
        return Refusal::missing("not_served", format!("\"/v1/{what}\" is not served"))
            .hint("conversations are answered at POST /v1/chat/completions");
    }
    Refusal::missing("not_found", "there is nothing at this address")
        .hint("OpenAI clients take http://127.0.0.1:PORT/v1 as their base URL")
}

/// Maximum size of a library's error text, in bytes.
const LONGEST_REFUSAL_BYTES: usize = 4096;

/// Converts a library's plain-text error (wrong method, body that is not JSON) to this API's JSON form.
pub(crate) async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !(status.is_client_error() || status.is_server_error()) || is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let words = to_bytes(body, LONGEST_REFUSAL_BYTES).await.unwrap_or_default();
    let (code, otherwise) = match status {
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this address takes another method"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_long", "the request is too long"),
        _ if status.is_client_error() => ("invalid_request", "the request is not understood"),
        _ => ("failed", "it failed"),
    };
    let words = String::from_utf8_lossy(&words);
    let words = if words.trim().is_empty() { otherwise } else { words.trim() };
    let mut refusal = Refusal::new(status, code, words).into_response();
    if let Some(allowed) = parts.headers.get(header::ALLOW) {
        refusal.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    refusal
}
