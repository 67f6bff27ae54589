//! Commands of the windows. Each is a line or two: the node does the work.

use std::path::PathBuf;

use hive_node::settings::Settings;
use hive_view::Snapshot;
use tauri::ipc::Channel;
use tauri::{AppHandle, Manager, State, WebviewWindow};

use crate::end::end;
use crate::problem::Problem;
use crate::shell::Shell;
use crate::{folder, windows};

type Result<T> = std::result::Result<T, Problem>;

/// Sends the snapshot now and after every change.
#[tauri::command]
#[specta::specta]
pub(crate) async fn watch(shell: State<'_, Shell>, snapshots: Channel<Snapshot>) -> Result<()> {
    let mut shown = shell.shown();
    shown.mark_changed();
    shell.spawn(async move {
        while shown.changed().await.is_ok() {
            let now = shown.borrow_and_update().clone();
            if snapshots.send(now).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Exports a conversation to a file in the owner's Downloads folder; returns its path.
#[tauri::command]
#[specta::specta]
pub(crate) async fn export_conversation(app: AppHandle, shell: State<'_, Shell>, id: String) -> Result<String> {
    let conversation = shell.chats.get(&id).await.map_err(Problem::of("conversations"))?;
    let written = conversation.write_to(&exports(&app)?).map_err(Problem::of("not_exported"))?;
    Ok(written.display().to_string())
}

/// Shows the folder of exported conversations in the system's file manager.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_exports(app: AppHandle) -> Result<()> {
    folder::show(&exports(&app)?)
}

/// Where conversations are exported to.
fn exports(app: &AppHandle) -> Result<PathBuf> {
    app.path().download_dir().or_else(|_| app.path().home_dir()).map_err(Problem::of("not_exported"))
}

/// Remembers whether the owner wants notifications.
#[tauri::command]
#[specta::specta]
pub(crate) async fn notify(shell: State<'_, Shell>, wanted: bool) -> Result<()> {
    shell.set(&Settings { notify: Some(wanted), ..Settings::read(&shell.folder)? })
}

/// Takes an update's next step: checks for it, downloads it, or restarts into it.
#[tauri::command]
#[specta::specta]
pub(crate) async fn update(app: AppHandle) {
    crate::update::go_on(&app).await;
}

/// Restarts the app after draining the node.
#[tauri::command]
#[specta::specta]
pub(crate) async fn restart(app: AppHandle) {
    end(&app, true);
}

/// Shows the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_main(app: AppHandle) {
    windows::show_main(&app);
}

/// Shows the settings in the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_settings(app: AppHandle) {
    windows::show_page(&app, "settings");
}

/// Shows a conversation in the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_conversation(app: AppHandle, id: String) {
    windows::show_conversation(&app, &id);
}

/// Tells the app, which is about to quit, that the main window has written what was typed.
#[tauri::command]
#[specta::specta]
pub(crate) async fn has_written(shell: State<'_, Shell>) -> Result<()> {
    shell.has_written();
    Ok(())
}

/// Hides the calling window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn hide(window: WebviewWindow) {
    let _ = window.hide();
}

/// Quits the app after draining the node.
#[tauri::command]
#[specta::specta]
pub(crate) async fn quit(app: AppHandle) {
    end(&app, false);
}
