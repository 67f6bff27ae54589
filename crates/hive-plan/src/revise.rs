//! Whether a loaded model moves to a better plan.

/// Whether a model that is loaded moves to another plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// It stays.
    Keep,
    /// It moves.
    Move,
}

/// A model moves for a gain of this much. Speeds are measured, and measured speeds waver; loading takes its time.
const WORTH_MOVING: f64 = 1.25;

/// Where conversations are under way or may go on, all that was read for them is read anew.
const WORTH_READING_ANEW: f64 = 1.5;

/// Compares the speed of a model where it is with that of the best plan.
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
