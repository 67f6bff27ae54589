//! Who listens here: a node proves that it knows the data folder's token, before anybody sends it that token.
//!
//! `api.json` outlives a node that was killed, and another program may listen on its port by then. So the command line
//! asks this first, with a random number, and looks at the proof ([`Token::is_proven`](crate::Token::is_proven)).

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::Shared;
use crate::error::Refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new().route("/hello", get(hello))
}

#[derive(Deserialize)]
struct Asked {
    /// 32 bytes, as lower-case hexadecimal digits.
    nonce: String,
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// HMAC-SHA256 of the address and the number, keyed with the owner's token, as hexadecimal digits.
    pub proof: String,
}

async fn hello(State(shared): State<Shared>, Query(Asked { nonce }): Query<Asked>) -> Result<Json<Hello>, Refusal> {
    let nonce = HEXLOWER.decode(nonce.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let nonce = nonce.ok_or_else(|| Refusal::bad("invalid_value", "a nonce is 64 lower-case hexadecimal digits"))?;
    Ok(Json(Hello { proof: shared.tokens.prove(&nonce, shared.address) }))
}
