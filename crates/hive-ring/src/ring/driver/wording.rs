//! Why a ring fails over or is abandoned, in words and as a value. Pure.

use hive_types::{Loss, Trouble, megabytes};

use crate::ring::failover::{Abandonment, Cause, Departure, LossKind, LossReason, NoRoom, StageLoss};

/// Why a ring fails over. `name` gives the name of a machine.
pub(super) fn cause<'a, M: Copy>(cause: &Cause<M>, name: impl Fn(M) -> &'a str) -> String {
    match cause {
        Cause::Loss(loss) => described(loss, name(loss.holder.machine)),
        Cause::Report(why) => why.clone(),
    }
}

/// The same, for the readers of answers.
pub(super) fn trouble<'a, M: Copy>(cause: &Cause<M>, name: impl Fn(M) -> &'a str) -> Trouble {
    match cause {
        Cause::Loss(lost) => Trouble::Lost { machine: name(lost.holder.machine).to_owned(), loss: how(lost) },
        Cause::Report(why) => Trouble::Stuck { why: why.clone() },
    }
}

fn how<M>(lost: &StageLoss<M>) -> Loss {
    match (&lost.reason, lost.kind) {
        (LossReason::Departed(Departure::Left), _) => Loss::Left,
        (LossReason::Departed(Departure::StoppedSharing), _) => Loss::StoppedSharing,
        (LossReason::Departed(Departure::MayNotSeePrompts), _) => Loss::MayNotSeePrompts,
        (LossReason::Departed(Departure::OverCap), _) => Loss::SharesLess,
        (LossReason::Silent, _) => Loss::Silent,
        (LossReason::NoProgress, _) | (_, LossKind::Hung) => Loss::NoProgress,
        (_, LossKind::WrongOutput) => Loss::WrongNumbers,
        (LossReason::Reported(_) | LossReason::Gone(_) | LossReason::FailedOnTheWay(_), _) => Loss::Failed,
    }
}

/// Why a ring is abandoned; `why` says why it was failing over, if it was.
pub(super) fn abandonment<'a, M: Copy>(reason: &Abandonment<M>, why: &str, name: impl Fn(M) -> &'a str) -> String {
    match reason {
        Abandonment::Unused(unused) => cause(unused, name),
        Abandonment::NoRoom(NoRoom { needed_bytes, most_bytes }) => format!(
            "{why}, and no machine has room for its layers: {} MB are needed, at most {} MB are free",
            megabytes(*needed_bytes),
            most_bytes / 1_000_000
        ),
        Abandonment::AttemptsExhausted => why.to_owned(),
    }
}

/// Why a stage counts as lost, by the name of its machine.
fn described<M>(loss: &StageLoss<M>, name: &str) -> String {
    match &loss.reason {
        LossReason::Departed(Departure::Left) => format!("{name} left"),
        LossReason::Departed(Departure::StoppedSharing) => format!("{name} stopped sharing"),
        LossReason::Departed(Departure::MayNotSeePrompts) => format!("{name} may not see prompts any more"),
        LossReason::Departed(Departure::OverCap) => format!("{name} gives less memory now"),
        // The check of the stage has named its machine.
        LossReason::Reported(why) if loss.kind == LossKind::Hung => why.clone(),
        // So has the failure to load or join it.
        LossReason::FailedOnTheWay(why) => why.clone(),
        LossReason::Reported(why) | LossReason::Gone(why) => format!("{name}: {why}"),
        LossReason::NoProgress => format!("{name} has stopped making progress"),
        LossReason::Silent => format!("{name} does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::failover::Holder;

    fn loss(kind: LossKind, reason: LossReason) -> Cause<char> {
        Cause::Loss(StageLoss { holder: Holder { stage: 1, machine: 'b' }, kind, reason })
    }

    fn words(why: &Cause<char>) -> String {
        cause(why, |machine| if machine == 'b' { "bob" } else { "somebody else" })
    }

    #[test]
    fn a_lost_machine_is_named_once() {
        assert_eq!(words(&loss(LossKind::MachineLeft, LossReason::Departed(Departure::Left))), "bob left");
        let hung = LossReason::Reported("bob passes nothing on".to_owned());
        assert_eq!(words(&loss(LossKind::Hung, hung)), "bob passes nothing on");
        let wrong = LossReason::Reported("it ended an answer that does not end there".to_owned());
        let named = "bob: it ended an answer that does not end there";
        assert_eq!(words(&loss(LossKind::WrongOutput, wrong)), named);
        assert_eq!(words(&loss(LossKind::Unreachable, LossReason::Silent)), "bob does not answer");
    }

    #[test]
    fn a_reader_is_told_who_was_lost_and_how() {
        let told = |why: &Cause<char>| trouble(why, |_| "bob");
        let lost = |loss| Trouble::Lost { machine: "bob".to_owned(), loss };
        let left = loss(LossKind::MachineLeft, LossReason::Departed(Departure::StoppedSharing));
        assert_eq!(told(&left), lost(Loss::StoppedSharing));
        let why = || LossReason::Reported("bob passes nothing on".to_owned());
        assert_eq!(told(&loss(LossKind::Hung, why())), lost(Loss::NoProgress));
        assert_eq!(told(&loss(LossKind::WrongOutput, why())), lost(Loss::WrongNumbers));
        let gone = LossReason::Gone("no such stage".to_owned());
        assert_eq!(told(&loss(LossKind::WorkerDied, gone)), lost(Loss::Failed));
        let report = Cause::Report("nothing came for 120 s".to_owned());
        assert_eq!(told(&report), Trouble::Stuck { why: "nothing came for 120 s".to_owned() });
    }

    #[test]
    fn a_ring_without_room_says_how_much_is_missing() {
        let no_room = Abandonment::NoRoom(NoRoom { needed_bytes: 3_000_000, most_bytes: 1_900_000 });
        let expected =
            "bob left, and no machine has room for its layers: 3 MB are needed, at most 1 MB are free".to_owned();
        assert_eq!(abandonment(&no_room, "bob left", |_: char| "bob"), expected);
        assert_eq!(abandonment(&Abandonment::AttemptsExhausted, "bob left", |_: char| "bob"), "bob left");
        let unused = Abandonment::Unused(loss(LossKind::MachineLeft, LossReason::Departed(Departure::Left)));
        assert_eq!(abandonment(&unused, "", |_| "bob"), "bob left");
    }
}
