//! Proof of identity: a node proves that it knows the data folder's token before a client sends it that token.
//!
//! `api.json` outlives a killed node, and by then another program may listen on its port. So the command line first
//! sends a random nonce here and checks the proof ([`Token::is_proven`](crate::Token::is_proven)).

use axum::Json;
use axum::extract::{Query, State};
use data_encoding::HEXLOWER;
use hive_types::{Hello, HelloQuery};

use crate::error::Refusal;
use crate::rights::Needs;
use crate::routes::Routes;
use crate::shared::Shared;

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new().get("/hello", Needs::Nothing, hello)
}

async fn hello(
    State(shared): State<Shared>,
    Query(HelloQuery { nonce }): Query<HelloQuery>,
) -> Result<Json<Hello>, Refusal> {
    let nonce = HEXLOWER.decode(nonce.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let nonce = nonce.ok_or_else(|| Refusal::bad("invalid_value", "a nonce is 64 lower-case hexadecimal digits"))?;
    Ok(Json(Hello { proof: shared.tokens.prove(&nonce, shared.address) }))
}
