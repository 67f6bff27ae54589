//! Whether a loaded model moves to a better plan.

/// Whether a loaded model moves to a better plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// It stays.
    Keep,
    /// It moves.
    Move,
}

/// Minimum speed-up for a move: measured speeds vary, and loading takes time.
const WORTH_MOVING: f64 = 1.25;

/// The same with conversations under way or resumable, whose prompts must be read again.
const WORTH_READING_ANEW: f64 = 1.5;

/// Compares a model's current speed with that of the best plan.
pub fn revise(now_tokens_per_s: f64, best_tokens_per_s: f64, has_conversations: bool) -> Revision {
    let worth = if has_conversations { WORTH_READING_ANEW } else { WORTH_MOVING };
    if best_tokens_per_s > now_tokens_per_s * worth { Revision::Move } else { Revision::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_moves_for_a_clear_gain_only() {
        assert_eq!(revise(10.0, 12.0, false), Revision::Keep);
        assert_eq!(revise(10.0, 9.0, false), Revision::Keep);
        assert_eq!(revise(10.0, 13.0, false), Revision::Move);
        assert_eq!(revise(10.0, 13.0, true), Revision::Keep);
        assert_eq!(revise(10.0, 16.0, true), Revision::Move);
    }
}
