//! Remembers when a conversation began, for requests that do not state it.
//!
//! A program sends the whole conversation with every question. For models whose prompt states the day, the prompt would
//! change at midnight, and the cached prefix would be lost. So a conversation is identified by its messages before the
//! first answer, and keeps the date at which these were first sent.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

use hive_text::template::{Conversation, Message};
use jiff::civil::DateTime;

/// Maximum number of conversations remembered; the latest are kept.
const MOST: usize = 1000;

/// A time in seconds since 1970 as local time; `None` if it is out of range.
pub fn local_time(since_1970_s: f64) -> Option<DateTime> {
    let moment = jiff::Timestamp::from_second(since_1970_s as i64).ok()?;
    Some(jiff::tz::TimeZone::system().to_datetime(moment))
}

#[derive(Debug, Default)]
pub(crate) struct Openings {
    hasher: RandomState,
    /// Start times by the hash of the messages before the first answer.
    known: Mutex<VecDeque<(u64, DateTime)>>,
}

impl Openings {
    /// When the conversation began.
    pub(crate) fn began(&self, conversation: &Conversation, now: DateTime) -> DateTime {
        let messages = &conversation.messages;
        let first_answer = messages.iter().position(|message| message.role == "assistant");
        let opening = self.hash(&messages[..first_answer.unwrap_or(messages.len())]);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.iter().position(|(other, _)| *other == opening);
        let before = place.and_then(|place| known.remove(place)).map(|(_, began)| began);
        // Without an answer yet, the same messages start another conversation.
        let began = before.filter(|_| first_answer.is_some()).unwrap_or(now);
        known.push_back((opening, began));
        if known.len() > MOST {
            known.pop_front();
        }
        began
    }

    fn hash(&self, opening: &[Message]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for message in opening {
            (&message.role, &message.content).hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(texts: &[&str]) -> Conversation {
        let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
        let messages = texts.iter().enumerate().map(|(at, text)| Message::new(role(at), *text));
        Conversation::new(messages.collect::<Vec<_>>())
    }

    fn day(day: i8) -> DateTime {
        jiff::civil::date(2026, 11, day).at(23, 59, 0, 0)
    }

    #[test]
    fn a_conversation_keeps_its_day_after_midnight() {
        let openings = Openings::default();
        assert_eq!(openings.began(&conversation(&["hi"]), day(1)), day(1));
        assert_eq!(openings.began(&conversation(&["hi", "hello", "go on"]), day(2)), day(1));
        assert_eq!(openings.began(&conversation(&["hi", "hello", "go on", "well", "and?"]), day(3)), day(1));
        // Another conversation, and one that began on another node.
        assert_eq!(openings.began(&conversation(&["you"]), day(3)), day(3));
        assert_eq!(openings.began(&conversation(&["who", "I", "go on"]), day(3)), day(3));
        assert_eq!(openings.began(&conversation(&["who", "I", "go on", "well", "and?"]), day(4)), day(3));
    }

    #[test]
    fn the_same_first_words_later_begin_a_new_conversation() {
        let openings = Openings::default();
        openings.began(&conversation(&["hi"]), day(1));
        assert_eq!(openings.began(&conversation(&["hi"]), day(2)), day(2));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let openings = Openings::default();
        openings.began(&conversation(&["first"]), day(1));
        for n in 0..MOST {
            openings.began(&conversation(&[&n.to_string()]), day(1));
        }
        assert_eq!(openings.began(&conversation(&["first", "x", "y"]), day(2)), day(2));
        assert_eq!(openings.known.lock().unwrap().len(), MOST);
    }
}
