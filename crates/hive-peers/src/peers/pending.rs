//! Pairings in progress: the codes shown, and what two people decide.

use hive_audit::{AuditEvent, PairingEnd};
use hive_net::pairing::{Code, DECISION_TIMEOUT, Outcome};
use hive_net::{PeerAddr, PeerId};

use super::Peers;
use super::state::Pending;
use crate::data::DataError;

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No code is shown for this machine.
    #[error("{0} is not asking to join; pair with it first")]
    NotPending(String),
    /// The given code is not the one shown: it may be another machine's, or somebody may be in between.
    #[error(
        "the code of {name} is not {given}; nothing was approved. If the other machine really shows {given}, deny: somebody may be in between"
    )]
    WrongCode {
        /// The machine.
        name: String,
        /// The code that was given.
        given: Code,
    },
    /// The decision could not be saved.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl Peers {
    pub(crate) fn pending_code(&self, peer: PeerId) -> Option<Code> {
        self.lock().pending.get(&peer).map(|pending| pending.code)
    }

    /// Shows a code. Returns the approved machine that has the same name under another key, if there is one. If a code
    /// is already shown and `stays` is true, returns that code as the error.
    pub(crate) fn show_pending(&self, peer: PeerId, pending: Pending, stays: bool) -> Result<Option<PeerId>, Code> {
        let mut state = self.lock();
        if let Some(shown) = state.pending.get(&peer).filter(|_| stays) {
            return Err(shown.code);
        }
        if pending.asked_by_them {
            let text = format!("{} wants to join.", pending.name);
            state.note(peer, text);
        }
        let namesake = state.note_namesake(peer, &pending.name);
        state.pending.insert(peer, pending);
        drop(state);
        self.admission.expect(peer, DECISION_TIMEOUT);
        self.touch();
        Ok(namesake)
    }

    /// Withdraws the code of a machine that asked on its own, because another at its place has asked since.
    pub(crate) fn withdraw(&self, peer: PeerId) {
        // Dropping the verdict's sender tells the waiting request that the answer is no.
        self.lock().pending.remove(&peer);
        self.admission.expect_no_more(peer);
        self.touch();
    }

    /// Records that this owner no longer asks for a machine.
    pub(crate) fn want_no_more(&self, peer: PeerId) {
        self.lock().wanted.remove(&peer);
        self.admission.expect_no_more(peer);
    }

    pub(crate) fn approve_pending(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        let mut state = self.lock();
        let name = state.name(peer);
        let Some(pending) = state.pending.get_mut(&peer) else { return Err(DecideError::NotPending(name)) };
        if pending.code != code {
            return Err(DecideError::WrongCode { name, given: code });
        }
        pending.approved_here = true;
        if let Some(verdict) = pending.verdict.take() {
            let _ = verdict.send(true);
        }
        drop(state);
        self.touch();
        Ok(())
    }

    pub(crate) fn deny_pending(&self, peer: PeerId) -> Result<(), DecideError> {
        let mut state = self.lock();
        let name = state.name(peer);
        let Some(pending) = state.pending.get_mut(&peer) else { return Err(DecideError::NotPending(name)) };
        if let Some(verdict) = pending.verdict.take() {
            let _ = verdict.send(false);
        }
        Ok(())
    }

    /// Carries out a decision. Returns the event for the audit log, unless the machine was removed or blocked
    /// meanwhile.
    pub(crate) fn settled(
        &self,
        peer: PeerId,
        name: &str,
        code: Code,
        outcome: Outcome,
        addr: Option<&PeerAddr>,
    ) -> Option<AuditEvent> {
        let mut state = self.lock();
        // Removed or blocked meanwhile, so this pairing no longer counts.
        let ours = state.pending.get(&peer).is_some_and(|pending| pending.code == code);
        if !ours {
            return None;
        }
        state.pending.remove(&peer);
        if !state.wanted.contains_key(&peer) {
            self.admission.expect_no_more(peer);
        }
        // Under one lock, so that at no time is it neither pending nor approved.
        if outcome == Outcome::Approved {
            state.enter(peer, name, addr);
            state.book.paired(peer, code);
        }
        let text = match outcome {
            Outcome::Approved => None,
            Outcome::DeniedHere => Some(format!("{name} was denied.")),
            Outcome::DeniedThere => Some(format!("{name} said no.")),
            Outcome::TimedOut => Some(format!("{name} was not approved in time.")),
            Outcome::BrokeOff => Some(format!("{name} broke off before both had approved.")),
        };
        if let Some(text) = text {
            state.note(peer, text);
        }
        drop(state);
        self.touch();
        if outcome == Outcome::Approved
            && let Err(error) = self.let_in(peer)
        {
            tracing::error!("{name} could not be kept as approved: {error}");
            let mut state = self.lock();
            state.book.remove(peer);
            state.note(peer, format!("{name} could not be approved: {error}."));
            drop(state);
            self.touch();
            return Some(AuditEvent::PairingEnded { how: PairingEnd::NotKept });
        }
        let ended = |how| AuditEvent::PairingEnded { how };
        Some(match outcome {
            Outcome::Approved => AuditEvent::Approved { code: code.to_string() },
            Outcome::DeniedHere => ended(PairingEnd::DeniedHere),
            Outcome::DeniedThere => ended(PairingEnd::DeniedThere),
            Outcome::TimedOut => ended(PairingEnd::TimedOut),
            Outcome::BrokeOff => ended(PairingEnd::BrokeOff),
        })
    }
}
