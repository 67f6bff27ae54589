//! Presets, prompts and the switch for titles, for the owner's windows and programs: read, follow, write, delete.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use hive_mind::{ChatError, Chats, Preset, Prompt};
use hive_types::{ConversationSwitch, Done};

use crate::counts::counts;
use crate::error::Refusal;
use crate::rights::CONVERSATIONS;
use crate::routes::Routes;
use crate::shared::Local;

pub(crate) fn routes() -> Routes<Local> {
    Routes::new()
        .get("/presets", CONVERSATIONS, presets)
        .get("/presets/changes", CONVERSATIONS, changes)
        .put("/presets/{id}", CONVERSATIONS, put_preset)
        .delete("/presets/{id}", CONVERSATIONS, delete_preset)
        .get("/prompts", CONVERSATIONS, prompts)
        .put("/prompts/{id}", CONVERSATIONS, put_prompt)
        .delete("/prompts/{id}", CONVERSATIONS, delete_prompt)
        .get("/titles", CONVERSATIONS, titles)
        .put("/titles", CONVERSATIONS, set_titles)
}

fn done(changed: Result<(), ChatError>) -> Result<Json<Done>, Refusal> {
    changed.map(|()| Json(Done::DONE)).map_err(Refusal::internal)
}

async fn presets(State(chats): State<Chats>) -> Result<Json<Vec<Preset>>, Refusal> {
    Ok(Json(chats.presets().await.map_err(Refusal::internal)?))
}

/// Sends the number of changes of presets and prompts, now and after each.
async fn changes(State(chats): State<Chats>) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    counts(chats.shelf_changes())
}

async fn put_preset(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(preset): Json<Preset>,
) -> Result<Json<Done>, Refusal> {
    let name = named(&preset.name, "a preset needs a name")?;
    done(chats.put_preset(Preset { id, name, ..preset }).await)
}

async fn delete_preset(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    done(chats.delete_preset(&id).await)
}

async fn prompts(State(chats): State<Chats>) -> Result<Json<Vec<Prompt>>, Refusal> {
    Ok(Json(chats.prompts().await.map_err(Refusal::internal)?))
}

async fn put_prompt(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(prompt): Json<Prompt>,
) -> Result<Json<Done>, Refusal> {
    let name = named(&prompt.name, "a prompt needs a name")?;
    done(chats.put_prompt(Prompt { id, name, ..prompt }).await)
}

async fn delete_prompt(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    done(chats.delete_prompt(&id).await)
}

async fn titles(State(chats): State<Chats>) -> Result<Json<ConversationSwitch>, Refusal> {
    Ok(Json(ConversationSwitch { on: chats.titles().await.map_err(Refusal::internal)? }))
}

async fn set_titles(
    State(chats): State<Chats>,
    Json(ConversationSwitch { on }): Json<ConversationSwitch>,
) -> Result<Json<Done>, Refusal> {
    done(chats.set_titles(on).await)
}

/// A name without spaces around it.
fn named(name: &str, refusal: &str) -> Result<String, Refusal> {
    let name = name.trim();
    if name.is_empty() { Err(Refusal::bad("invalid_value", refusal)) } else { Ok(name.to_owned()) }
}
