//! An answer's thinking as a stream of its own: text is split as it arrives, wherever it is cut.
//!
//! [`Markers`] says how a family marks its thinking; a [`Splitter`] applies them to one answer. A model may think several
//! times before it answers. Once the answer has begun, all that follows belongs to it: a person who asks about
//! `<think>` gets to read `<think>`.
//!
//! Nothing is lost and nothing doubled: the pieces are the text without the markers, without the blanks before a thought,
//! and without the line breaks between a marker and its text, as templates remove them. Thinking that never ends is
//! thinking.

mod harmony;
mod piece;
mod tags;

use harmony::Harmony;
pub use piece::Piece;
use piece::Pieces;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tags::Tags;

/// How a family marks its thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Markers {
    /// Between two texts.
    Tags {
        /// The text before it.
        begin: &'static str,
        /// The text after it.
        end: &'static str,
    },
    /// As messages on a channel, the format of gpt-oss.
    Harmony,
}

/// Pairs of markers around reasoning. The first pair found wins, so markers that contain others come first.
const TAGS: [(&str, &str); 8] = [
    ("<|channel>thought\n", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<reasoning>", "</reasoning>"),
    ("<thinking>", "</thinking>"),
    ("<think>", "</think>"),
];

impl Markers {
    /// The markers of a model, by its chat template's source. A template that does not mention any may still belong to a
    /// model that thinks, so the vocabulary is asked as well: `is_token` says whether a text is one token.
    pub(crate) fn of(template: &str, is_token: impl Fn(&str) -> bool) -> Option<Self> {
        let has_channels = |has: &dyn Fn(&str) -> bool| has(harmony::CHANNEL) && has(harmony::MESSAGE);
        if has_channels(&|text| template.contains(text)) {
            return Some(Self::Harmony);
        }
        // Templates build finished reasoning from pieces, so only the end marker is certain to appear in one.
        let tags = |has: &dyn Fn(&str) -> bool| {
            let (begin, end) = TAGS.into_iter().find(|(_, end)| has(end))?;
            Some(Self::Tags { begin, end })
        };
        tags(&|text| template.contains(text))
            .or_else(|| has_channels(&is_token).then_some(Self::Harmony))
            .or_else(|| tags(&is_token))
    }

    /// Whether a prompt ends inside thinking, so that the answer begins there. The prompt's last few words are enough.
    pub fn is_open(self, prompt: &str) -> bool {
        match self {
            Self::Tags { begin, .. } => prompt.trim_end().ends_with(begin.trim_end()),
            Self::Harmony => harmony::is_open(prompt),
        }
    }
}

/// Whether a token is one of those that mark thinking, or the first word of one.
pub(crate) fn is_mark(token: &str) -> bool {
    TAGS.iter().any(|(begin, end)| token == *end || (!token.is_empty() && begin.starts_with(token)))
}

/// Stored as the marker that begins reasoning.
impl From<Markers> for String {
    fn from(markers: Markers) -> Self {
        match markers {
            Markers::Tags { begin, .. } => begin.to_owned(),
            Markers::Harmony => harmony::CHANNEL.to_owned(),
        }
    }
}

impl TryFrom<String> for Markers {
    type Error = UnknownMarkers;

    fn try_from(text: String) -> Result<Self, UnknownMarkers> {
        if text == harmony::CHANNEL {
            return Ok(Self::Harmony);
        }
        let tags = TAGS.into_iter().find(|(begin, _)| *begin == text);
        tags.map(|(begin, end)| Self::Tags { begin, end }).ok_or(UnknownMarkers)
    }
}

// A derived implementation would borrow the texts from its input.
impl<'de> Deserialize<'de> for Markers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

/// A text that begins no thinking.
#[derive(Debug, thiserror::Error)]
#[error("these are not the markers of any family")]
pub struct UnknownMarkers;

/// Splits one answer.
#[derive(Debug)]
pub struct Splitter(Machine);

#[derive(Debug)]
enum Machine {
    /// The model does not think.
    Plain,
    Tags(Tags),
    Harmony(Harmony),
}

impl Splitter {
    /// For an answer of a model with these markers. `inside` says whether it begins inside thinking
    /// ([`Markers::is_open`]).
    pub fn new(markers: Option<Markers>, inside: bool) -> Self {
        Self(match markers {
            None => Machine::Plain,
            Some(Markers::Tags { begin, end }) => Machine::Tags(Tags::new(begin, end, inside)),
            Some(Markers::Harmony) => Machine::Harmony(Harmony::new(inside)),
        })
    }

    /// Adds text; returns the pieces that are now certain, in order. Text that may be the beginning of a marker is held
    /// back.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        match &mut self.0 {
            Machine::Plain => pieces.answer(text),
            Machine::Tags(tags) => tags.push(text, &mut pieces),
            Machine::Harmony(harmony) => harmony.push(text, &mut pieces),
        }
        pieces.0
    }

    /// The answer has ended: returns the text that was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        match &mut self.0 {
            Machine::Plain => {}
            Machine::Tags(tags) => tags.finish(&mut pieces),
            Machine::Harmony(harmony) => harmony.finish(&mut pieces),
        }
        pieces.0
    }
}

#[cfg(test)]
mod tests;
