//! macOS specifics: the menu bar with its standard shortcuts, the window material, and App Nap.

use objc2_foundation::{NSActivityOptions, NSProcessInfo, NSString};
use tauri::menu::{AboutMetadata, Menu, MenuItem, PredefinedMenuItem, Submenu};
use tauri::window::{Effect, EffectState, EffectsBuilder};
use tauri::{AppHandle, WebviewWindow, Wry};

/// The menu bar while a window is open. Its own entries use the IDs of the tray menu (`hive_view::menu`).
pub(crate) fn menu_bar(app: &AppHandle) -> tauri::Result<Menu<Wry>> {
    let item = |id: &str, text: &str, keys: &str| MenuItem::with_id(app, id, text, true, Some(keys));
    let about = AboutMetadata { copyright: Some("The HiveMind authors".to_owned()), ..AboutMetadata::default() };
    let hivemind = Submenu::with_items(
        app,
        "HiveMind",
        true,
        &[
            &PredefinedMenuItem::about(app, None, Some(about))?,
            &MenuItem::with_id(app, "update", "Check for Updates…", true, None::<&str>)?,
            &PredefinedMenuItem::separator(app)?,
            &item("settings", "Settings…", "Cmd+,")?,
            &PredefinedMenuItem::separator(app)?,
            &PredefinedMenuItem::hide(app, None)?,
            &PredefinedMenuItem::hide_others(app, None)?,
            &PredefinedMenuItem::separator(app)?,
            // The app's own Quit, which lets other machines take over first.
            &item("quit", "Quit HiveMind", "Cmd+Q")?,
        ],
    )?;
    let chat = Submenu::with_items(
        app,
        "Chat",
        true,
        &[&item("new-chat", "New Chat", "Cmd+N")?, &PredefinedMenuItem::close_window(app, None)?],
    )?;
    // macOS needs these entries for copy and paste to work in the windows.
    let edit = Submenu::with_items(
        app,
        "Edit",
        true,
        &[
            &PredefinedMenuItem::undo(app, None)?,
            &PredefinedMenuItem::redo(app, None)?,
            &PredefinedMenuItem::separator(app)?,
            &PredefinedMenuItem::cut(app, None)?,
            &PredefinedMenuItem::copy(app, None)?,
            &PredefinedMenuItem::paste(app, None)?,
            &PredefinedMenuItem::select_all(app, None)?,
        ],
    )?;
    let window = Submenu::with_items(
        app,
        "Window",
        true,
        &[&PredefinedMenuItem::minimize(app, None)?, &PredefinedMenuItem::fullscreen(app, None)?],
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
