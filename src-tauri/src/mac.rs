//! macOS specifics: the menu bar with its standard shortcuts, the window material, App Nap, what was dropped, and the
//! dialog for files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicIsize, Ordering};

use hive_node::settings::Language;
use objc2::MainThreadMarker;
use objc2_app_kit::{NSModalResponseOK, NSOpenPanel, NSPasteboard};
use objc2_foundation::{NSActivityOptions, NSProcessInfo, NSString, NSURL};
use tauri::menu::{AboutMetadata, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::window::{Effect, EffectState, EffectsBuilder};
use tauri::{AppHandle, WebviewWindow, Wry};
use tokio::sync::oneshot;

use crate::words::{Chooser, words};

/// Sets the menu bar, which is there while a window is open.
pub(crate) fn bar(app: &AppHandle, language: Language) -> tauri::Result<()> {
    app.set_menu(menu_bar(app, language)?).map(drop)
}

/// Its own entries use the IDs of the tray menu (`hive_view::menu`).
fn menu_bar(app: &AppHandle, language: Language) -> tauri::Result<Menu<Wry>> {
    let words = &words(language).bar;
    let item = |id: &str, text: &str, keys: &str| MenuItem::with_id(app, id, text, true, Some(keys));
    let about = AboutMetadata { copyright: Some("The HiveMind authors".to_owned()), ..AboutMetadata::default() };
    let hivemind = Submenu::with_items(
        app,
        "HiveMind",
        true,
        &[
            &PredefinedMenuItem::about(app, Some(words.about), Some(about))?,
            &MenuItem::with_id(app, "update", words.updates, true, None::<&str>)?,
            &PredefinedMenuItem::separator(app)?,
            &item("settings", words.settings, "Cmd+,")?,
            &PredefinedMenuItem::separator(app)?,
            &PredefinedMenuItem::hide(app, Some(words.hide))?,
            &PredefinedMenuItem::hide_others(app, Some(words.hide_others))?,
            &PredefinedMenuItem::separator(app)?,
            // The app's own Quit, which lets other machines take over first.
            &item("quit", words.quit, "Cmd+Q")?,
        ],
    )?;
    let chat = Submenu::with_items(
        app,
        words.chat,
        true,
        &[&item("new-chat", words.new_chat, "Cmd+N")?, &PredefinedMenuItem::close_window(app, Some(words.close))?],
    )?;
    // macOS needs these entries for copy and paste to work in the windows.
    let edit = Submenu::with_items(
        app,
        words.edit,
        true,
        &[
            &PredefinedMenuItem::undo(app, Some(words.undo))?,
            &PredefinedMenuItem::redo(app, Some(words.redo))?,
            &PredefinedMenuItem::separator(app)?,
            &PredefinedMenuItem::cut(app, Some(words.cut))?,
            &PredefinedMenuItem::copy(app, Some(words.copy))?,
            &PredefinedMenuItem::paste(app, Some(words.paste))?,
            &PredefinedMenuItem::select_all(app, Some(words.select_all))?,
        ],
    )?;
    let window = Submenu::with_items(
        app,
        words.window,
        true,
        &[
            &PredefinedMenuItem::minimize(app, Some(words.minimize))?,
            &PredefinedMenuItem::fullscreen(app, Some(words.full_screen))?,
        ],
    )?;
    Menu::with_items(app, &[&hivemind, &chat, &edit, &window])
}

/// Puts the system's popover material behind a window. If the owner has reduced transparency, macOS draws it opaque.
pub(crate) fn frost(window: &WebviewWindow) {
    let effects = EffectsBuilder::new().effect(Effect::Popover).state(EffectState::Active).radius(14.0).build();
    let _ = window.set_effects(effects);
}

/// Keeps App Nap from throttling the process when it has no window in front: other machines wait for its messages for
/// as long as the app runs. The process may still sleep with the machine, which `hive-host` prevents when needed.
pub(crate) fn stay_awake() {
    let options = NSActivityOptions::UserInitiatedAllowingIdleSystemSleep;
    let reason = NSString::from_str("in touch with your other machines");
    std::mem::forget(NSProcessInfo::processInfo().beginActivityWithOptions_reason(options, &reason));
}

/// The change of the drag pasteboard that was read last.
static READ: AtomicIsize = AtomicIsize::new(0);

/// The files on the drag pasteboard: what was dragged last, in any program. Each drag is read once.
pub(crate) async fn dropped(window: &WebviewWindow) -> Vec<PathBuf> {
    /// `NSPasteboardNameDrag`, which only unsafe code can name.
    const DRAGGED: &str = "Apple CFPasteboard drag";
    /// `NSPasteboardTypeFileURL`.
    const FILE: &str = "public.file-url";
    let (answer, dropped) = oneshot::channel();
    let _ = window.run_on_main_thread(move || {
        let board = NSPasteboard::pasteboardWithName(&NSString::from_str(DRAGGED));
        let change = board.changeCount();
        if READ.swap(change, Ordering::Relaxed) == change {
            return;
        }
        let kind = NSString::from_str(FILE);
        let items = board.pasteboardItems();
        let urls = items.iter().flat_map(|items| items.iter()).filter_map(|item| item.stringForType(&kind));
        let urls = urls.filter_map(|url| NSURL::URLWithString(&url));
        let _ = answer.send(urls.filter_map(|url| path(&url)).collect());
    });
    dropped.await.unwrap_or_default()
}

/// The path of a file's URL, which may name the file by its number.
fn path(url: &NSURL) -> Option<PathBuf> {
    Some(PathBuf::from(url.filePathURL()?.path()?.to_string()))
}

/// Lets the owner choose files and folders, on the main thread; none if that is cancelled.
pub(crate) fn choose(words: &Chooser) -> Vec<PathBuf> {
    let Some(main) = MainThreadMarker::new() else { return Vec::new() };
    let panel = NSOpenPanel::openPanel(main);
    panel.setCanChooseFiles(true);
    panel.setCanChooseDirectories(true);
    panel.setAllowsMultipleSelection(true);
    panel.setMessage(Some(&NSString::from_str(words.title)));
    panel.setPrompt(Some(&NSString::from_str(words.add)));
    if panel.runModal() != NSModalResponseOK {
        return Vec::new();
    }
    panel.URLs().iter().filter_map(|url| path(&url)).collect()
}
