//! Titles that a model writes: suitable models, their prompt, and the title in their output.

use rusqlite::{OptionalExtension, params};

use crate::conversation::{Choices, Conversation, Role};
use crate::model::{Question, Turn};
use crate::store::{Store, StoreError};

/// Smaller models write bad titles: about a billion parameters at four bits.
const SMALLEST_BYTES: u64 = 500_000_000;

/// A title's maximum length, in characters.
const LONGEST: usize = 60;

/// How much of question and answer the model sees, in characters.
const QUESTION: usize = 1500;
const ANSWER: usize = 500;

/// A title is never longer, in tokens of any language.
const MAX_TOKENS: u32 = 48;

const REQUEST: &str = "Write a title for this conversation: at most six words, in the language of the question. \
                       Reply with the title only.";

/// What models write before a title.
const LABELS: [&str; 6] = ["title", "titel", "titre", "título", "titolo", "标题"];

/// Whether a model of this size, in bytes of weights, writes good titles.
pub(crate) fn is_able(bytes: Option<u64>) -> bool {
    bytes.is_some_and(|bytes| bytes >= SMALLEST_BYTES)
}

/// Asks for the title of a conversation; none before its first question has a complete answer.
pub(crate) fn request(conversation: &Conversation) -> Option<Question> {
    let [question, answer, ..] = &conversation.messages[..] else { return None };
    if question.role != Role::User || answer.role != Role::Assistant || !answer.complete {
        return None;
    }
    let start = |text: &str, length| text.trim().chars().take(length).collect::<String>();
    let (asked, said) = (start(&question.text, QUESTION), start(without_thoughts(&answer.text)?, ANSWER));
    let choices = Choices {
        model: conversation.choices.model.clone(),
        temperature: 0.0,
        top_p: 1.0,
        max_tokens: Some(MAX_TOKENS),
        options: vec!["enable_thinking=false".to_owned()],
    };
    let text = format!("Question:\n{asked}\n\nAnswer:\n{said}\n\n{REQUEST}");
    let turns = vec![Turn { role: Role::User.name(), text }];
    let (resume_tokens, began_s) = (Vec::new(), conversation.began_s);
    Some(Question { turns, choices, seed: 0, resume_tokens, began_s, aside: true })
}

/// The text after the thoughts; none if there are only thoughts.
fn without_thoughts(said: &str) -> Option<&str> {
    match said.rsplit_once("</think>") {
        Some((_, said)) => Some(said),
        None if said.contains("<think>") => None,
        None => Some(said),
    }
}

/// The title in a model's output about a conversation that begins with `question`, if there is one.
pub(crate) fn clean(said: &str, question: &str) -> Option<String> {
    let is_mark =
        |c: char| c.is_whitespace() || matches!(c, '#' | '*' | '_' | '`' | '\'' | '‘' | '’' | '-' | '–' | '•');
    let is_stop = |c: char| matches!(c, '.' | '。' | '．' | '…' | ',' | ';' | ':');
    let line = without_thoughts(said)?.lines().map(str::trim).find(|line| line.chars().any(char::is_alphanumeric))?;
    let line: String = line
        .chars()
        .filter(|c| !matches!(c, '"' | '“' | '”' | '„' | '«' | '»' | '「' | '」' | '『' | '』') && !c.is_control())
        .collect();
    let line = line.trim_matches(is_mark);
    let named = line
        .split_once([':', '：'])
        .filter(|(label, _)| LABELS.contains(&label.trim_matches(is_mark).to_lowercase().as_str()));
    let line = named.map_or(line, |(_, title)| title);
    let line = line.trim_start_matches(is_mark).trim_end_matches(|c| is_mark(c) || is_stop(c));
    let title = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let bare = bare(&title);
    let repeats = bare == self::bare(question) || self::bare(REQUEST).contains(&bare);
    (!bare.is_empty() && !repeats && title.chars().count() <= LONGEST).then_some(title)
}

