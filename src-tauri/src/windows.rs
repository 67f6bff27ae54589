//! The app's two windows: the popover under the tray icon, and the main window. Both are created hidden at startup.

use tauri::webview::NewWindowResponse;
use tauri::{
    AppHandle, LogicalSize, Manager, PhysicalPosition, Rect, Url, WebviewUrl, WebviewWindow, WebviewWindowBuilder,
    WindowEvent, Wry,
};

/// The main window.
pub(crate) const MAIN: &str = "main";
/// The popover under the tray icon.
pub(crate) const POPOVER: &str = "popover";

/// The window that says why the node could not start.
pub(crate) const START_FAILURE: &str = "trouble";

/// The popover's size, in points.
const POPOVER_SIZE: (f64, f64) = (340.0, 580.0);

/// The main window's smallest size, in points: a quarter of a small screen.
const SMALLEST: (f64, f64) = (320.0, 480.0);

/// The frame that a page writes itself to draw diagrams in.
const FRAME: &str = "about:srcdoc";

/// Whether a window may open a URL: only the app's own pages, and the frame of a diagram. Model output may contain links,
/// and following one would turn the window over to that page.
fn is_own(url: &Url) -> bool {
    (url.scheme() == "tauri" && url.host_str() == Some("localhost")) || url.as_str() == FRAME
}

/// Builds a window that cannot lead anywhere else: no links, no `javascript:` URLs, no new windows, no downloads.
fn window<'a>(app: &'a AppHandle, name: &str, page: &str) -> WebviewWindowBuilder<'a, Wry, AppHandle> {
    let own = Url::parse(&format!("tauri://localhost/{page}"));
    let window = WebviewWindowBuilder::new(app, name, WebviewUrl::App(page.into()))
        .title("HiveMind")
        .on_navigation(is_own)
        // What asks for a URL does not say for which frame; a whole window at a frame's URL would be empty.
        .on_page_load(move |window, load| {
            if let (FRAME, Ok(own)) = (load.url().as_str(), &own) {
                let _ = window.navigate(own.clone());
            }
        })
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .on_download(|_, _| false)
        // For Paste in the app's own menus: on Linux, a page cannot paste otherwise.
        .enable_clipboard_access();
    // Where pages get no files, the web view's own handler does (`handed.rs`); elsewhere it would keep all that is dropped
    // from the page.
    if cfg!(target_os = "linux") && name == MAIN { window } else { window.disable_drag_drop_handler() }
}

/// Creates both windows.
pub(crate) fn make(app: &AppHandle) -> tauri::Result<()> {
    let main = window(app, MAIN, "index.html")
        .inner_size(1000.0, 700.0)
        .min_inner_size(SMALLEST.0, SMALLEST.1)
        .visible(false)
        .build()?;
    let kept = main.clone();
    main.on_window_event(move |event| {
        // The app lives in the tray; closing a window hides it.
        if let WindowEvent::CloseRequested { api, .. } = event {
            api.prevent_close();
            let _ = kept.hide();
            settle(kept.app_handle());
        }
    });
    let popover = window(app, POPOVER, "index.html#popover")
        .inner_size(POPOVER_SIZE.0, POPOVER_SIZE.1)
        .decorations(false)
        // GTK gives a window that cannot be resized the size of its first content for good.
        .resizable(cfg!(target_os = "linux"))
        .skip_taskbar(true)
        .always_on_top(true)
        .visible(false);
    #[cfg(target_os = "macos")]
    let popover = popover.transparent(true);
    let popover = popover.build()?;
    #[cfg(target_os = "macos")]
    crate::mac::frost(&popover);
    let kept = popover.clone();
    popover.on_window_event(move |event| {
        if let WindowEvent::Focused(false) = event {
            let _ = kept.hide();
        }
    });
    Ok(())
}

/// Shows the main window and focuses it.
pub(crate) fn show_main(app: &AppHandle) {
    if let Some(main) = app.get_webview_window(MAIN) {
        present(&main);
        settle(app);
    }
}

/// Tells the main window's page of something, as an event.
pub(crate) fn tell_main(app: &AppHandle, event: &str) {
    if let Some(main) = app.get_webview_window(MAIN) {
        let _ = main.eval(format!("dispatchEvent(new Event('{event}'))"));
    }
}

/// Shows a page of the main window, by setting the fragment of its URL.
pub(crate) fn show_page(app: &AppHandle, page: &str) {
    if let Some(main) = app.get_webview_window(MAIN) {
        let _ = main.eval(format!("location.hash = '{page}'"));
    }
    show_main(app);
}

/// Shows a conversation in the main window.
pub(crate) fn show_conversation(app: &AppHandle, id: &str) {
    // It becomes part of a script; an ID has no other characters.
    if id.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        show_page(app, &format!("chat={id}"));
    }
}

