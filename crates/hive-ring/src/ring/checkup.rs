//! Looks at the pulse of every stage, when an answer has heard nothing for longer than the plan lets it expect.

use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

use hive_protocol::{Answer, NONSENSE, Pulse, Question};
use hive_stage::StageHost;

use super::Ring;
use super::patience::{Expected, Finding};
use super::placed::PlacedStage;

/// A machine that is here answers within this time, whatever its worker does.
const CHECK_PATIENCE: Duration = Duration::from_secs(3);

/// Stages that have not answered after this time are named to whoever waits.
const WORTH_A_WORD: Duration = Duration::from_millis(500);

/// How a machine answered.
pub(super) enum Checked {
    /// With signs of life.
    Pulse(Pulse),
    /// It has no such stage, or cannot be reached, for this reason.
    Gone(String),
    /// Not at all.
    Silent,
}

/// Asks the holder of a stage for signs of life.
pub(super) async fn check(host: &StageHost, stage: &PlacedStage, question: Question) -> Checked {
    let asked = host.ask(&stage.placement.addr, question, |_| ());
    match tokio::time::timeout(CHECK_PATIENCE, asked).await {
        Ok(Ok(Answer::Pulse(pulse))) => Checked::Pulse(pulse),
        Ok(Ok(_)) => Checked::Gone(NONSENSE.to_owned()),
        Ok(Err(why)) => Checked::Gone(why),
        Err(_) => Checked::Silent,
    }
}

/// What has become known.
pub(crate) enum News {
    /// Machines that have not answered yet, by name.
    Waiting(Vec<String>),
    /// How it ended.
    Verdict(Verdict),
}

/// What the pulses say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Somebody is at work: it is worth waiting.
    Wait,
    /// Everybody is well, and has nothing to do.
    NobodyHasIt,
    /// A stage does not go on, and why.
    Hung(usize, String),
}

/// A look at all stages that is under way. Only one at a time is, for all answers.
pub(crate) struct Checkup {
    stages: Vec<PlacedStage>,
    expected: Expected,
    is_cold: bool,
    checks: JoinSet<(usize, Checked)>,
    findings: Vec<Option<Finding>>,
    hung: Option<(usize, String)>,
    since: Instant,
    was_said: bool,
    _alone: OwnedMutexGuard<()>,
}

impl Ring {
    /// Begins to look at all stages, unless somebody does already.
    pub(crate) fn check_up(&self, epoch: u32) -> Option<Checkup> {
        let alone = self.inner.checking.clone().try_lock_owned().ok()?;
        let (stages, mut checks) = (self.stages(), JoinSet::new());
        for (index, stage) in stages.iter().cloned().enumerate() {
            let (host, question) = (self.inner.host.clone(), Question::Check(self.inner.stage_id(index)));
            checks.spawn(async move { (index, check(&host, &stage, question).await) });
        }
        Some(Checkup {
            findings: vec![None; stages.len()],
            stages,
            expected: self.expected(),
            is_cold: self.is_cold(epoch),
            checks,
            hung: None,
            since: Instant::now(),
            was_said: false,
            _alone: alone,
        })
    }
}

impl Checkup {
    /// What becomes known next; not to be asked again after the verdict. Losing the future loses nothing.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let due = self.since + WORTH_A_WORD;
            tokio::select! {
                checked = self.checks.join_next() => match checked {
                    Some(Ok((index, checked))) => self.take(index, checked),
                    // A task of ours that ended otherwise says nothing of the stage.
                    Some(Err(_)) => {}
                    None => return News::Verdict(self.verdict()),
                },
                () = tokio::time::sleep_until(due.into()), if !self.was_said => {
                    self.was_said = true;
                    let stages = self.stages.iter().zip(&self.findings).filter(|(_, finding)| finding.is_none());
                    return News::Waiting(stages.map(|(stage, _)| stage.placement.name.clone()).collect());
                }
            }
        }
    }

    fn take(&mut self, index: usize, checked: Checked) {
        let name = &self.stages[index].placement.name;
        let hung = match checked {
            Checked::Pulse(pulse) => {
                let finding = self.expected.judge(index, &pulse, self.is_cold);
                tracing::debug!("{name} shows {pulse:?}: {finding:?}");
                self.findings[index] = Some(finding);
                let Finding::Hung(quiet) = finding else { return };
                format!("{name} has computed nothing for {} s", quiet.as_secs())
            }
            Checked::Gone(why) => format!("{name}: {why}"),
            Checked::Silent => format!("{name} does not answer"),
        };
        // The one furthest on: those before it may be waiting for it.
        if self.hung.as_ref().is_none_or(|(other, _)| *other < index) {
            self.hung = Some((index, hung));
        }
    }

    fn verdict(&mut self) -> Verdict {
        match self.hung.take() {
            Some((index, why)) => Verdict::Hung(index, why),
            None => together(&self.findings),
        }
    }
}

/// What the findings say where nobody hangs.
fn together(findings: &[Option<Finding>]) -> Verdict {
    let held_up = findings.iter().rposition(|finding| *finding == Some(Finding::HeldUp));
    match held_up.and_then(|index| Some((index + 1, findings.get(index + 1)?))) {
        // It waits for one that has nothing to do and takes nothing all the same.
        Some((next, Some(Finding::Idle))) => Verdict::Hung(next, "the machine before it waits for it".to_owned()),
        _ if findings.iter().all(|finding| *finding == Some(Finding::Idle)) => Verdict::NobodyHasIt,
        _ => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Finding::{HeldUp, Idle, Working};

    #[test]
    fn as_long_as_somebody_works_it_is_worth_waiting() {
        assert_eq!(together(&[Some(Idle), Some(Working)]), Verdict::Wait);
        assert_eq!(together(&[Some(Idle), None]), Verdict::Wait);
        assert_eq!(together(&[Some(HeldUp), Some(Working)]), Verdict::Wait);
        assert_eq!(together(&[Some(Idle), Some(Idle)]), Verdict::NobodyHasIt);
    }

    #[test]
    fn one_that_takes_nothing_and_has_nothing_to_do_holds_the_others_up() {
        assert!(matches!(together(&[Some(HeldUp), Some(HeldUp), Some(Idle)]), Verdict::Hung(2, _)));
    }
}
