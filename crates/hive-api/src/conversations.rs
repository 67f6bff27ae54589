//! Conversations for the owner's other programs: list, read, rename, delete. Also used by the command's export.

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use hive_mind::conversations::{Conversation, Entry};
use hive_types::{ConversationMarkdown, ConversationQuery, ConversationTitle, Done};

use crate::Shared;
use crate::error::Refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/conversations", get(list))
        .route("/conversations/{id}", get(read).delete(delete))
        .route("/conversations/{id}/markdown", get(markdown))
        .route("/conversations/{id}/rename", post(rename))
}

async fn list(
    State(shared): State<Shared>,
    Query(ConversationQuery { words }): Query<ConversationQuery>,
) -> Result<Json<Vec<Entry>>, Refusal> {
    Ok(Json(shared.conversations.list(&words).map_err(Refusal::internal)?))
}

fn find(shared: &Shared, id: &str) -> Result<Conversation, Refusal> {
    let found = shared.conversations.get(id).map_err(Refusal::internal)?;
    found.ok_or_else(|| Refusal::missing("no_such_conversation", format!("there is no conversation \"{id}\"")))
}

async fn read(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Conversation>, Refusal> {
    Ok(Json(find(&shared, &id)?))
}

async fn markdown(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<ConversationMarkdown>, Refusal> {
    let conversation = find(&shared, &id)?;
    Ok(Json(ConversationMarkdown { file_name: conversation.file_name(), markdown: conversation.to_markdown() }))
}

async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    find(&shared, &id)?;
    shared.conversations.delete(&id).map_err(Refusal::internal)?;
    Ok(Json(Done::DONE))
}

async fn rename(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Json(ConversationTitle { title }): Json<ConversationTitle>,
) -> Result<Json<Done>, Refusal> {
    let title = title.trim();
    if title.is_empty() {
        return Err(Refusal::bad("invalid_value", "a conversation needs a title"));
    }
    let conversation = Conversation { title: title.to_owned(), ..find(&shared, &id)? };
    shared.conversations.put(&conversation).map_err(Refusal::internal)?;
    Ok(Json(Done::DONE))
}
