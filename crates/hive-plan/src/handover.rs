//! Chooses how the sessions of a stage move to its new machine: transfer their caches, or recompute them.

/// The sessions of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tokens read, over all sessions.
    pub rows: u64,
    /// Bytes of their caches and of the frames kept for replay.
    pub bytes: u64,
}

/// How a new machine gets a stage's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The old machine transfers them.
    Carry,
    /// The new machine recomputes them.
    ReadAgain,
}

/// Chooses the faster: a transfer at `bits_per_s`, or recomputing at `rows_per_s`. Transfers if a speed is unknown:
/// that only keeps a path busy, while recomputing slows the new machine's other conversations as well.
pub fn handover(load: Load, bits_per_s: Option<u64>, rows_per_s: Option<f64>) -> Handover {
    let (Some(bits_per_s), Some(rows_per_s)) = (bits_per_s, rows_per_s) else { return Handover::Carry };
    let carrying_s = load.bytes as f64 * 8.0 / bits_per_s.max(1) as f64;
    let reading_s = load.rows as f64 / rows_per_s.max(f64::MIN_POSITIVE);
    if carrying_s <= reading_s { Handover::Carry } else { Handover::ReadAgain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_carried_where_the_path_is_quicker_than_the_machine() {
        // A thousand tokens, 24 kB each.
        let load = Load { rows: 1000, bytes: 24_000_000 };
        assert_eq!(handover(load, Some(1_000_000_000), Some(1800.0)), Handover::Carry);
        assert_eq!(handover(load, Some(100_000_000), Some(1800.0)), Handover::ReadAgain);
        assert_eq!(handover(load, Some(100_000_000), Some(100.0)), Handover::Carry);
    }

    #[test]
    fn what_is_not_known_is_no_reason_to_compute() {
        let load = Load { rows: 1000, bytes: 24_000_000 };
        assert_eq!(handover(load, None, Some(1800.0)), Handover::Carry);
        assert_eq!(handover(load, Some(1), None), Handover::Carry);
        assert_eq!(handover(Load { rows: 0, bytes: 0 }, Some(0), Some(0.0)), Handover::Carry);
    }
}
