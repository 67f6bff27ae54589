//! The interface of the node as the pages call it: requests, and events that they follow.

use futures_util::StreamExt;
use hive_api::CallError;
use tauri::ipc::Channel;
use tauri::{State, WebviewWindow};
use tokio_util::task::AbortOnDropHandle;

use crate::problem::Problem;
use crate::shell::Shell;

/// Calls a route of the node's own interface, such as `POST` on `/hive/v1/conversations`. Bodies are JSON.
#[tauri::command]
#[specta::specta]
pub(crate) async fn request(
    shell: State<'_, Shell>,
    method: String,
    path: String,
    body: Option<String>,
) -> Result<String, Problem> {
    shell.direct.call(&method, &path, body).await.map_err(problem)
}

/// Follows a route that sends events, in place of what this window followed on the topic before.
#[tauri::command]
#[specta::specta]
pub(crate) async fn follow(
    window: WebviewWindow,
    shell: State<'_, Shell>,
    topic: String,
    path: String,
    events: Channel<String>,
) -> Result<(), Problem> {
    let mut news = shell.direct.events(&path).await.map_err(problem)?;
    let sending = async move {
        while let Some(event) = news.next().await {
            if events.send(event).is_err() {
                return;
            }
        }
    };
    // It ends when the window follows something else.
    let task = AbortOnDropHandle::new(shell.spawn(sending));
    shell.subscriptions().insert((window.label().to_owned(), topic), task);
    Ok(())
}

fn problem(error: CallError) -> Problem {
    match error {
        CallError::Refused(reply) => {
            Problem::new(&reply.error.code, reply.error.message).hinted(reply.error.hint.as_deref())
        }
        CallError::Invalid(why) => Problem::new("invalid_call", why),
    }
}
