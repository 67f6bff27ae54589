//! Spot checks while an answer is generated: do the stages compute what their standby replicas compute?

use std::time::Duration;

use hive_types::Trouble;

use super::Answer;
use crate::ring::spot::{Found, Spot, Subject};

/// An answer that is complete waits this long for an overdue spot check. Its text is there, only the end is delayed.
const LAST_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

impl Answer {
    /// Begins a spot check, if one is due.
    pub(super) fn spot_check_if_due(&mut self) {
        if !self.spot_checks.under_way.is_empty() {
            return;
        }
        let Some(alone) = self.ring.claim_spot_check() else { return };
        let latest = self.spot_checks.latest.take().filter(|(session, _)| *session == self.session);
        let spot = latest.map_or_else(|| Spot::new(self.ring.clone()), |(_, spot)| spot);
        let subject = Subject {
            session: self.session,
            known: self.known(),
            prompt: self.prompt.len() as u32,
            sampling: self.sampling.clone(),
            adapter: self.adapter.clone(),
            rows_from: self.rows_from,
            tokens_from: self.tokens_from,
        };
        self.spot_checks.under_way.spawn(async move {
            let checked = spot.check(subject).await;
            drop(alone);
            checked
        });
    }

    /// Handles the result of a spot check; returns what to tell the reader, if anything.
    pub(super) fn spot_checked(&mut self, checked: Result<(Spot, Found), tokio::task::JoinError>) -> Option<Trouble> {
        let Ok((spot, found)) = checked else { return None };
        self.ring.spot_check_done(found != Found::Unfinished);
        self.spot_checks.latest = Some((self.session, spot));
        let Found::Wrong { index, machine, name, position } = found else { return None };
        self.ring.quarantine(self.epoch, index, machine, &name);
        let token = (position as usize + 1).saturating_sub(self.prompt.len());
        Some(Trouble::WrongNumbers { machine: name, token })
    }

    /// Waits a moment for a spot check that short answers would postpone for ever.
    pub(super) async fn last_spot_check(&mut self) -> Option<Trouble> {
        if !self.ring.spot_check_is_overdue() {
            return None;
        }
        let checked = tokio::time::timeout(LAST_CHECK_TIMEOUT, self.spot_checks.under_way.join_next()).await.ok()??;
        self.spot_checked(checked)
    }
}
