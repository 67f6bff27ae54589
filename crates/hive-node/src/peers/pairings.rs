//! Brings strangers to the point where two people can decide, and carries their decisions out.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use hive_net::invite::{InviteSecret, Invites, Ticket};
use hive_net::pairing::{self, Code, Outcome, PairError, Pairing};
use hive_net::{Channel, PeerAddr, PeerId, fingerprint};
use tokio::sync::oneshot;

use super::{Peers, Pending};
use crate::audit::{Asked, AuditEvent, Machine, PairingEnd, Refusal};
use crate::data::{DataError, NotKept};
use crate::node::Node;

/// Codes shown at a time for machines that asked by themselves. Nobody compares more.
const MAX_ASKING: usize = 8;

/// Requests taken at once, and one more every so often. A pairing costs two people's attention.
const BURST: u32 = 10;
const REGAIN: Duration = Duration::from_secs(6);

/// How long an invitation is good for, unless its owner says otherwise.
pub const INVITE_VALID_FOR: Duration = Duration::from_hours(24);

const INVITES: &str = "invites.json";

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No code is shown for this machine.
    #[error("{0} is not asking to join; pair with it first")]
    NotPending(String),
    /// The code given is not the one shown: perhaps another machine's, perhaps somebody in between.
    #[error(
        "the code of {name} is not {given}; nothing was approved. If the other machine really shows {given}, deny: somebody may be in between"
    )]
    WrongCode {
        /// Whose.
        name: String,
        /// What was given.
        given: Code,
    },
    /// It could not be kept.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// How a pairing began.
#[derive(Debug, Clone, Copy)]
struct Way {
    asked_by_them: bool,
    invited: bool,
}

/// How many requests strangers may make: a bucket that refills.
#[derive(Debug)]
pub(crate) struct Patience {
    left: u32,
    since: Instant,
}

impl Patience {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        let regained = (now.saturating_duration_since(self.since).as_secs_f64() / REGAIN.as_secs_f64()) as u32;
        if regained > 0 {
            self.left = self.left.saturating_add(regained).min(BURST);
            self.since += REGAIN * regained;
        }
        let admitted = self.left > 0;
        self.left -= u32::from(admitted);
        admitted
    }
}

/// What the node keeps for pairings.
#[derive(Debug)]
pub(crate) struct Desk {
    patience: Mutex<Patience>,
    invites: Mutex<Invites>,
}

