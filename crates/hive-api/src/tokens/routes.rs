//! The routes that manage programs' tokens.

use axum::Json;
use axum::extract::{Path, State};
use hive_types::{Done, IssuedToken, NewToken, OwnerTokenRenewal, TokenList};

use super::{TokenError, Tokens, refusal};
use crate::error::Refusal;
use crate::rights::ADMIN;
use crate::routes::Routes;
use crate::shared::Shared;
use crate::token::{self, Token};

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new()
        .get("/tokens", ADMIN, list)
        .post("/tokens", ADMIN, add)
        .delete("/tokens/{name}", ADMIN, remove)
        .post("/tokens/{name}/renew", ADMIN, renew)
        .post("/owner-token/renew", ADMIN, renew_owner)
}

async fn list(State(shared): State<Shared>) -> Json<TokenList> {
    Json(TokenList { tokens: shared.tokens.views() })
}

async fn add(
    State(shared): State<Shared>,
    Json(NewToken { name, may }): Json<NewToken>,
) -> Result<Json<IssuedToken>, Refusal> {
    let (name, token) = aside(shared, move |tokens| tokens.add(&name, &may).map(|token| (name, token))).await?;
    Ok(shown_once(name, &token))
}

async fn remove(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Done>, Refusal> {
    aside(shared, move |tokens| tokens.remove(&name)).await?;
    Ok(Json(Done::DONE))
}

async fn renew(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<IssuedToken>, Refusal> {
    let renewed = aside(shared, move |tokens| tokens.renew(&name).map(|renewed| (name, renewed))).await?;
    let (name, (token, _revocation)) = renewed;
    Ok(shown_once(name, &token))
}

async fn renew_owner(State(shared): State<Shared>) -> Result<Json<OwnerTokenRenewal>, Refusal> {
    let _revocation = aside(shared, Tokens::renew_owner).await?;
    Ok(Json(OwnerTokenRenewal { done: true, file: token::FILE.to_owned() }))
}

fn shown_once(name: String, token: &Token) -> Json<IssuedToken> {
    Json(IssuedToken { name, token: token.as_str().to_owned() })
}

/// Changes tokens off the async runtime, since a disk may be slow.
async fn aside<T: Send + 'static>(
    shared: Shared,
    change: impl FnOnce(&Tokens) -> Result<T, TokenError> + Send + 'static,
) -> Result<T, Refusal> {
    let changed = tokio::task::spawn_blocking(move || change(&shared.tokens)).await.map_err(Refusal::internal)?;
    changed.map_err(refusal)
}
