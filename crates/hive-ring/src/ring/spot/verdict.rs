//! Which machine computed wrong numbers, if two disagree about the output of a stage. Pure.
//!
//! The kernels give the same bits on every machine, so the comparison is exact, and a difference is a wrong number or a
//! lie. No machine is blamed without a witness: this machine, which trusts itself, or a third that computes the same
//! rows.

/// The evidence about some rows of a stage's output, in the order in which it is gathered. `T` is a row's digest, or a
/// token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a, T> {
    /// The rows that the next machine received.
    pub(crate) used: &'a [T],
    /// The rows that the stage says it sent.
    pub(crate) claimed: Option<&'a [T]>,
    /// The rows that the standby replica computed from the same input.
    pub(crate) replica: &'a [T],
    /// The rows that a third machine computed, once it was asked.
    pub(crate) third: Option<&'a [T]>,
    /// Whether the machine that uses the rows is this one.
    pub(crate) used_here: bool,
    /// Whether the standby replica is on this machine.
    pub(crate) replica_here: bool,
}

/// The conclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They agree.
    Agree,
    /// The stage computed wrong numbers from this row on, counted from 0.
    Stage(usize),
    /// The standby replica did.
    Standby(usize),
    /// A third machine must decide.
    AskThird,
    /// The stage and the machine that uses its rows contradict each other: one of them lies, and it is not known which.
    Contradiction,
    /// No two agree.
    Unclear,
}

impl<T: PartialEq> Evidence<'_, T> {
    /// Judges the evidence.
    pub(crate) fn judge(&self) -> Verdict {
        if self.used.len() != self.replica.len() {
            return Verdict::Unclear;
        }
        let Some(row) = self.used.iter().zip(self.replica).position(|(used, replica)| used != replica) else {
            return Verdict::Agree;
        };
        if self.replica_here {
            // The same input, computed here, unless the next machine lies about the rows it received.
            return if self.used_here || self.claimed == Some(self.used) {
                Verdict::Stage(row)
            } else {
                Verdict::Contradiction
            };
        }
        if !self.used_here && self.claimed != Some(self.used) {
            return Verdict::Contradiction;
        }
        match self.third {
            None => Verdict::AskThird,
            Some(third) if third == self.replica => Verdict::Stage(row),
            Some(third) if third == self.used => Verdict::Standby(row),
            Some(_) => Verdict::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &[u32] = &[1, 2, 3];
    const WRONG: &[u32] = &[1, 9, 9];
    const OTHER: &[u32] = &[1, 2, 8];

    fn evidence() -> Evidence<'static, u32> {
        Evidence { used: RIGHT, claimed: None, replica: RIGHT, third: None, used_here: false, replica_here: false }
    }

    #[test]
    fn machines_that_agree_are_well() {
        assert_eq!(evidence().judge(), Verdict::Agree);
    }

    #[test]
    fn a_stage_that_differs_is_named_by_this_machine() {
        let seen = Evidence { used: WRONG, claimed: Some(WRONG), replica_here: true, ..evidence() };
        assert_eq!(seen.judge(), Verdict::Stage(1));
        // What arrived here needs no witness.
        assert_eq!(Evidence { claimed: None, used_here: true, ..seen }.judge(), Verdict::Stage(1));
    }

    #[test]
    fn of_two_others_a_third_decides_who_is_wrong() {
        let seen = Evidence { used: WRONG, claimed: Some(WRONG), ..evidence() };
        assert_eq!(seen.judge(), Verdict::AskThird);
        assert_eq!(Evidence { third: Some(RIGHT), ..seen }.judge(), Verdict::Stage(1));
        assert_eq!(Evidence { third: Some(WRONG), ..seen }.judge(), Verdict::Standby(1), "the replica lies");
        assert_eq!(Evidence { third: Some(OTHER), ..seen }.judge(), Verdict::Unclear);
    }

    #[test]
    fn a_machine_that_says_it_was_given_something_else_gets_nobody_blamed() {
        // The stage sent the right rows, and the machine after it says otherwise.
        let seen = Evidence { used: WRONG, claimed: Some(RIGHT), third: Some(RIGHT), ..evidence() };
        assert_eq!(seen.judge(), Verdict::Contradiction);
        assert_eq!(Evidence { replica_here: true, ..seen }.judge(), Verdict::Contradiction);
        assert_eq!(Evidence { claimed: None, ..seen }.judge(), Verdict::Contradiction, "it does not say what it sent");
    }

    #[test]
    fn answers_of_another_length_prove_nothing() {
        assert_eq!(Evidence { used: &[1, 2], ..evidence() }.judge(), Verdict::Unclear);
    }
}
