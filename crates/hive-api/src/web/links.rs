//! Links that let one browser in, and the route where it exchanges the link's code for a token of its own.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use data_encoding::BASE32_NOPAD;
use hive_types::{BrowserLink, IssuedToken, NewBrowser, Right};

use crate::error::Refusal;
use crate::rights::{ADMIN, Needs};
use crate::routes::Routes;
use crate::shared::Shared;
use crate::token;
use crate::tokens::TokenError;

/// How long a link lets a browser in.
pub(super) const VALID: Duration = Duration::from_mins(10);

/// Maximum number of open links; the oldest gives way.
const MOST_LINKS: usize = 20;

/// What a browser may do: everything that its pages show.
const RIGHTS: [Right; 5] = [Right::Chat, Right::Models, Right::Machines, Right::Conversations, Right::Browser];

/// The digests of open links' codes.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<Vec<([u8; 32], Instant)>>);

impl Links {
    /// Makes a code of 128 random bits.
    pub(super) fn make(&self) -> String {
        let mut bytes = [0; 16];
        // Without random numbers there is no code that anyone could guess, either: the link then lets nobody in.
        let code = match getrandom::fill(&mut bytes) {
            Ok(()) => BASE32_NOPAD.encode(&bytes).to_lowercase(),
            Err(_) => return String::new(),
        };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, made)| made.elapsed() < VALID);
        if open.len() >= MOST_LINKS {
            open.remove(0);
        }
        open.push((token::digest(&code), Instant::now()));
        code
    }

    /// Whether a code lets a browser in; it does so once.
    fn take(&self, code: &str) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, made)| made.elapsed() < VALID);
        let shown = token::digest(code);
        let found = open.iter().position(|(known, _)| *known == shown);
        found.map(|at| open.remove(at)).is_some()
    }
}

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new().post("/browsers", Needs::Nothing, enter).post("/browsers/links", ADMIN, make)
}

async fn make(State(shared): State<Shared>) -> Result<Json<BrowserLink>, Refusal> {
    let link = shared.web.link().ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_lets_one_browser_in_once() {
        let links = Links::default();
        let (one, other) = (links.make(), links.make());
        assert_ne!(one, other);
        assert!(!links.take("") && !links.take("wrong") && !links.take(&one[1..]));
        assert!(links.take(&one) && !links.take(&one));
        let oldest = other;
        let newer: Vec<_> = (0..MOST_LINKS).map(|_| links.make()).collect();
        assert!(!links.take(&oldest), "it gave way");
        assert!(newer.iter().all(|code| links.take(code)));
    }
}
