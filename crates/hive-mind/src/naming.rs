//! Has the model write titles of new chats, one after the other, while it has nothing else to do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::live::{Inner, blocking};
use crate::model::{AnswerEvent, Question};
use crate::titles;

/// How often naming checks whether the model is idle.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A title takes at most this long.
const LONGEST: Duration = Duration::from_mins(1);

/// Text of a title and what models write around it, in bytes; more is no title.
const MOST_TEXT: usize = 2000;

/// Begins with the titles that are wanted, unless a person waits for an answer.
pub(crate) fn wake(inner: &Arc<Inner>) {
    let mut state = inner.state();
    if state.untitled.is_empty() || state.naming.is_some() || !state.live.is_empty() || inner.closing.is_cancelled() {
        return;
    }
    let stop = inner.closing.child_token();
    state.naming = Some(stop.clone());
    drop(state);
    inner.tasks.spawn(run(inner.clone(), stop));
}

async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    while let Some(id) = next(&inner, &stop) {
        tokio::select! {
            () = name(&inner, &id) => {}
            () = stop.cancelled() => {
                inner.state().untitled.push_front(id);
            }
        }
    }
    // An answer may have ended after this was told to stop and before it had.
    wake(&inner);
}

/// The next conversation without a title; none if a person has asked something.
fn next(inner: &Inner, stop: &CancellationToken) -> Option<String> {
    let mut state = inner.state();
    let id = if stop.is_cancelled() { None } else { state.untitled.pop_front() };
    if id.is_none() {
        state.naming = None;
    }
    id
}

/// Names a conversation, if its model can and its owner has not.
async fn name(inner: &Arc<Inner>, id: &str) {
    let of = id.to_owned();
    let found = inner.store(move |store| if store.titles()? { store.untitled(&of) } else { Ok(None) }).await;
    let conversation = match found {
        Ok(Some(conversation)) => conversation,
        Ok(None) => return,
        Err(error) => return tracing::warn!("a chat gets no title: {error}"),
    };
    let Some(request) = titles::request(&conversation) else { return };
    if !titles::is_able(inner.model().weight_bytes(&conversation.choices).await) {
        return;
    }
    while inner.model().is_busy() {
        sleep(POLL_INTERVAL).await;
    }
    let Ok(Some(said)) = timeout(LONGEST, said(inner, request)).await else { return };
    let question = conversation.messages.first().map(|message| message.text.as_str()).unwrap_or_default();
    let (title, of) = (titles::clean(&said, question), id.to_owned());
    let named = inner.store(move |store| store.title(&of, title.as_deref())).await;
    match named {
        Ok(true) => {
            let (shown, of) = (inner.clone(), id.to_owned());
            blocking(move || shown.show_whole(&shown.state(), &of)).await;
            inner.listed();
        }
        Ok(false) => {}
        Err(error) => tracing::warn!("a chat's title is not saved: {error}"),
    }
}

/// The model's output; none if it was interrupted.
async fn said(inner: &Inner, request: Question) -> Option<String> {
    let mut events = inner.model().answer(request).await.ok()?.events;
    let mut said = String::new();
    while said.len() < MOST_TEXT {
        match events.next().await? {
            AnswerEvent::Token { text, .. } => said += &text,
            AnswerEvent::Finished { text, .. } => return Some(said + &text),
            AnswerEvent::Failed(_) => return None,
            AnswerEvent::Reading { .. } | AnswerEvent::Recovering(_) | AnswerEvent::Machines(_) => {}
        }
    }
    Some(said)
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
