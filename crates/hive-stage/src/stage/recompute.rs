//! Rows that are recomputed for comparison, in sessions of their own. The results go only to the machine that asked.

use std::collections::HashMap;

use hive_model::shard::Output;
use tokio::sync::oneshot;

use hive_protocol::{Recompute, Reply};
use hive_protocol::{RowDigest, digests};

/// Maximum number of such sessions per stage; each takes the memory of a conversation.
const MOST: usize = 4;

/// A piece that is being computed.
#[derive(Debug)]
struct Piece {
    left: u32,
    digests: Vec<RowDigest>,
    to: oneshot::Sender<Result<Reply, String>>,
}

/// The sessions for recomputing.
#[derive(Debug, Default)]
pub(super) struct Recomputing {
    /// The next position of each.
    next: HashMap<u128, u32>,
    pieces: HashMap<u128, Piece>,
}

impl Recomputing {
    /// Begins a piece, which must continue its session. Returns whether the session is new.
    ///
    /// # Errors
    /// The piece does not fit; the asker has been told.
    pub(super) fn begin(&mut self, wanted: &Recompute, to: oneshot::Sender<Result<Reply, String>>) -> Result<bool, ()> {
        let (session, rows) = (wanted.session, wanted.input.rows() as u32);
        let is_new = !self.next.contains_key(&session);
        let next = self.next.get(&session).copied().unwrap_or_default();
        let refusal = if self.pieces.contains_key(&session) {
            Some("the rows before these are still being computed")
        } else if next != wanted.position {
            Some("the rows before these are missing")
        } else if rows == 0 || wanted.position.checked_add(rows).is_none() {
            Some("there are no rows, or too many")
        } else {
            (is_new && self.next.len() >= MOST).then_some("it is already checking as many conversations as it can")
        };
        if let Some(why) = refusal {
            let _ = to.send(Err(why.to_owned()));
            return Err(());
        }
        self.next.insert(session, next + rows);
        self.pieces.insert(session, Piece { left: rows, digests: Vec::new(), to });
        Ok(is_new)
    }

    /// Whether a session is one of these.
    pub(super) fn has(&self, session: u128) -> bool {
        self.next.contains_key(&session)
    }

    /// Takes a result of the worker, which may be a part of the piece.
    pub(super) fn computed(&mut self, session: u128, rows: u32, output: Output) {
        let Some(mut piece) = self.pieces.remove(&session) else { return };
        piece.left = piece.left.saturating_sub(rows);
        let token = match output {
            Output::Hidden(hidden) => {
                piece.digests.extend(digests(&hidden.bytes, hidden.rows));
                None
            }
            Output::Token(sampled) => Some(sampled.token),
            Output::Nothing => None,
        };
        if piece.left == 0 {
            let _ = piece.to.send(Ok(Reply::Recomputed { digests: piece.digests, token }));
        } else {
            self.pieces.insert(session, piece);
        }
    }

    /// Fails the piece of a session and forgets the session.
    pub(super) fn failed(&mut self, session: u128, why: String) {
        self.next.remove(&session);
        if let Some(piece) = self.pieces.remove(&session) {
            let _ = piece.to.send(Err(why));
        }
    }

    /// Closes a session.
    pub(super) fn close(&mut self, session: u128) {
        self.failed(session, "it was closed".to_owned());
    }

    /// Forgets all sessions.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_model::shard::Input;
    use hive_model::{ActivationType, Hidden, SessionOptions};

    fn wanted(session: u128, position: u32, rows: usize) -> Recompute {
        let input = Input::Tokens(vec![1; rows]);
        Recompute { session, options: SessionOptions::default(), position, input, sample: false }
    }

    fn hidden(rows: usize) -> Output {
        Output::Hidden(Hidden { activation: ActivationType::F32, rows, width: 1, bytes: vec![7; rows * 4] })
    }

    #[test]
    fn a_piece_is_answered_when_all_of_it_is_computed() {
        let mut recomputing = Recomputing::default();
        let (to, mut answer) = oneshot::channel();
        assert_eq!(recomputing.begin(&wanted(1, 0, 3), to), Ok(true));
        recomputing.computed(1, 2, hidden(2));
        assert!(answer.try_recv().is_err());
        recomputing.computed(1, 1, hidden(1));
        let expected = Reply::Recomputed { digests: digests(&[7; 12], 3), token: None };
        assert_eq!(answer.try_recv().unwrap(), Ok(expected));
        let (to, _answer) = oneshot::channel();
        assert_eq!(recomputing.begin(&wanted(1, 3, 2), to), Ok(false), "it continues");
    }

    #[test]
    fn a_piece_that_does_not_go_on_where_its_session_is_is_refused() {
        let mut recomputing = Recomputing::default();
        let mut begin = |session, position, rows| {
            let (to, mut answer) = oneshot::channel();
            let begun = recomputing.begin(&wanted(session, position, rows), to);
            (begun, matches!(answer.try_recv(), Ok(Err(_))))
        };
        assert_eq!(begin(1, 5, 3), (Err(()), true));
        assert_eq!(begin(1, 0, 0), (Err(()), true));
        assert!(begin(1, 0, 3).0.is_ok());
        assert_eq!(begin(1, 3, 3), (Err(()), true), "the one before is not done");
        for session in 2..=MOST as u128 {
            assert!(begin(session, 0, 1).0.is_ok());
        }
        assert_eq!(begin(99, 0, 1), (Err(()), true), "memory is bounded");
    }
}
