//! Tokens of a text, as a model's own tokenizer counts them. No model is loaded for that.

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use hive_node::serving::{ModelRequest, ServeError};
use hive_node::{CountError, Node, TextError};
use hive_types::{TokenCount, TokenCountRequest};

use crate::error::Refusal;
use crate::openai::serve_refusal;
use crate::rights::CHAT_OR_MODELS;
use crate::routes::Routes;
use crate::shared::Local;

/// Maximum size of a text: several times as long as what models read at once.
const LONGEST_TEXT_BYTES: usize = 2_000_000;

/// Leaves room for what JSON escapes.
const LONGEST_BODY_BYTES: usize = 2 * LONGEST_TEXT_BYTES;

pub(crate) fn routes() -> Routes<Local> {
    Routes::new()
        .post("/models/tokens", CHAT_OR_MODELS, count)
        .map(|router| router.layer(DefaultBodyLimit::max(LONGEST_BODY_BYTES)))
}

async fn count(
    State(node): State<Node>,
    Json(TokenCountRequest { model, text }): Json<TokenCountRequest>,
) -> Result<Json<TokenCount>, Refusal> {
    if text.len() > LONGEST_TEXT_BYTES {
        let why = format!("the text has {} bytes; at most {LONGEST_TEXT_BYTES} are counted", text.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", why).param("text"));
    }
    let wanted = model.as_deref().map_or_else(|| node.default_model(), ModelRequest::named);
    let (model, tokens) = node.count_tokens(&wanted, &text).await.map_err(count_refusal)?;
    Ok(Json(TokenCount { model, tokens }))
}

fn count_refusal(error: CountError) -> Refusal {
    match error {
        CountError::Find(error) => serve_refusal(ServeError::Find(error)),
        CountError::Text(error @ TextError::Start(_)) => Refusal::internal(error),
        CountError::Text(error) => Refusal::bad("model_unusable", error),
        CountError::NotRead => Refusal::unavailable("tokenizer_not_loaded", error),
    }
}