/// A text's letters and digits.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Store {
    /// Whether the model writes titles of new chats.
    pub(crate) fn titles(&self) -> Result<bool, StoreError> {
        let sql = "SELECT value FROM setting WHERE name = 'titles'";
        let value: rusqlite::Result<Option<String>> = self.connection().query_row(sql, [], |row| row.get(0)).optional();
        Ok(value.map_err(|error| self.failed(error))?.as_deref() != Some("false"))
    }

    /// Sets whether the model writes titles of new chats.
    pub(crate) fn set_titles(&self, on: bool) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO setting (name, value) VALUES ('titles', ?1)";
        self.change(|transaction| transaction.execute(sql, [on.to_string()]).map(|_| ()))
    }

    /// A conversation whose title is still the start of its question.
    pub(crate) fn untitled(&self, id: &str) -> Result<Option<Conversation>, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM conversation WHERE id = ?1 AND NOT named)";
        let is: bool = self.connection().query_row(sql, [id], |row| row.get(0)).map_err(|error| self.failed(error))?;
        if is { self.get(id) } else { Ok(None) }
    }

    /// Gives a conversation its title; without one, the start of its question stays. Does nothing if it has been renamed.
    pub(crate) fn title(&self, id: &str, title: Option<&str>) -> Result<bool, StoreError> {
        let sql = "UPDATE conversation SET title = coalesce(?2, title), named = 1
                   WHERE id = ?1 AND NOT named AND NOT deleted";
        Ok(self.change(|transaction| transaction.execute(sql, params![id, title]))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Message;

    #[test]
    fn only_models_that_are_large_enough_write_titles() {
        assert!(is_able(Some(SMALLEST_BYTES)) && is_able(Some(40_000_000_000)));
        assert!(!is_able(Some(SMALLEST_BYTES - 1)) && !is_able(Some(98_000_000)) && !is_able(None));
    }

    #[test]
    fn a_title_is_one_clean_line() {
        for (said, title) in [
            ("Slow Mornings in Lisbon", "Slow Mornings in Lisbon"),
            ("\n \"Slow Mornings in Lisbon.\"\nIt is about…", "Slow Mornings in Lisbon"),
            ("Title: **A week  in Lisbon**", "A week in Lisbon"),
            ("**Titel:** „Eine Woche in Lissabon“.", "Eine Woche in Lissabon"),
            ("# The bees' dance...", "The bees' dance"),
            ("- Ratios 3:2 and 4:3", "Ratios 3:2 and 4:3"),
            ("<think>They ask\nfor bees.</think>\n\nDance of bees", "Dance of bees"),
            ("「蜂のダンス」。", "蜂のダンス"),
            ("What is C++?", "What is C++?"),
        ] {
            assert_eq!(clean(said, "Plan a week").as_deref(), Some(title), "{said}");
        }
    }

    #[test]
    fn what_is_no_title_is_left() {
        let long = "A very long sentence about everything there is in the wide world";
        for said in [
            "",
            " \n",
            "\"…\"",
            "***",
            "<think>They ask",
            "plan a week!",
            "at most six words",
            "Reply with the title only.",
            long,
        ] {
            assert_eq!(clean(said, "Plan a week"), None, "{said}");
        }
    }

    #[test]
    fn the_model_is_asked_once_there_is_a_whole_answer() {
        let question = Message { text: "q".repeat(9000), complete: true, ..Message::default() };
        let answer = Message { role: Role::Assistant, text: "<think>x</think>yes".to_owned(), ..question.clone() };
        let choices = Choices { model: Some("big".to_owned()), temperature: 1.5, ..Choices::default() };
        let of = |messages| Conversation {
            messages,
            choices: choices.clone(),
            system: "Rhyme".to_owned(),
            ..Conversation::default()
        };
        assert_eq!(request(&of(vec![question.clone()])), None);
        assert_eq!(request(&of(vec![question.clone(), Message { complete: false, ..answer.clone() }])), None);
        let asked = request(&of(vec![question, answer])).unwrap();
        assert_eq!(
            (asked.choices.model.as_deref(), asked.choices.temperature, asked.turns.len()),
            (Some("big"), 0.0, 1)
        );
        let text = &asked.turns[0].text;
        assert!(asked.aside, "the conversation stays ready for its next turn");
        assert!(text.len() < 2500 && text.contains("Answer:\nyes\n") && text.ends_with(REQUEST), "{text}");
    }
}
