//! Refusals, as programs read them: a status, a code that stays, a message and a hint for people.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hive_node::border;
use serde_json::json;

/// More than any message of ours has, whatever it quotes.
const LONGEST_MESSAGE_COLUMNS: usize = 2000;

/// Why a request was not served.
///
/// The body suits both of our kinds of callers: OpenAI's clients read `error.message`, `error.type` and `error.code`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    pub(crate) code: &'static str,
    message: String,
    hint: Option<String>,
    /// What HiveMind's own clients can use.
    more: Option<serde_json::Value>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl std::fmt::Display) -> Self {
        // A message may quote a stranger's file, or another machine.
        let message = border::line(&message.to_string(), LONGEST_MESSAGE_COLUMNS);
        Self { status, code, message, hint: None, more: None }
    }

    pub(crate) fn bad(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn missing(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
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

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn more(mut self, more: serde_json::Value) -> Self {
        self.more = Some(more);
        self
    }

    pub(crate) fn body(&self) -> serde_json::Value {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let mut body =
            json!({ "error": { "message": self.message, "type": kind, "code": self.code, "hint": self.hint } });
        if let Some(more) = &self.more {
            body["error"]["hivemind"] = more.clone();
        }
        body
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

pub(crate) async fn not_found() -> Refusal {
    Refusal::missing("not_found", "there is nothing at this address")
}
