//! Quits the app.

use tauri::{AppHandle, Manager};

use crate::shell::Shell;

/// Quits the app after draining the node; restarts it if `again` is set.
#[allow(clippy::disallowed_methods, reason = "the task waits for all others, and ends the process")]
pub(crate) fn end(app: &AppHandle, again: bool) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        // Without a shell the node never started, so there is nothing to stop.
        if let Some(shell) = app.try_state::<Shell>() {
            shell.write_drafts(&app).await;
            // Answers in progress stay, and can be continued.
            shell.chats.close().await;
            shell.node.leave().await;
            shell.node.stop().await;
            shell.end_tasks().await;
        }
        if again {
            app.restart();
        }
        app.exit(0);
    });
}