/// Shows why the node could not start; closing this window quits the app.
pub(crate) fn show_start_failure(app: &AppHandle) -> tauri::Result<()> {
    let window = window(app, START_FAILURE, "index.html").inner_size(520.0, 300.0).build()?;
    let app = app.clone();
    window.on_window_event(move |event| {
        if let WindowEvent::CloseRequested { .. } = event {
            app.exit(1);
        }
    });
    Ok(())
}

/// Shows the popover under the tray icon if its position is known, otherwise where the system places it.
pub(crate) fn show_popover(app: &AppHandle, icon: Option<Rect>) {
    let Some(popover) = app.get_webview_window(POPOVER) else { return };
    if let Some(icon) = icon {
        let scale = popover.scale_factor().unwrap_or(1.0);
        let (place, size) = (icon.position.to_physical::<f64>(scale), icon.size.to_physical::<f64>(scale));
        let width = popover.outer_size().map_or(POPOVER_SIZE.0 * scale, |size| f64::from(size.width));
        let left = place.x + size.width / 2.0 - width / 2.0;
        let _ = popover.set_position(PhysicalPosition::new(left.max(0.0), place.y + size.height));
    }
    present(&popover);
}

/// Shows the popover with its field for a question, wherever the owner is.
pub(crate) fn ask(app: &AppHandle) {
    show_popover(app, None);
    if let Some(popover) = app.get_webview_window(POPOVER) {
        let _ = popover.eval("dispatchEvent(new Event('quickask'))");
    }
}

/// Makes the popover as large as its text needs, and no larger than the screen; the rest can be scrolled to.
pub(crate) fn size_popover(app: &AppHandle, text: f64) {
    let Some(popover) = app.get_webview_window(POPOVER) else { return };
    let screen =
        popover.current_monitor().ok().flatten().map(|monitor| monitor.size().to_logical(monitor.scale_factor()));
    let size = fitted((POPOVER_SIZE.0 * text, POPOVER_SIZE.1 * text), screen);
    let _ = popover.set_size(size);
}

/// A size that leaves a tenth of the screen free.
fn fitted((width, height): (f64, f64), screen: Option<LogicalSize<f64>>) -> LogicalSize<f64> {
    let most = screen.map_or((width, height), |screen| (screen.width * 0.9, screen.height * 0.9));
    LogicalSize::new(width.min(most.0), height.min(most.1))
}

/// Toggles the popover.
pub(crate) fn toggle_popover(app: &AppHandle, icon: Rect) {
    match app.get_webview_window(POPOVER) {
        Some(popover) if popover.is_visible().unwrap_or(false) => drop(popover.hide()),
        _ => show_popover(app, Some(icon)),
    }
}

/// Whether a window is visible and focused.
pub(crate) fn any_is_seen(app: &AppHandle) -> bool {
    [MAIN, POPOVER]
        .into_iter()
        .filter_map(|name| app.get_webview_window(name))
        .any(|window| window.is_visible().unwrap_or(false) && window.is_focused().unwrap_or(false))
}

fn present(window: &WebviewWindow) {
    let _ = window.unminimize();
    let _ = window.show();
    let _ = window.set_focus();
}

/// Shows the Dock icon only while a window is open.
#[cfg(target_os = "macos")]
fn settle(app: &AppHandle) {
    let open = app.get_webview_window(MAIN).is_some_and(|main| main.is_visible().unwrap_or(false));
    let policy = if open { tauri::ActivationPolicy::Regular } else { tauri::ActivationPolicy::Accessory };
    let _ = app.set_activation_policy(policy);
}

#[cfg(not(target_os = "macos"))]
fn settle(_: &AppHandle) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_popover_fits_the_screen_with_large_text() {
        let screen = LogicalSize::new(1280.0, 800.0);
        assert_eq!(fitted((340.0, 580.0), Some(screen)), LogicalSize::new(340.0, 580.0));
        assert_eq!(fitted((680.0, 1160.0), Some(screen)), LogicalSize::new(680.0, 720.0));
        assert_eq!(fitted((680.0, 1160.0), None), LogicalSize::new(680.0, 1160.0));
    }

    #[test]
    fn a_window_shows_the_apps_own_pages_and_no_others() {
        for (url, own) in [
            ("tauri://localhost/index.html#chat", true),
            ("about:srcdoc", true),
            ("about:blank", false),
            // Any program on this machine may serve these URLs.
            ("http://tauri.localhost/", false),
            ("http://tauri.localhost:8080/?q=1", false),
            ("tauri://evil.example/", false),
            ("http://evil.example/?q=1", false),
            ("https://localhost/", false),
            ("file:///etc/passwd", false),
            ("data:text/html,hi", false),
            ("javascript:alert(1)", false),
        ] {
            assert_eq!(is_own(&url.parse().unwrap()), own, "{url}");
        }
    }
}
