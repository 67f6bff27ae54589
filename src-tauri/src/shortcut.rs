//! The shortcut for a question, which works in every program. It is off until the owner chooses one, and nothing listens for
//! keys until then.

use tauri::{AppHandle, Manager, Wry};
use tauri_plugin_global_shortcut::{Code, GlobalShortcut, GlobalShortcutExt, Modifiers, Shortcut, ShortcutState};

use crate::windows;

/// Why a shortcut cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is none, or would be typed by accident.
    Invalid,
    /// Another program has it, or the keyboard has no such key.
    Taken,
    /// This desktop gives apps no shortcuts.
    NotHere,
}

/// Reads a shortcut such as `CmdOrCtrl+Shift+Space`. Its key comes with Ctrl, Alt, Super or ⌘, since other keys are for
/// typing; a function key may stand alone.
pub(crate) fn read(text: &str) -> Result<Shortcut, Unusable> {
    let shortcut: Shortcut = text.parse().map_err(|_| Unusable::Invalid)?;
    let held = shortcut.mods.intersects(Modifiers::CONTROL | Modifiers::ALT | Modifiers::SUPER);
    if held || is_function_key(shortcut.key) { Ok(shortcut) } else { Err(Unusable::Invalid) }
}

fn is_function_key(key: Code) -> bool {
    key.to_string().strip_prefix('F').is_some_and(|number| number.parse::<u8>().is_ok())
}

/// Listens for the shortcut `now` in place of the one before; with none, for nothing.
pub(crate) fn listen(app: &AppHandle, before: Option<&str>, now: Option<&str>) -> Result<(), Unusable> {
    let before = before.and_then(|text| read(text).ok()).filter(|before| is_heard(app, *before));
    let now = now.map(read).transpose()?;
    if let Some(now) = now.filter(|now| before != Some(*now)) {
        begin(app)?;
        let pressed = app.global_shortcut().on_shortcut(now, |app, _, event| {
            if event.state == ShortcutState::Pressed {
                windows::ask(app);
            }
        });
        pressed.map_err(|error| {
            tracing::debug!("the shortcut: {error}");
            Unusable::Taken
        })?;
    }
    if let Some(before) = before.filter(|before| now != Some(*before)) {
        let _ = app.global_shortcut().unregister(before);
    }
    Ok(())
}

fn is_heard(app: &AppHandle, shortcut: Shortcut) -> bool {
    app.try_state::<GlobalShortcut<Wry>>().is_some_and(|shortcuts| shortcuts.is_registered(shortcut))
}

/// Begins to listen to the system, once.
fn begin(app: &AppHandle) -> Result<(), Unusable> {
    if app.try_state::<GlobalShortcut<Wry>>().is_some() {
        return Ok(());
    }
    // There, only the desktop itself hears keys of other windows.
    if cfg!(target_os = "linux") && std::env::var_os("WAYLAND_DISPLAY").is_some() {
        return Err(Unusable::NotHere);
    }
    let (begun, result) = std::sync::mpsc::channel();
    let of = app.clone();
    // On a Mac, on the main thread only.
    let begin = move || {
        let _ = begun.send(of.plugin(tauri_plugin_global_shortcut::Builder::new().build()));
    };
    app.run_on_main_thread(begin).map_err(|_| Unusable::NotHere)?;
    match result.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Unusable::NotHere),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortcut_has_a_key_and_what_keeps_it_from_being_typed() {
        for good in ["CmdOrCtrl+Shift+Space", "Ctrl+K", "Alt+Digit1", "Super+F1", "F9", "Shift+F9", "alt+shift+ArrowUp"]
        {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["", "Space", "Shift+A", "Ctrl+Shift", "Ctrl+", "Ctrl+Hive", "F", "Ctrl+A+B"] {
            assert_eq!(read(bad), Err(Unusable::Invalid), "{bad}");
        }
    }
}
