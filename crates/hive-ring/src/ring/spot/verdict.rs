//! Who computed wrong, where two machines do not agree on what a stage computes. Pure.
//!
//! The kernels give the same bits on every machine, so equality is exact, and a difference is a wrong number or a false
//! word. Nobody is blamed without a witness: this machine, which trusts itself, or a third that computes the same rows.

/// What is known of some rows of a stage's output, in the order in which it is found out. `T` is a row's digest, or a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a, T> {
    /// What came to the machine that uses them.
    pub(crate) used: &'a [T],
    /// What the stage says that it sent.
    pub(crate) claimed: Option<&'a [T]>,
    /// What the copy of the stage computed from the same input.
    pub(crate) copy: &'a [T],
    /// What a third machine computed, once there was a reason to ask it.
    pub(crate) third: Option<&'a [T]>,
    /// Whether the machine that uses the rows is this one.
    pub(crate) used_here: bool,
    /// Whether the copy is on this machine.
    pub(crate) copy_here: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is well.
    Agree,
    /// The stage computed wrong from this row on, counted from the first.
    Stage(usize),
    /// The copy did.
    Copy(usize),
    /// A third machine has to decide.
    AskThird,
    /// The stage and the machine that uses its rows contradict each other: one of them lies, and nobody knows which.
    Contradiction,
    /// No two agree.
    Unclear,
}

impl<T: PartialEq> Evidence<'_, T> {
    /// Judges what is known.
    pub(crate) fn judge(&self) -> Verdict {
        if self.used.len() != self.copy.len() {
            return Verdict::Unclear;
        }
        let Some(row) = self.used.iter().zip(self.copy).position(|(used, copy)| used != copy) else {
            return Verdict::Agree;
        };
        if self.copy_here {
            // The same input, computed here, unless the machine that uses the rows says what did not come.
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
            Some(third) if third == self.copy => Verdict::Stage(row),
            Some(third) if third == self.used => Verdict::Copy(row),
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
        Evidence { used: RIGHT, claimed: None, copy: RIGHT, third: None, used_here: false, copy_here: false }
    }

    #[test]
    fn those_that_agree_are_well() {
        assert_eq!(evidence().judge(), Verdict::Agree);
    }

    #[test]
    fn a_stage_that_differs_is_named_by_this_machine() {
        let seen = Evidence { used: WRONG, claimed: Some(WRONG), copy_here: true, ..evidence() };
        assert_eq!(seen.judge(), Verdict::Stage(1));
        // What came here needs nobody's word.
        assert_eq!(Evidence { claimed: None, used_here: true, ..seen }.judge(), Verdict::Stage(1));
    }

    #[test]
    fn of_two_others_a_third_decides_who_is_wrong() {
        let seen = Evidence { used: WRONG, claimed: Some(WRONG), ..evidence() };
        assert_eq!(seen.judge(), Verdict::AskThird);
        assert_eq!(Evidence { third: Some(RIGHT), ..seen }.judge(), Verdict::Stage(1));
        assert_eq!(Evidence { third: Some(WRONG), ..seen }.judge(), Verdict::Copy(1), "the copy lies");
        assert_eq!(Evidence { third: Some(OTHER), ..seen }.judge(), Verdict::Unclear);
    }

    #[test]
    fn one_that_says_it_was_given_something_else_gets_nobody_blamed() {
        // The stage sent what is right, and the machine after it says otherwise.
        let seen = Evidence { used: WRONG, claimed: Some(RIGHT), third: Some(RIGHT), ..evidence() };
        assert_eq!(seen.judge(), Verdict::Contradiction);
        assert_eq!(Evidence { copy_here: true, ..seen }.judge(), Verdict::Contradiction);
        assert_eq!(Evidence { claimed: None, ..seen }.judge(), Verdict::Contradiction, "it does not say what it sent");
    }

    #[test]
    fn answers_of_another_length_prove_nothing() {
        assert_eq!(Evidence { used: &[1, 2], ..evidence() }.judge(), Verdict::Unclear);
    }
}
