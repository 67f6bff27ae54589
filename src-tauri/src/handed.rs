//! Files and folders that a person hands over: dropped on the window, or chosen in the system's dialog.
//!
//! The shell says what each of them is (`found.rs`) and reads those for the page that the web view keeps from it; of a model,
//! the page learns the path, which it loads it by.
//!
//! Drops arrive in one of two ways. On a Mac, the page itself gets files and dragged text, and the paths are on the
//! drag pasteboard (`mac.rs`): the web view's own handler would take dragged text from the page as well. On Linux,
//! `WebKitGTK` shows pages that something is dragged, but (in 2.50.6) no files; there, the handler takes what has paths
//! and leaves text to the page.

mod dialog;
mod found;

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64;
use serde::Serialize;
use specta::Type;
use tauri::{AppHandle, DragDropEvent, Manager, State, WebviewWindow, WindowEvent};

use crate::problem::Problem;
use crate::shell::Shell;
use crate::windows;
use crate::words::words;
use found::{Finding, Seen, found};

/// The most files that can be read: those that were handed over last.
const MOST_FILES: usize = 256;

/// The most bytes that are read at once.
const MOST_BYTES: u64 = 4 << 20;

/// What was handed over.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// What was dropped, until the page asks for it.
    dropped: Vec<PathBuf>,
    /// The files that can be read, by number.
    files: VecDeque<(u32, PathBuf)>,
    last: u32,
}

/// A file or folder that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
pub(crate) struct HandedFile {
    /// Its number, to read it by.
    number: u32,
    /// Its name, without its folder.
    name: String,
    /// Its size in bytes; 0 for anything but a file.
    bytes: u64,
    /// What it is.
    found: Finding,
}

impl Handed {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps paths, and says what they are.
    fn take(&self, paths: &[PathBuf]) -> Vec<HandedFile> {
        // A network volume may take its time. The window's thread waits for what is kept.
        let looked = paths.iter().take(MOST_FILES).map(|path| {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map_or(0, |about| about.len());
            HandedFile { number: 0, name, bytes, found: found(path, &Seen::at) }
        });
        let mut handed: Vec<HandedFile> = looked.collect();
        let mut kept = self.kept();
        for (file, path) in handed.iter_mut().zip(paths) {
            kept.last = kept.last.wrapping_add(1);
            file.number = kept.last;
            kept.files.push_back((file.number, path.clone()));
        }
        let too_many = kept.files.len().saturating_sub(MOST_FILES);
        kept.files.drain(..too_many);
        handed
    }

    fn path(&self, number: u32) -> Option<PathBuf> {
        self.kept().files.iter().find(|(known, _)| *known == number).map(|(_, path)| path.clone())
    }
}

/// Tells the main window's page what is dragged over it, and keeps what is dropped on it. Only on Linux is there anything
/// to tell (`windows.rs`).
pub(crate) fn listen(app: &AppHandle) {
    let Some(main) = app.get_webview_window(windows::MAIN) else { return };
    let page = main.clone();
    main.on_window_event(move |event| {
        let WindowEvent::DragDrop(event) = event else { return };
        let news = match event {
            DragDropEvent::Enter { paths, .. } if paths.iter().any(|path| path.is_absolute()) => "filesover",
            DragDropEvent::Leave => "filesgone",
            DragDropEvent::Drop { paths, .. } => {
                // Links have no path.
                let files = paths.iter().filter(|path| path.is_absolute()).cloned().collect();
                page.state::<Handed>().kept().dropped = files;
                "filesdropped"
            }
            _ => return,
        };
        let _ = page.eval(format!("dispatchEvent(new Event('{news}'))"));
    });
}

/// What was dropped on the window last; nothing the second time.
#[tauri::command]
#[specta::specta]
pub(crate) async fn dropped_files(window: WebviewWindow) -> Vec<HandedFile> {
    if window.label() != windows::MAIN {
        return Vec::new();
    }
    let kept = std::mem::take(&mut window.state::<Handed>().kept().dropped);
    #[cfg(target_os = "macos")]
    let kept = if kept.is_empty() { crate::mac::dropped(&window).await } else { kept };
    looked_at(window, kept).await
}

/// Lets the owner choose files and folders; none if that is cancelled.
#[tauri::command]
#[specta::specta]
pub(crate) async fn choose_files(window: WebviewWindow) -> Vec<HandedFile> {
    // Debug builds let tests choose.
    let chosen = std::env::var_os("HIVEMIND_CHOSEN").filter(|_| cfg!(debug_assertions));
    let language = window.state::<Shell>().shown().borrow().language;
    let chosen = match chosen {
        Some(paths) => std::env::split_paths(&paths).collect(),
        None => dialog::choose(&window, &words(language).chooser).await,
    };
    looked_at(window, chosen).await
}

async fn looked_at(window: WebviewWindow, paths: Vec<PathBuf>) -> Vec<HandedFile> {
    let looking = tauri::async_runtime::spawn_blocking(move || window.state::<Handed>().take(&paths));
    looking.await.unwrap_or_default()
}

/// Reads a part of a file that was handed over, in Base64: from one byte to before another, and at most 4 MiB.
#[tauri::command]
#[specta::specta]
pub(crate) async fn read_handed(
    handed: State<'_, Handed>,
    number: u32,
    start: u64,
    end: u64,
) -> Result<String, Problem> {
    let path = handed.path(number).ok_or_else(|| Problem::new("not_read", "it was not handed over"))?;
    let reading = tauri::async_runtime::spawn_blocking(move || part(&path, start, end)).await;
    let bytes = reading.map_err(Problem::of("not_read"))?.map_err(Problem::of("not_read"))?;
    Ok(BASE64.encode(&bytes))
}

/// A part of a file. A pipe is not opened, since it would wait for a writer.
fn part(path: &Path, start: u64, end: u64) -> std::io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end.saturating_sub(start).min(MOST_BYTES)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_can_be_read_in_parts_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("Größe \n 1.txt");
        std::fs::write(&file, "hello").unwrap();
        let handed = Handed::default();
        let [text, folder, gone] = &handed.take(&[file.clone(), home.path().to_owned(), home.path().join("gone")])[..]
        else {
            panic!("three were handed over")
        };
        assert_eq!((text.name.as_str(), text.bytes, &text.found), ("Größe \n 1.txt", 5, &Finding::Other));
        assert_eq!((folder.bytes, &gone.found), (0, &Finding::Gone));
        assert_eq!(handed.path(text.number), Some(file.clone()));
        assert_eq!(handed.path(gone.number + 1), None);
        for (start, end, read) in [(0, 5, "hello"), (1, 3, "el"), (4, 99, "o"), (5, 9, ""), (9, 12, ""), (3, 1, "")] {
            assert_eq!(part(&file, start, end).unwrap(), read.as_bytes(), "{start} to {end}");
        }
        assert!(part(home.path(), 0, 1).is_err() && part(&home.path().join("gone"), 0, 1).is_err());
        let large = home.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(part(&large, 0, u64::MAX).unwrap().len() as u64, MOST_BYTES);
        assert_eq!(part(Path::new("/dev/zero"), 0, 1).unwrap_err().to_string(), "it is no file");
    }

    #[test]
    fn the_files_that_were_handed_over_last_are_kept() {
        let handed = Handed::default();
        let first = handed.take(&[PathBuf::from("/gone/first")]);
        let many = vec![PathBuf::from("/gone/many"); 2 * MOST_FILES];
        assert_eq!(handed.take(&many).len(), MOST_FILES);
        assert_eq!(handed.path(first[0].number), None);
    }
}
