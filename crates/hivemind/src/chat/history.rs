//! What was typed in earlier chats: a file in the data folder that only its owner can read, with a JSON text in each line.
//!
//! Several chats may write it at once, so a line is added in one piece and nothing is rewritten but at the start, when it has
//! grown long. What cannot be read is left out, and what cannot be written is not kept; the chat goes on either way.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hive_host::folders;

const FILE: &str = "chat-history.jsonl";

/// What the arrow keys reach back to.
const MOST: usize = 1000;
/// The file may have so many lines before it is cut.
const MOST_LINES: usize = 2 * MOST;
/// The longest message that is kept; whoever pastes a book has it elsewhere.
const LONGEST_BYTES: usize = 64 << 10;

/// The file, and what was typed last.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    last: Option<String>,
}

impl History {
    /// The history of a data folder, and what is in it, the oldest first.
    pub(super) fn open(folder: &Path) -> (Self, Vec<String>) {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).unwrap_or_default();
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let newest = &lines[lines.len().saturating_sub(MOST)..];
        let entries: Vec<String> = newest.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if lines.len() > MOST_LINES {
            // Where it cannot be cut, it is cut another time.
            let _ = folders::write_private(
                &path,
                &newest.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect::<Vec<u8>>(),
            );
        }
        (Self { path, last: entries.last().cloned() }, entries)
    }

    /// Keeps a message, unless it is the last one again or very long.
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
        // Another chat meanwhile.
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
