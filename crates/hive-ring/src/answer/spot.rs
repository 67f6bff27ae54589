//! An answer whose stages are looked at: is what they compute what their copies compute?

use std::time::Duration;

use super::Answer;
use crate::ring::spot::{Found, Spot, Subject};

/// What an answer that has ended waits for a look that is overdue.
const LAST_LOOK: Duration = Duration::from_secs(3);

impl Answer {
    /// Begins to look at the stages, if it is time.
    pub(super) fn look_if_due(&mut self) {
        if !self.looks.under_way.is_empty() {
            return;
        }
        let Some(alone) = self.ring.claim_spot_check() else { return };
        let latest = self.looks.latest.take().filter(|(session, _)| *session == self.session);
        let spot = latest.map_or_else(|| Spot::new(self.ring.clone()), |(_, spot)| spot);
        let subject = Subject {
            session: self.session,
            known: self.known(),
            prompt: self.prompt.len() as u32,
            sampling: self.sampling.clone(),
            rows_from: self.rows_from,
            tokens_from: self.tokens_from,
        };
        self.looks.under_way.spawn(async move {
            let looked = spot.look(subject).await;
            drop(alone);
            looked
        });
    }

    /// Takes what a look has found; gives what whoever reads the answer is to know.
    pub(super) fn looked(&mut self, looked: Result<(Spot, Found), tokio::task::JoinError>) -> Option<String> {
        let Ok((spot, found)) = looked else { return None };
        self.ring.spot_check_done(found != Found::Unfinished);
        self.looks.latest = Some((self.session, spot));
        let Found::Wrong { index, machine, name, position } = found else { return None };
        self.ring.caught(self.epoch, index, machine, &name);
        let token = (position as usize + 1).saturating_sub(self.prompt.len());
        Some(format!("{name} computed wrong numbers and is left out; the text from token {token} on may be wrong"))
    }

    /// Waits a moment for a look that short answers would put off for ever.
    pub(super) async fn last_look(&mut self) -> Option<String> {
        if !self.ring.spot_check_is_overdue() {
            return None;
        }
        let looked = tokio::time::timeout(LAST_LOOK, self.looks.under_way.join_next()).await.ok()??;
        self.looked(looked)
    }
}
