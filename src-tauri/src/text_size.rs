//! The size of text: everything in the windows is scaled, as a browser scales a page.

use tauri::{AppHandle, Manager};

use crate::windows;

/// The sizes offered, in percent of the usual one.
const SIZES: std::ops::RangeInclusive<u32> = 80..=200;

/// Scales the text of all windows, in percent of its usual size.
#[tauri::command]
#[specta::specta]
pub(crate) async fn text_size(app: AppHandle, percent: u32) {
    let scale = f64::from(percent.clamp(*SIZES.start(), *SIZES.end())) / 100.0;
    for window in app.webview_windows().into_values() {
        let _ = window.set_zoom(scale);
    }
    windows::size_popover(&app, scale);
}
