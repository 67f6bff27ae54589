//! Conversations for the owner's windows and programs: read, watch, ask, change, delete.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use hive_mind::{ChatError, Chats, Choices, Conversation, Entry, StoreError};
use hive_types::{
    AskInConversation, ConversationDraft, ConversationInstructions, ConversationMarkdown, ConversationMessage,
    ConversationQuery, ConversationSwitch, ConversationTitle, Done, NewConversation,
};
use serde::Serialize;

use crate::counts::counts;
use crate::error::Refusal;
use crate::rights::CONVERSATIONS;
use crate::routes::Routes;
use crate::shared::Local;

pub(crate) fn routes() -> Routes<Local> {
    Routes::new()
        .get("/conversations", CONVERSATIONS, list)
        .post("/conversations", CONVERSATIONS, begin)
        .get("/conversations/changes", CONVERSATIONS, changes)
        .get("/conversations/{id}", CONVERSATIONS, read)
        .put("/conversations/{id}", CONVERSATIONS, import)
        .delete("/conversations/{id}", CONVERSATIONS, delete)
        .get("/conversations/{id}/events", CONVERSATIONS, events)
        .post("/conversations/{id}/ask", CONVERSATIONS, ask)
        .post("/conversations/{id}/again", CONVERSATIONS, answer_again)
        .post("/conversations/{id}/resume", CONVERSATIONS, resume)
        .post("/conversations/{id}/stop", CONVERSATIONS, stop)
        .post("/conversations/{id}/choose", CONVERSATIONS, choose)
        .post("/conversations/{id}/rename", CONVERSATIONS, rename)
        .post("/conversations/{id}/draft", CONVERSATIONS, draft)
        .post("/conversations/{id}/instructions", CONVERSATIONS, instruct)
        .post("/conversations/{id}/choices", CONVERSATIONS, set_choices)
        .post("/conversations/{id}/pin", CONVERSATIONS, pin)
        .post("/conversations/{id}/archive", CONVERSATIONS, archive)
        .post("/conversations/{id}/restore", CONVERSATIONS, restore)
        .get("/conversations/{id}/markdown", CONVERSATIONS, markdown)
}

fn refused(error: ChatError) -> Refusal {
    match error {
        ChatError::Store(StoreError::NoConversation(_)) => Refusal::missing("no_such_conversation", error),
        ChatError::Store(StoreError::NoMessage(_)) => Refusal::missing("no_such_message", error),
        ChatError::Store(_) => Refusal::internal(error),
        ChatError::Answering => Refusal::conflict("answering", error),
        ChatError::NothingToContinue => Refusal::conflict("nothing_to_continue", error),
        ChatError::NoQuestion => Refusal::bad("no_question", error),
        ChatError::Stopping => Refusal::unavailable("stopping", error),
    }
}

fn done(changed: Result<(), ChatError>) -> Result<Json<Done>, Refusal> {
    changed.map(|()| Json(Done::DONE)).map_err(refused)
}

async fn list(
    State(chats): State<Chats>,
    Query(ConversationQuery { words }): Query<ConversationQuery>,
) -> Result<Json<Vec<Entry>>, Refusal> {
    Ok(Json(chats.list(&words).await.map_err(refused)?))
}

async fn begin(
    State(chats): State<Chats>,
    Query(NewConversation { fresh }): Query<NewConversation>,
) -> Result<Json<Conversation>, Refusal> {
    let begun = if fresh { chats.create().await } else { chats.begin().await };
    Ok(Json(begun.map_err(refused)?))
}

async fn read(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Conversation>, Refusal> {
    Ok(Json(chats.get(&id).await.map_err(refused)?))
}

/// Writes a whole conversation, such as one that was read from another machine.
async fn import(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(conversation): Json<Conversation>,
) -> Result<Json<Done>, Refusal> {
    done(chats.import(Conversation { id, ..conversation }).await)
}

fn frame(event: &impl Serialize) -> Result<Event, axum::Error> {
    Event::default().json_data(event)
}

/// Sends the number of changes of the list, now and after each.
async fn changes(State(chats): State<Chats>) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    counts(chats.changes())
}

/// Sends the conversation, then what changes in it.
async fn events(
    State(chats): State<Chats>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Refusal> {
    let watch = chats.watch(&id).await.map_err(refused)?;
    let frames = stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((frame(&event), watch))
    });
    Ok(Sse::new(frames).keep_alive(KeepAlive::default()))
}

async fn ask(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(AskInConversation { text, edited }): Json<AskInConversation>,
) -> Result<Json<Done>, Refusal> {
    done(chats.ask(&id, &text, edited.as_deref()).await)
}

async fn answer_again(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationMessage { message }): Json<ConversationMessage>,
) -> Result<Json<Done>, Refusal> {
    done(chats.answer_again(&id, &message).await)
}

async fn resume(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    done(chats.resume(&id).await)
}

async fn stop(State(chats): State<Chats>, Path(id): Path<String>) -> Json<Done> {
    chats.stop(&id).await;
    Json(Done::DONE)
}

async fn choose(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationMessage { message }): Json<ConversationMessage>,
) -> Result<Json<Done>, Refusal> {
    done(chats.choose(&id, &message).await)
}

async fn rename(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationTitle { title }): Json<ConversationTitle>,
) -> Result<Json<Done>, Refusal> {
    let title = title.trim();
    if title.is_empty() {
        return Err(Refusal::bad("invalid_value", "a conversation needs a title"));
    }
    done(chats.rename(&id, title).await)
}

async fn draft(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationDraft { draft, message }): Json<ConversationDraft>,
) -> Result<Json<Done>, Refusal> {
    done(match message {
        None => chats.draft(&id, &draft).await,
        Some(message) => chats.edit(&id, &message, &draft).await,
    })
}

async fn instruct(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationInstructions { instructions }): Json<ConversationInstructions>,
) -> Result<Json<Done>, Refusal> {
    done(chats.instruct(&id, &instructions).await)
}

async fn set_choices(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(choices): Json<Choices>,
) -> Result<Json<Done>, Refusal> {
    done(chats.set_choices(&id, choices).await)
}

async fn pin(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationSwitch { on }): Json<ConversationSwitch>,
) -> Result<Json<Done>, Refusal> {
    done(chats.pin(&id, on).await)
}

async fn archive(
    State(chats): State<Chats>,
    Path(id): Path<String>,
    Json(ConversationSwitch { on }): Json<ConversationSwitch>,
) -> Result<Json<Done>, Refusal> {
    done(chats.archive(&id, on).await)
}

async fn delete(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    done(chats.delete(&id).await)
}

async fn restore(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<Done>, Refusal> {
    done(chats.restore(&id).await)
}

async fn markdown(State(chats): State<Chats>, Path(id): Path<String>) -> Result<Json<ConversationMarkdown>, Refusal> {
    let conversation = chats.get(&id).await.map_err(refused)?;
    Ok(Json(ConversationMarkdown { file_name: conversation.file_name(), markdown: conversation.to_markdown() }))
}
