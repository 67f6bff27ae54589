//! Thinking between two texts, such as `<think>` and `</think>`.

use super::piece::Pieces;
use crate::stop::overlap;

const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// Splits one answer.
#[derive(Debug)]
pub(super) struct Tags {
    begin: &'static str,
    end: &'static str,
    place: Place,
    held: String,
}

/// Where the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the answer: a thought or the answer comes next.
    Before {
        has_thought: bool,
    },
    /// At the beginning of a thought; `again` says whether the model has opened what the prompt had opened.
    Opened {
        again: bool,
    },
    Thinking,
    Answer,
}

impl Tags {
    pub(super) fn new(begin: &'static str, end: &'static str, inside: bool) -> Self {
        let place = if inside { Place::Opened { again: false } } else { Place::Before { has_thought: false } };
        Self { begin, end, place, held: String::new() }
    }

    pub(super) fn push(&mut self, text: &str, pieces: &mut Pieces) {
        self.held.push_str(text);
        while self.step(pieces) {}
    }

    /// Goes on as far as the text at hand allows; says whether the place has changed.
    fn step(&mut self, pieces: &mut Pieces) -> bool {
        let was = self.place;
        match self.place {
            Place::Before { has_thought } => {
                let text = self.held.trim_start();
                if let Some(after) = text.strip_prefix(self.begin) {
                    self.go(Place::Opened { again: true }, after.len());
                } else if let Some(after) = text.strip_prefix(self.end) {
                    // The prompt has opened it in a way that was not seen, or closed it already.
                    self.go(Place::Before { has_thought: true }, after.len());
                    return true;
                } else if !self.begin.starts_with(text) && !self.end.starts_with(text) {
                    let kept = if has_thought { self.held.trim_start_matches(LINE_BREAKS) } else { &self.held };
                    self.go(Place::Answer, kept.len());
                }
            }
            Place::Opened { again } => {
                let text = self.held.trim_start_matches(LINE_BREAKS);
                match text.strip_prefix(self.begin).filter(|_| !again) {
                    Some(after) => self.go(Place::Opened { again: true }, after.len()),
                    None if text.is_empty() || !again && self.begin.starts_with(text) => {}
                    None => self.go(Place::Thinking, text.len()),
                }
            }
            Place::Thinking => {
                if let Some(at) = self.held.find(self.end) {
                    pieces.thinking(self.held[..at].trim_end_matches(LINE_BREAKS));
                    self.go(Place::Before { has_thought: true }, self.held.len() - at - self.end.len());
                } else {
                    let certain = self.held.len() - overlap(&self.held, self.end);
                    let certain = self.held[..certain].trim_end_matches(LINE_BREAKS).len();
                    pieces.thinking(&self.held[..certain]);
                    self.held.drain(..certain);
                }
            }
            Place::Answer => pieces.answer(&std::mem::take(&mut self.held)),
        }
        self.place != was
    }

    /// Goes to a place with only the last bytes of the text at hand.
    fn go(&mut self, place: Place, left: usize) {
        self.place = place;
        self.held.drain(..self.held.len() - left);
    }

    pub(super) fn finish(&mut self, pieces: &mut Pieces) {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Before { has_thought: true } => pieces.answer(held.trim_start_matches(LINE_BREAKS)),
            Place::Before { has_thought: false } | Place::Answer => pieces.answer(&held),
            Place::Opened { .. } => pieces.thinking(held.trim_start_matches(LINE_BREAKS)),
            Place::Thinking => pieces.thinking(&held),
        }
    }
}
