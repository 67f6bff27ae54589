//! Input history of earlier chats: a file in the data folder that only its owner can read, one JSON string per line.
//!
//! Several chats may append at once, so each line is written in one piece. The file is rewritten only at startup, when
//! it has grown too long. Unreadable lines are skipped, and a message that cannot be written is not kept; neither ends
//! the chat.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hive_host::folders;

const FILE: &str = "chat-history.jsonl";

/// Maximum number of entries that the arrow keys reach.
const MOST: usize = 1000;
/// Number of lines at which the file is truncated.
const MOST_LINES: usize = 2 * MOST;
/// Maximum length of a stored message, in bytes; longer text was pasted from somewhere.
const LONGEST_BYTES: usize = 64 << 10;

/// The history file, and the last entry.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    last: Option<String>,
}

impl History {
    /// Opens a data folder's history; returns it with its entries, oldest first.
    pub(super) fn open(folder: &Path) -> (Self, Vec<String>) {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).unwrap_or_default();
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let newest = &lines[lines.len().saturating_sub(MOST)..];
        let entries: Vec<String> = newest.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if lines.len() > MOST_LINES {
            // If truncating fails, the next start tries again.
            let _ = folders::write_private(
                &path,
                &newest.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect::<Vec<u8>>(),
            );
        }
        (Self { path, last: entries.last().cloned() }, entries)
    }

    /// Appends a message, unless it repeats the last one or is too long.
    pub(super) fn add(&mut self, message: &str) -> std::io::Result<()> {
        if message.len() > LONGEST_BYTES || self.last.as_deref() == Some(message) {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            folders::create_private(folder)?;
        }
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        folders::make_private(&self.path)?;
        file.write_all(&line)?;
        self.last = Some(message.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_typed_comes_back_and_only_its_owner_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("data");
        let (mut history, before) = History::open(&folder);
        assert!(before.is_empty());
        for message in ["one", "two\nlines, \"quoted\"", "two\nlines, \"quoted\"", "Ärger 🐝"] {
            history.add(message).unwrap();
        }
        history.add(&"x".repeat(LONGEST_BYTES + 1)).unwrap();
        // Another chat appends in the meantime.
        History::open(&folder).0.add("elsewhere").unwrap();
        history.add("last").unwrap();
        let kept = ["one", "two\nlines, \"quoted\"", "Ärger 🐝", "elsewhere", "last"];
        assert_eq!(History::open(&folder).1, kept);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn it_stays_short_and_damage_costs_no_more_than_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut lines: Vec<String> = (0..=MOST_LINES).map(|number| format!("\"{number}\"")).collect();
        lines.push("{ half a li".to_owned());
        std::fs::write(&path, lines.join("\n")).unwrap();
        let (_, entries) = History::open(folder.path());
        assert_eq!((entries.len(), entries.last().map(String::as_str)), (MOST - 1, Some("2000")));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), MOST);
        assert_eq!(History::open(folder.path()).1, entries);
    }
}
