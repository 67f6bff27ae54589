//! Whether a stage is lost, and how: from its machine's announcements, a fault report, and a check.

use super::deaths::TOO_MANY;

/// A machine that holds a stage, or is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder<M> {
    /// Its index in the ring.
    pub(crate) stage: usize,
    /// The machine.
    pub(crate) machine: M,
}

/// A fault that an answer, a stage or a connection has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultReport {
    /// The epoch of the ring in which it was seen.
    pub(crate) epoch: u32,
    /// Where.
    pub(crate) origin: FaultOrigin,
    /// For people.
    pub(crate) why: String,
}

/// Where a fault comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultOrigin {
    /// A connection, or nobody knows.
    Link,
    /// The stage with this index computes impossible results.
    Output(usize),
    /// The stage with this index was checked and makes no progress.
    Progress(usize),
}

impl FaultOrigin {
    /// The stage that is accused.
    pub(super) fn stage(self) -> Option<usize> {
        match self {
            Self::Link => None,
            Self::Output(stage) | Self::Progress(stage) => Some(stage),
        }
    }
}

/// Why a machine must not hold its stage any longer, although nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// It quit, or runs in another incarnation, which does not have the stage.
    Left,
    /// Its owner stopped sharing it.
    StoppedSharing,
    /// It may no longer see prompts.
    MayNotSeePrompts,
    /// It holds more memory than its owner shares now.
    OverCap,
}

/// How the machine of a stage answered a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// With a pulse that shows work, or nothing to do.
    Working,
    /// With a pulse that shows no progress for too long.
    Hung,
    /// It has no such stage or cannot be reached, for this reason.
    Gone(String),
    /// It did not answer.
    Silent,
}

/// How a stage was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossKind {
    /// Its worker died. The machine may start another.
    WorkerDied,
    /// Its machine is leaving or has left; that does not count against it.
    MachineLeft,
    /// Its machine does not answer, or did not take part in a failover.
    Unreachable,
    /// It makes no progress, though its machine answers.
    Hung,
    /// It computes impossible results.
    WrongOutput,
}

impl LossKind {
    /// The deaths that it counts against the machine, within this ring.
    pub(super) fn deaths(self) -> usize {
        match self {
            Self::WorkerDied => 1,
            Self::MachineLeft => 0,
            Self::Hung | Self::Unreachable | Self::WrongOutput => TOO_MANY,
        }
    }

    /// Whether it counts against the machine in other plans, too. A machine that cannot be reached may be well: of two
    /// with a broken network between them, each takes the other for gone.
    pub(super) fn is_held_against(self) -> bool {
        self == Self::WrongOutput
    }
}

/// Why a stage counts as lost, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LossReason {
    /// Its machine must not hold it any longer.
    Departed(Departure),
    /// A fault report said so.
    Reported(String),
    /// Its machine said so, or could not be reached.
    Gone(String),
    /// Its pulse shows no progress.
    NoProgress,
    /// Its machine does not answer.
    Silent,
    /// It could not be loaded or joined during failover.
    FailedOnTheWay(String),
}

/// A stage that needs another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageLoss<M> {
    /// The stage, and who held it.
    pub(crate) holder: Holder<M>,
    /// How it was lost.
    pub(crate) kind: LossKind,
    /// For people.
    pub(crate) reason: LossReason,
}

impl<M> StageLoss<M> {
    /// The loss of a stage whose machine must not hold it any longer.
    pub(super) fn departed(holder: Holder<M>, departure: Departure) -> Self {
        Self { holder, kind: LossKind::MachineLeft, reason: LossReason::Departed(departure) }
    }

    /// The loss of a stage that was checked and reported to make no progress.
    pub(super) fn hung(holder: Holder<M>, report: &FaultReport) -> Self {
        Self { holder, kind: LossKind::Hung, reason: LossReason::Reported(report.why.clone()) }
    }

    /// The loss of a stage that kept the ring from being joined.
    pub(super) fn on_the_way(holder: Holder<M>, why: String) -> Self {
        Self { holder, kind: LossKind::Unreachable, reason: LossReason::FailedOnTheWay(why) }
    }

    /// The loss that a check shows, given the report that accuses the stage, if there is one; `None` if all is well.
    pub(super) fn checked(holder: Holder<M>, check: Check, accusation: Option<&FaultReport>) -> Option<Self> {
        let (kind, reason) = match (check, accusation) {
            // It is present, and its results were seen to be wrong.
            (Check::Working | Check::Hung, Some(report)) => {
                (LossKind::WrongOutput, LossReason::Reported(report.why.clone()))
            }
            (Check::Working, None) => return None,
            (Check::Hung, None) => (LossKind::Hung, LossReason::NoProgress),
            (Check::Gone(why), _) => (LossKind::WorkerDied, LossReason::Gone(why)),
            (Check::Silent, _) => (LossKind::Unreachable, LossReason::Silent),
        };
        Some(Self { holder, kind, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wrong_output_counts_against_a_machine_elsewhere() {
        assert!(LossKind::WrongOutput.is_held_against());
        for honest in [LossKind::WorkerDied, LossKind::MachineLeft, LossKind::Hung, LossKind::Unreachable] {
            assert!(!honest.is_held_against(), "{honest:?}");
        }
    }

    #[test]
    fn an_accused_stage_that_is_gone_is_not_called_a_liar() {
        let holder = Holder { stage: 0, machine: 'a' };
        let report = FaultReport { epoch: 0, origin: FaultOrigin::Output(0), why: "noise".to_owned() };
        let kind = |check| StageLoss::checked(holder, check, Some(&report)).map(|loss| loss.kind);
        assert_eq!(kind(Check::Working), Some(LossKind::WrongOutput));
        assert_eq!(kind(Check::Hung), Some(LossKind::WrongOutput));
        assert_eq!(kind(Check::Gone("no such stage".to_owned())), Some(LossKind::WorkerDied));
        assert_eq!(kind(Check::Silent), Some(LossKind::Unreachable));
        assert_eq!(StageLoss::checked(holder, Check::Working, None), None);
    }
}
