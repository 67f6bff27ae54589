//! The end of the app.

use tauri::{AppHandle, Manager};

use crate::shell::Shell;

/// Ends the app, once other machines have what they need of this one; and starts it again, if it is to.
pub(crate) fn end(app: &AppHandle, again: bool) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        // Where nothing could be started, nothing is to be ended.
        if let Some(shell) = app.try_state::<Shell>() {
            shell.node.leave().await;
            shell.node.stop().await;
        }
        if again {
            app.restart();
        }
        app.exit(0);
    });
}
