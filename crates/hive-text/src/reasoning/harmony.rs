//! Thinking as messages on the channel `analysis`: the format of gpt-oss.
//!
//! An answer is a row of messages, each with a header: `<|start|>assistant<|channel|>analysis<|message|>…<|end|>`. The
//! prompt has the first `<|start|>assistant`. Messages on the channel `final`, or on `commentary` without a recipient,
//! are the answer. A message with a recipient is a tool call: it stays in the answer unchanged, for the parser of
//! calls.

use super::piece::Pieces;
use crate::stop::overlap;

const START: &str = "<|start|>";
pub(super) const CHANNEL: &str = "<|channel|>";
pub(super) const MESSAGE: &str = "<|message|>";
const END: &str = "<|end|>";
const CALL: &str = "<|call|>";
const RECIPIENT: &str = " to=";
/// The same without the special tokens, which are not part of an answer's text: the rest of the headers.
const BARE_THINKING: &str = "analysis";
const BARE_ANSWER: &str = "final";
const BARE_END: &str = "assistantfinal";

/// Maximum length of a header in bytes; the longest names of tools have 64.
const MAX_HEADER_BYTES: usize = 256;

/// Splits one answer.
#[derive(Debug)]
pub(super) struct Harmony {
    place: Place,
    held: String,
}

/// Where the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a header, or at its beginning.
    Header,
    Thinking,
    /// The same in a text without special tokens.
    BareThinking,
    /// In a message of the answer, before the answer proper.
    Preamble,
    Call,
    Answer,
}

/// Whether a prompt ends inside thinking.
pub(super) fn is_open(prompt: &str) -> bool {
    let header = prompt.strip_suffix(MESSAGE).and_then(|prompt| prompt.rsplit_once(START));
    header.is_some_and(|(_, header)| place_of(header) == Place::Thinking)
}

/// The kind of a message.
fn place_of(header: &str) -> Place {
    let channel = header.split_once(CHANNEL).map_or("", |(_, channel)| channel.trim_start());
    if header.contains(RECIPIENT) {
        Place::Call
    } else if channel.starts_with("analysis") {
        Place::Thinking
    } else if channel.starts_with("commentary") {
        Place::Preamble
    } else {
        Place::Answer
    }
}

impl Harmony {
    pub(super) fn new(inside: bool) -> Self {
        Self { place: if inside { Place::Thinking } else { Place::Header }, held: String::new() }
    }

    pub(super) fn push(&mut self, text: &str, pieces: &mut Pieces) {
        self.held.push_str(text);
        while self.step(pieces) {}
    }

    /// Goes on as far as the text at hand allows; says whether the place has changed.
    fn step(&mut self, pieces: &mut Pieces) -> bool {
        match self.place {
            Place::Header => {
                for (bare, place) in [(BARE_THINKING, Place::BareThinking), (BARE_ANSWER, Place::Answer)] {
                    let next = self.held.strip_prefix(bare).map(|rest| rest.chars().next());
                    match next {
                        // An ordinary word, or another beginning.
                        None | Some(Some('a'..='z')) => {}
                        Some(None) => return false,
                        Some(Some(_)) => {
                            self.take(bare.len());
                            self.place = place;
                            return true;
                        }
                    }
                }
                let openings = [START, CHANNEL, MESSAGE, RECIPIENT, BARE_THINKING, BARE_ANSWER];
                if !openings.iter().any(|opening| self.held.starts_with(opening)) {
                    // Perhaps a header that has just begun; otherwise text without one.
                    if openings.iter().any(|opening| opening.starts_with(&self.held)) {
                        return false;
                    }
                    self.place = Place::Answer;
                    return true;
                }
                match self.held.find(MESSAGE) {
                    Some(at) if at <= MAX_HEADER_BYTES => {
                        self.place = place_of(&self.held[..at]);
                        let header = self.take(at + MESSAGE.len());
                        if self.place == Place::Call {
                            pieces.answer(&header);
                        }
                        true
                    }
                    None if self.held.len() < MAX_HEADER_BYTES + MESSAGE.len() => false,
                    _ => {
                        self.place = Place::Answer;
                        true
                    }
                }
            }
            Place::Thinking | Place::Preamble => {
                // A message that is not ended is ended by the next one.
                let ends = [END, START].map(|end| self.held.find(end).map(|at| (at, end)));
                let found = ends.into_iter().flatten().min();
                let certain = found.map_or_else(|| self.certain(&[END, START]), |(at, _)| at);
                let text = self.take(certain);
                if self.place == Place::Thinking {
                    pieces.thinking(&text);
                } else {
                    pieces.answer(&text);
                }
                if let Some((_, end)) = found {
                    self.take(if end == END { END.len() } else { 0 });
                    self.place = Place::Header;
                }
                found.is_some()
            }
            Place::BareThinking => {
                let end = self.held.find(BARE_END);
                let text = self.take(end.unwrap_or_else(|| self.certain(&[BARE_END])));
                pieces.thinking(&text);
                if end.is_some() {
                    self.take(BARE_END.len());
                    self.place = Place::Answer;
                }
                end.is_some()
            }
            Place::Call => {
                let ends = [CALL, END].map(|end| self.held.find(end).map(|at| at + end.len()));
                let found = ends.into_iter().flatten().min();
                let text = self.take(found.unwrap_or_else(|| self.certain(&[CALL, END])));
                pieces.answer(&text);
                if found.is_some() {
                    self.place = Place::Header;
                }
                found.is_some()
            }
            Place::Answer => {
                pieces.answer(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    /// How much of the text at hand is certain not to belong to one of these.
    fn certain(&self, ends: &[&str]) -> usize {
        self.held.len() - ends.iter().map(|end| overlap(&self.held, end)).max().unwrap_or(0)
    }

    /// Takes the first bytes of the text at hand.
    fn take(&mut self, bytes: usize) -> String {
        let rest = self.held.split_off(bytes);
        std::mem::replace(&mut self.held, rest)
    }

    pub(super) fn finish(&mut self, pieces: &mut Pieces) {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Thinking | Place::BareThinking => pieces.thinking(&held),
            _ => pieces.answer(&held),
        }
    }
}
