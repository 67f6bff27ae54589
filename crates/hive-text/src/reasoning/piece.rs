//! The parts of an answer.

/// Part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What the model says to itself.
    Thinking(String),
    /// What it says to whoever asked.
    Answer(String),
}

/// Collects pieces; neighbours of a kind become one, and empty ones are left out.
#[derive(Default)]
pub(super) struct Pieces(pub(super) Vec<Piece>);

impl Pieces {
    pub(super) fn thinking(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Thinking(last)) => last.push_str(text),
            _ => self.0.push(Piece::Thinking(text.to_owned())),
        }
    }

    pub(super) fn answer(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Answer(last)) => last.push_str(text),
            _ => self.0.push(Piece::Answer(text.to_owned())),
        }
    }
}
