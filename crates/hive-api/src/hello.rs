//! Proof of identity: a node proves that it knows the data folder's token before a client sends it that token.
//!
//! `api.json` outlives a killed node, and by then another program may listen on its port. So the command line first
//! sends a random nonce here and checks the proof ([`Token::is_proven`](crate::Token::is_proven)).

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use hive_types::{Hello, HelloQuery};

use crate::Shared;
use crate::error::Refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/hello", get(hello))
}

async fn hello(
    State(shared): State<Shared>,
    Query(HelloQuery { nonce }): Query<HelloQuery>,
) -> Result<Json<Hello>, Refusal> {
    let nonce = HEXLOWER.decode(nonce.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let nonce = nonce.ok_or_else(|| Refusal::bad("invalid_value", "a nonce is 64 lower-case hexadecimal digits"))?;
    Ok(Json(Hello { proof: shared.tokens.prove(&nonce, shared.address) }))
}
