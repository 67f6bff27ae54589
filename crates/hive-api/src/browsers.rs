//! The routes of browsers: make a link that lets one in, and exchange its code for a token of the browser's own.

use axum::Json;
use axum::extract::State;
use hive_types::{BrowserLink, IssuedToken, NewBrowser, Right};

use crate::error::Refusal;
use crate::rights::{ADMIN, Needs};
use crate::routes::Routes;
use crate::shared::Shared;
use crate::tokens::TokenError;
use crate::web;

/// The rights of a browser: everything that its pages show.
const RIGHTS: [Right; 5] = [Right::Chat, Right::Models, Right::Machines, Right::Conversations, Right::Browser];

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new().post("/browsers", Needs::Nothing, enter).post("/browsers/links", ADMIN, make)
}

async fn make(State(shared): State<Shared>) -> Result<Json<BrowserLink>, Refusal> {
    let link = shared.web.link(&web::addresses(&shared.node)).ok_or_else(|| {
        Refusal::conflict("browsers_off", "HiveMind is not open to browsers")
            .hint("turn it on in Settings, or start the node with `hivemind node --browser here`")
    })?;
    Ok(Json(link))
}

/// Exchanges a code for a token.
async fn enter(
    State(shared): State<Shared>,
    Json(NewBrowser { code, name }): Json<NewBrowser>,
) -> Result<Json<IssuedToken>, Refusal> {
    if !shared.links.take(&code) {
        return Err(Refusal::forbidden(
            "link_used",
            "this link was used before, or is more than ten minutes old",
            "make a new one where HiveMind runs",
        ));
    }
    let added = tokio::task::spawn_blocking(move || {
        // Two phones of a kind have the same name.
        (1..=100).find_map(|number| {
            let name = if number == 1 { name.clone() } else { format!("{name} {number}") };
            match shared.tokens.add(&name, &RIGHTS) {
                Err(TokenError::Taken(_)) => None,
                added => Some(added.map(|token| IssuedToken { name, token: token.as_str().to_owned() })),
            }
        })
    });
    let added = added.await.map_err(Refusal::internal)?;
    let taken = || Refusal::conflict("taken", "too many browsers have that name");
    Ok(Json(added.ok_or_else(taken)?.map_err(crate::tokens::refusal)?))
}
