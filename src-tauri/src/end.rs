//! Quits the app.

use tauri::{AppHandle, Manager};

use crate::shell::Shell;

/// Quits the app after draining the node; restarts it if `again` is set.
pub(crate) fn end(app: &AppHandle, again: bool) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        // Without a shell the node never started, so there is nothing to stop.
        if let Some(shell) = app.try_state::<Shell>() {
            // Answers in progress stay, and can be continued.
            shell.chats.close().await;
            shell.node.leave().await;
            shell.node.stop().await;
        }
        if again {
            app.restart();
        }
        app.exit(0);
    });
}
