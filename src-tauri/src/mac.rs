//! macOS specifics: the menu bar with its standard shortcuts, the window material, and App Nap.

use hive_node::settings::Language;
use objc2_foundation::{NSActivityOptions, NSProcessInfo, NSString};
use tauri::menu::{AboutMetadata, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::window::{Effect, EffectState, EffectsBuilder};
use tauri::{AppHandle, WebviewWindow, Wry};

use crate::words::words;

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
