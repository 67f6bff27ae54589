//! The popover's height: that of its content, so that it ends where its last line does.

use tauri::{LogicalSize, WebviewWindow};

use crate::windows;

/// Makes the popover as high as its content. Both lengths are in the page's pixels, which text size scales.
#[tauri::command]
#[specta::specta]
pub(crate) async fn fit_popover(window: WebviewWindow, width: u32, height: u32) {
    let scale = window.scale_factor().unwrap_or(1.0);
    let Ok(size) = window.inner_size() else { return };
    if window.label() == windows::POPOVER && width > 0 {
        let size = size.to_logical::<f64>(scale);
        let wanted = size.width * f64::from(height) / f64::from(width);
        let _ = window.set_size(LogicalSize::new(size.width, wanted.min(most(&window))));
    }
}

/// The greatest height: nine tenths of the screen.
fn most(window: &WebviewWindow) -> f64 {
    let screen = window.current_monitor().ok().flatten();
    screen.map_or(f64::INFINITY, |screen| screen.size().to_logical::<f64>(screen.scale_factor()).height * 0.9)
}
