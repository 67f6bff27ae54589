//! The system's dialog for a model: files and folders in one.

use std::path::PathBuf;

use tauri::WebviewWindow;
use tokio::sync::oneshot;

use crate::words::Chooser;

/// What the owner chooses; nothing if that is cancelled.
pub(super) async fn choose(window: &WebviewWindow, words: &'static Chooser) -> Vec<PathBuf> {
    let (answer, chosen) = oneshot::channel();
    let over = window.clone();
    // A window that is gone never answers.
    let _ = window.run_on_main_thread(move || show(&over, words, answer));
    chosen.await.unwrap_or_default()
}

#[cfg(target_os = "linux")]
fn show(over: &WebviewWindow, words: &Chooser, answer: oneshot::Sender<Vec<PathBuf>>) {
    use std::cell::Cell;

    use gtk::prelude::*;
    use gtk::{FileChooserAction, FileChooserDialog, ResponseType};

    /// The answer of the button for a folder.
    const FOLDER: ResponseType = ResponseType::Other(1);

    // GTK's dialogs are for files or for folders; the button for a folder makes this one for both.
    let buttons = [(words.cancel, ResponseType::Cancel), (words.add_folder, FOLDER), (words.add, ResponseType::Accept)];
    let parent = over.gtk_window().ok();
    let dialog = FileChooserDialog::with_buttons(Some(words.title), parent.as_ref(), FileChooserAction::Open, &buttons);
    dialog.set_modal(true);
    dialog.set_select_multiple(true);
    let answer = Cell::new(Some(answer));
    dialog.connect_response(move |dialog, response| {
        let chosen = match response {
            ResponseType::Accept => dialog.filenames(),
            // The folders that are selected, or the one that is shown.
            FOLDER => {
                let selected: Vec<PathBuf> = dialog.filenames().into_iter().filter(|path| path.is_dir()).collect();
                if selected.is_empty() { dialog.current_folder().into_iter().collect() } else { selected }
            }
            _ => Vec::new(),
        };
        if let Some(answer) = answer.take() {
            let _ = answer.send(chosen);
        }
        // Closing it is an answer, too.
        if response != ResponseType::DeleteEvent {
            dialog.close();
        }
    });
    dialog.show_all();
}

#[cfg(target_os = "macos")]
fn show(_: &WebviewWindow, words: &Chooser, answer: oneshot::Sender<Vec<PathBuf>>) {
    let _ = answer.send(crate::mac::choose(words));
}
