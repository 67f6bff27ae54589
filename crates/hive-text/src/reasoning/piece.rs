//! The parts of an answer.

/// Part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The model's thinking.
    Thinking(String),
    /// Its answer.
    Answer(String),
}

/// Collects pieces; neighbours of a kind become one, and empty ones are dropped.
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