impl Desk {
    pub(crate) fn new(invites: Invites) -> Self {
        Self { patience: Mutex::new(Patience::new(Instant::now())), invites: Mutex::new(invites) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads the invitations that are still open.
pub(crate) fn open_desk(data: Option<&crate::data::DataFolder>) -> Result<Desk, DataError> {
    let invites = data.map(|data| data.read(INVITES)).transpose()?.flatten();
    Ok(Desk::new(invites.unwrap_or_default()))
}

impl Node {
    /// Asks a machine to pair; gives the code that both machines now show.
    pub async fn pair(&self, peer: PeerId) -> Result<Code, PairError> {
        loop {
            let addr = self.peers().addr(peer);
            match self.pair_at(&addr, None).await {
                // It has started anew meanwhile, and nobody answers where it was.
                Err(PairError::Connect(_)) if self.peers().addr(peer) != addr => {}
                asked => return asked,
            }
        }
    }

    /// Asks the machine that an invitation names.
    pub async fn join_by(&self, ticket: &Ticket) -> Result<(PeerId, Code), PairError> {
        self.peers().invited(&ticket.addr);
        Ok((ticket.addr.id(), self.pair_at(&ticket.addr, Some(ticket.secret)).await?))
    }

    async fn pair_at(&self, addr: &PeerAddr, invite: Option<InviteSecret>) -> Result<Code, PairError> {
        if let Some(code) = self.peers().pending_code(addr.id()) {
            return Ok(code);
        }
        let pairing = pairing::ask(self.endpoint(), addr, self.name(), invite).await?;
        Ok(self.show(pairing, Way { asked_by_them: false, invited: invite.is_some() }, Some(addr.clone())))
    }

    /// The code of a machine matches: this owner approves.
    pub fn approve(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        self.peers().approve_pending(peer, code)
    }

    /// This owner says no.
    pub fn deny(&self, peer: PeerId) -> Result<(), DecideError> {
        self.peers().deny_pending(peer)
    }

    /// Takes a machine out.
    pub fn remove(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().remove(peer);
        self.drop_stages_of(peer);
        self.note_about(machine, AuditEvent::Removed);
        Ok(kept?)
    }

    /// Refuses a machine everything, pairing included.
    pub fn block(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().block(peer);
        self.drop_stages_of(peer);
        self.note_about(machine, AuditEvent::Blocked);
        Ok(kept?)
    }

    /// Calls a machine otherwise.
    pub fn rename(&self, peer: PeerId, name: &str) -> Result<(), NotKept> {
        self.audit(Some(peer), AuditEvent::Renamed { name: pairing::tidy(name) });
        Ok(self.peers().rename(peer, name)?)
    }

    /// A ticket that lets one machine knock within `valid_for`.
    pub fn invite(&self, valid_for: Duration) -> Result<Ticket, DataError> {
        let secret = {
            let mut invites = lock(&self.desk().invites);
            let secret = invites.give_out(valid_for, SystemTime::now());
            self.save(INVITES, &*invites)?;
            secret
        };
        self.audit(None, AuditEvent::Invited { valid_for_s: valid_for.as_secs() });
        Ok(Ticket { addr: self.addr(), secret })
    }

    /// A stranger knocks.
    pub(crate) async fn answer_pairing(&self, peer: PeerId, channel: Channel) {
        let knock = match pairing::receive(peer, channel).await {
            Ok(knock) => knock,
            Err(error) => {
                tracing::debug!("machine {peer} did not get as far as a code: {error}");
                return;
            }
        };
        let invited = knock.invite.is_some();
        let allowed = match &knock.invite {
            Some(secret) => self.redeem(secret),
            None if !lock(&self.desk().patience).admits(Instant::now()) || self.peers().asking() >= MAX_ASKING => {
                Err("too many machines ask at once; try again in a minute".to_owned())
            }
            None => Ok(()),
        };
        let already = self.peers().pending_code(peer).is_some();
        if let Err(why) = allowed {
            let because = if invited { Refusal::Invitation } else { Refusal::TooMany };
            // Whoever has no code yet can be anybody: they are counted together.
            self.audit(None, AuditEvent::Refused { asked: Asked::Pairing, why: because });
            return knock.refuse(&why).await;
        }
        if already {
            return knock.refuse("a code is already shown for this machine; decide on that one").await;
        }
        match knock.welcome(self.endpoint().id(), self.name()).await {
            Ok(pairing) => {
                self.show(pairing, Way { asked_by_them: true, invited }, None);
            }
            Err(error) => tracing::debug!("machine {peer} did not get as far as a code: {error}"),
        }
    }

    fn redeem(&self, secret: &InviteSecret) -> Result<(), String> {
        let mut invites = lock(&self.desk().invites);
        let redeemed = invites.redeem(secret, SystemTime::now());
        // Spent on disk before anybody is let to the code.
        self.save(INVITES, &*invites).map_err(|_| "the other machine cannot write its disk".to_owned())?;
        redeemed.map_err(|error| error.to_string())
    }

    /// Shows the code, and carries out what the owners decide.
    fn show(&self, pairing: Pairing, Way { asked_by_them, invited }: Way, addr: Option<PeerAddr>) -> Code {
        let (peer, name, code) = (pairing.peer(), pairing.name().to_owned(), pairing.code());
        let (verdict, decided) = oneshot::channel();
        let pending = Pending { name: name.clone(), code, asked_by_them, approved_here: false, verdict: Some(verdict) };
        let machine = Machine::new(peer, &name);
        let asked = AuditEvent::PairingAsked { by_them: asked_by_them, invited, code: code.to_string() };
        self.note_about(machine.clone(), asked);
        if let Some(approved) = self.peers().show_pending(peer, pending) {
            self.note_about(machine.clone(), AuditEvent::NameTaken { approved: fingerprint(approved) });
        }
        let node = self.clone();
        tokio::spawn(async move {
            let outcome = pairing.settle(decided).await;
            if let Some(event) = node.peers().settled(peer, &name, code, outcome, addr.as_ref()) {
                node.note_about(machine, event);
            }
        });
        code
    }
}

impl Peers {
    fn pending_code(&self, peer: PeerId) -> Option<Code> {
        self.lock().pending.get(&peer).map(|pending| pending.code)
    }

    /// Machines that asked by themselves and wait.
    fn asking(&self) -> usize {
        self.lock().pending.values().filter(|pending| pending.asked_by_them).count()
    }

    /// Shows a code; gives the approved machine that has the same name under another key, if there is one.
    fn show_pending(&self, peer: PeerId, pending: Pending) -> Option<PeerId> {
        let mut state = self.lock();
        if pending.asked_by_them {
            let text = format!("{} wants to join.", pending.name);
            state.note(peer, text);
        }
        let namesake = state.note_namesake(peer, &pending.name);
        state.pending.insert(peer, pending);
        drop(state);
        self.touch();
        namesake
    }

    fn approve_pending(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
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

    fn deny_pending(&self, peer: PeerId) -> Result<(), DecideError> {
        let mut state = self.lock();
        let name = state.name(peer);
        let Some(pending) = state.pending.get_mut(&peer) else { return Err(DecideError::NotPending(name)) };
        if let Some(verdict) = pending.verdict.take() {
            let _ = verdict.send(false);
        }
        Ok(())
    }

    /// Carries out what was decided; gives what the audit log is to say, unless the owner has decided otherwise meanwhile.
    fn settled(
        &self,
        peer: PeerId,
        name: &str,
        code: Code,
        outcome: Outcome,
        addr: Option<&PeerAddr>,
    ) -> Option<AuditEvent> {
        let mut state = self.lock();
        // Removed or blocked meanwhile: then its owner has decided otherwise.
        let ours = state.pending.get(&peer).is_some_and(|pending| pending.code == code);
        if !ours {
            return None;
        }
        state.pending.remove(&peer);
        // Under one lock, so that nobody sees it neither pending nor approved.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_may_ask_now_and_then_but_not_all_the_time() {
        let now = Instant::now();
        let mut patience = Patience::new(now);
        assert_eq!((0..1000).filter(|_| patience.admits(now)).count(), BURST as usize);
        assert!(!patience.admits(now + REGAIN / 2));
        assert!(patience.admits(now + REGAIN));
        assert!(!patience.admits(now + REGAIN));
        assert_eq!((0..1000).filter(|_| patience.admits(now + Duration::from_hours(1))).count(), BURST as usize);
    }
}
