//! Checks every stage when an answer has received nothing for longer than its plan explains.

use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

use hive_protocol::{NONSENSE, Pulse, Reply, Request};
use hive_stage::StageHost;

use super::Ring;
use super::placed::PlacedStage;
use super::timing::{Expected, Finding};

/// The node answers, not the worker, so a machine that is present answers within two seconds. This allows for a lost
/// packet or two.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Machines that have not answered after this time are named to the reader; shorter pauses are not noticed.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(500);

/// How a machine answered a check.
pub(super) enum Checked {
    /// With its stage's pulse.
    Pulse(Pulse),
    /// It has no such stage, or cannot be reached, for this reason.
    Gone(String),
    /// It did not answer.
    Silent,
}

/// Asks the machine of a stage for a pulse.
pub(super) async fn check(host: &StageHost, stage: &PlacedStage, request: Request) -> Checked {
    let asked = host.ask(&stage.placement.addr, request, |_| ());
    match tokio::time::timeout(CHECK_TIMEOUT, asked).await {
        Ok(Ok(Reply::Pulse(pulse))) => Checked::Pulse(pulse),
        Ok(Ok(_)) => Checked::Gone(NONSENSE.to_owned()),
        Ok(Err(why)) => Checked::Gone(why),
        Err(_) => Checked::Silent,
    }
}

/// The state of a checkup.
pub(crate) enum News {
    /// Machines that have not answered yet, by name.
    Waiting(Vec<String>),
    /// The result.
    Verdict(Verdict),
}

/// The conclusion from all pulses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A stage is at work: it is worth waiting.
    Wait,
    /// Every stage is healthy and idle: a frame was lost on the way.
    AllIdle,
    /// The stage with this index makes no progress, for this reason.
    Hung(usize, String),
}

/// A check of all stages. One at a time serves all answers.
pub(crate) struct Checkup {
    stages: Vec<PlacedStage>,
    expected: Expected,
    is_cold: bool,
    checks: JoinSet<(usize, Checked)>,
    findings: Vec<Option<Finding>>,
    hung: Option<(usize, String)>,
    since: Instant,
    was_announced: bool,
    _alone: OwnedMutexGuard<()>,
}

impl Ring {
    /// Begins to check all stages, unless a checkup is under way.
    pub(crate) fn check_up(&self, epoch: u32) -> Option<Checkup> {
        let alone = self.inner.checking.clone().try_lock_owned().ok()?;
        let (stages, mut checks) = (self.stages(), JoinSet::new());
        for (index, stage) in stages.iter().cloned().enumerate() {
            let (host, request) = (self.inner.host.clone(), Request::Check(self.inner.stage_id(index)));
            checks.spawn(async move { (index, check(&host, &stage, request).await) });
        }
        Some(Checkup {
            findings: vec![None; stages.len()],
            stages,
            expected: self.expected(),
            is_cold: self.is_cold(epoch),
            checks,
            hung: None,
            since: Instant::now(),
            was_announced: false,
            _alone: alone,
        })
    }
}

impl Checkup {
    /// Waits for the next finding; not to be called again after the verdict. Cancel safe.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let due = self.since + ANNOUNCE_AFTER;
            tokio::select! {
                checked = self.checks.join_next() => match checked {
                    Some(Ok((index, checked))) => self.take(index, checked),
                    // A check that panicked says nothing about the stage.
                    Some(Err(_)) => {}
                    None => return News::Verdict(self.verdict()),
                },
                () = tokio::time::sleep_until(due.into()), if !self.was_announced => {
                    self.was_announced = true;
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
        // The last one in the ring: those before it may be waiting for it.
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

/// The verdict if no stage hangs.
fn together(findings: &[Option<Finding>]) -> Verdict {
    let held_up = findings.iter().rposition(|finding| *finding == Some(Finding::HeldUp));
    match held_up.and_then(|index| Some((index + 1, findings.get(index + 1)?))) {
        // It waits for a stage that is idle but accepts nothing.
        Some((next, Some(Finding::Idle))) => Verdict::Hung(next, "the machine before it waits for it".to_owned()),
        _ if findings.iter().all(|finding| *finding == Some(Finding::Idle)) => Verdict::AllIdle,
        _ => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Finding::{HeldUp, Idle, Working};

    #[test]
    fn as_long_as_a_stage_works_it_is_worth_waiting() {
        assert_eq!(together(&[Some(Idle), Some(Working)]), Verdict::Wait);
        assert_eq!(together(&[Some(Idle), None]), Verdict::Wait);
        assert_eq!(together(&[Some(HeldUp), Some(Working)]), Verdict::Wait);
        assert_eq!(together(&[Some(Idle), Some(Idle)]), Verdict::AllIdle);
    }

    #[test]
    fn a_stage_that_is_idle_and_takes_nothing_holds_the_others_up() {
        assert!(matches!(together(&[Some(HeldUp), Some(HeldUp), Some(Idle)]), Verdict::Hung(2, _)));
    }
}
