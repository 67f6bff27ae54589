//! Exports a conversation as Markdown.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::conversation::{Conversation, Role};

impl Conversation {
    /// The conversation as Markdown: who said what, and how answers were computed.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n", if self.title.is_empty() { "Conversation" } else { &self.title });
        if !self.system.trim().is_empty() {
            let _ = write!(text, "\n> {}\n", self.system.trim().replace('\n', "\n> "));
        }
        for message in &self.messages {
            let who = if message.role == Role::User { "You" } else { "Answer" };
            let _ = write!(text, "\n## {who}\n\n{}\n", message.text.trim_end());
            let broke_off = (!message.complete).then_some("not complete");
            let notes: Vec<&str> = message.note.as_deref().into_iter().chain(broke_off).collect();
            if !notes.is_empty() {
                let _ = write!(text, "\n_{}_\n", notes.join(" · "));
            }
        }
        text
    }

    /// Writes it to a new file in a folder and returns the path; never overwrites a file.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write_to(&self, folder: &Path) -> io::Result<PathBuf> {
        let name = self.file_name();
        let stem = name.trim_end_matches(".md");
        for number in 1.. {
            let name = if number == 1 { name.clone() } else { format!("{stem} {number}.md") };
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(self.to_markdown().as_bytes())?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no free name"))
    }

    /// A file name for it, without characters that trouble file systems or shells.
    pub fn file_name(&self) -> String {
        let plain = |letter: char| if letter.is_alphanumeric() || " -_.,()".contains(letter) { letter } else { ' ' };
        let name: String = self.title.chars().map(plain).take(80).collect();
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = name.trim_matches(['.', ' ']);
        format!("{}.md", if name.is_empty() { "Conversation" } else { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Message;

    fn conversation(title: &str) -> Conversation {
        let message = |role, text: &str, complete, note: Option<&str>| Message {
            role,
            text: text.to_owned(),
            complete,
            note: note.map(str::to_owned),
            ..Message::default()
        };
        Conversation {
            title: title.to_owned(),
            system: "Be brief.\nBe kind.".to_owned(),
            messages: vec![
                message(Role::User, "Hello", true, None),
                message(Role::Assistant, "Good day\n", true, Some("20 tok/s")),
                message(Role::User, "And?", true, None),
                message(Role::Assistant, "Well", false, None),
            ],
            ..Conversation::default()
        }
    }

    #[test]
    fn a_document_says_who_said_what_and_what_is_missing() {
        let text = conversation("Greetings").to_markdown();
        assert_eq!(
            text,
            "# Greetings\n\n> Be brief.\n> Be kind.\n\n## You\n\nHello\n\n## Answer\n\nGood day\n\n_20 tok/s_\n\n## You\n\nAnd?\n\n\
             ## Answer\n\nWell\n\n_not complete_\n"
        );
    }

    #[test]
    fn nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let first = conversation("Greetings").write_to(folder.path()).unwrap();
        std::fs::write(&first, "mine").unwrap();
        let second = conversation("Greetings").write_to(folder.path()).unwrap();
        assert_eq!(
            (first.file_name(), second.file_name()),
            (Some("Greetings.md".as_ref()), Some("Greetings 2.md".as_ref()))
        );
        assert_eq!(std::fs::read_to_string(first).unwrap(), "mine");
        assert!(std::fs::read_to_string(second).unwrap().starts_with("# Greetings"));
    }

    #[test]
    fn a_file_is_named_after_the_title_and_goes_nowhere_else() {
        let name = |title: &str| conversation(title).file_name();
        assert_eq!(name("Plan a week in Lisbon…"), "Plan a week in Lisbon.md");
        assert_eq!(name("../../etc/passwd"), "etc passwd.md");
        assert_eq!(name("日本 の旅"), "日本 の旅.md");
        assert_eq!(name("///"), "Conversation.md");
    }
}
