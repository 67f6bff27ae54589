//! Brings strangers to the point where two people can decide, and carries their decisions out.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use hive_net::invite::{InviteSecret, Invites, Ticket};
use hive_net::near::ReachableFrom;
use hive_net::pairing::{self, Code, Outcome, PairError, Pairing};
use hive_net::{Channel, Origin, PeerAddr, PeerId, fingerprint};
use tokio::sync::oneshot;

use super::line::{Line, Turn};
use super::{Peers, Pending};
use crate::audit::{Asked, AuditEvent, Machine, PairingEnd, Refusal};
use crate::data::{DataError, NotKept};
use crate::node::Node;

/// How long, and how often, a machine that has no time for this one is asked again: its owner may just be about to ask
/// this one, and then it has.
const ASK_FOR: Duration = Duration::from_secs(6);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often a machine is asked anew because it has turned out to be elsewhere.
const FOLLOWED: u32 = 3;

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

/// What the node keeps for pairings.
#[derive(Debug)]
pub(crate) struct Desk {
    line: Mutex<Line>,
    invites: Mutex<Invites>,
    /// Machines that are being asked at this moment.
    asking: Mutex<BTreeSet<PeerId>>,
}

impl Desk {
    pub(crate) fn new(invites: Invites) -> Self {
        Self { line: Mutex::new(Line::new(Instant::now())), invites: Mutex::new(invites), asking: Mutex::default() }
    }
}

/// A machine is being asked, for as long as this lives: whoever waits for the answer may go.
struct Asking<'a> {
    node: &'a Node,
    peer: PeerId,
}

impl<'a> Asking<'a> {
    fn begin(node: &'a Node, peer: PeerId) -> Self {
        lock(&node.desk().asking).insert(peer);
        Self { node, peer }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.node.desk().asking).remove(&self.peer);
    }
}

/// Of two machines that ask each other at the same time, the one whose request counts.
fn counts(asker: PeerId, answerer: PeerId) -> bool {
    asker < answerer
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
        self.peers().want(peer);
        let mut followed = 0;
        loop {
            let addr = self.peers().addr(peer);
            self.endpoint().expect_from(&addr);
            match self.pair_at(&addr, None).await {
                // It has started anew meanwhile, and nobody answers where it was.
                Err(PairError::Connect(_)) if self.peers().addr(peer) != addr && followed < FOLLOWED => followed += 1,
                asked => return asked,
            }
        }
    }

    /// Asks the machine that an invitation names.
    pub async fn join_by(&self, ticket: &Ticket) -> Result<(PeerId, Code), PairError> {
        self.peers().want(ticket.addr.id());
        self.peers().invited(&ticket.addr);
        self.endpoint().vouch(&ticket.addr, ReachableFrom::Anywhere);
        Ok((ticket.addr.id(), self.pair_at(&ticket.addr, Some(ticket.secret)).await?))
    }

    async fn pair_at(&self, addr: &PeerAddr, invite: Option<InviteSecret>) -> Result<Code, PairError> {
        let peer = addr.id();
        let until = Instant::now() + ASK_FOR;
        loop {
            if let Some(code) = self.peers().pending_code(peer) {
                return Ok(code);
            }
            let asking = Asking::begin(self, peer);
            let asked = pairing::ask(self.endpoint(), addr, self.name(), invite).await;
            drop(asking);
            match asked {
                // What a person gave is kept with the machine; what was announced proves itself first.
                Ok(pairing) => {
                    let way = Way { asked_by_them: false, invited: invite.is_some() };
                    return Ok(self.show(pairing, way, invite.map(|_| addr.clone())));
                }
                // An invitation is refused for good. Without one, the other machine is being asked by others, or is asking
                // this one at the same moment.
                Err(PairError::Refused(_)) if invite.is_none() && Instant::now() < until => {
                    let mut changes = self.changes();
                    let shown =
                        async { while self.peers().pending_code(peer).is_none() && changes.changed().await.is_ok() {} };
                    let _ = tokio::time::timeout(ASK_AGAIN, shown).await;
                }
                Err(error) => return self.peers().pending_code(peer).ok_or(error),
            }
        }
    }

    /// The code of a machine matches: this owner approves.
    pub fn approve(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        self.peers().approve_pending(peer, code)?;
        self.peers().want(peer);
        self.endpoint().expect_from(&self.peers().addr(peer));
        Ok(())
    }

    /// This owner says no.
    pub fn deny(&self, peer: PeerId) -> Result<(), DecideError> {
        self.peers().deny_pending(peer)?;
        self.peers().want_no_more(peer);
        // One that is in may have been asked anew.
        if !self.peers().is_approved(peer) {
            self.endpoint().forget(peer);
        }
        Ok(())
    }

    /// Takes a machine out.
    pub fn remove(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().remove(peer);
        self.endpoint().forget(peer);
        self.drop_stages_of(peer);
        self.note_about(machine, AuditEvent::Removed);
        Ok(kept?)
    }

    /// Refuses a machine everything, pairing included.
    pub fn block(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().block(peer);
        self.endpoint().forget(peer);
        self.drop_stages_of(peer);
        self.note_about(machine, AuditEvent::Blocked);
        Ok(kept?)
    }

    /// Calls a machine otherwise.
    pub fn rename(&self, peer: PeerId, name: &str) -> Result<(), NotKept> {
        self.audit(Some(peer), AuditEvent::Renamed { name: hive_net::border::name(name) });
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
    pub(crate) async fn answer_pairing(&self, peer: PeerId, origin: Origin, channel: Channel) {
        let knock = match pairing::receive(peer, channel).await {
            Ok(knock) => knock,
            Err(error) => {
                tracing::debug!("machine {peer} did not get as far as a code: {error}");
                return;
            }
        };
        let invited = knock.invite.is_some();
        let (here, is_asked) = (self.id(), lock(&self.desk().asking).contains(&peer));
        if self.peers().pending_code(peer).is_some() || is_asked && counts(here, peer) {
            return knock.refuse("a code is already shown for this machine; decide on that one").await;
        }
        let allowed = match &knock.invite {
            Some(secret) => self.redeem(secret),
            None if self.peers().is_wanted(peer) => Ok(()),
            None => match lock(&self.desk().line).ask(peer, origin, Instant::now()) {
                Turn::Now { instead_of } => {
                    if let Some(other) = instead_of {
                        self.peers().withdraw(other);
                    }
                    Ok(())
                }
                Turn::Later => {
                    Err("too many machines ask at once; ask from both machines, then it is answered at once".to_owned())
                }
            },
        };
        if let Err(why) = allowed {
            let because = if invited { Refusal::Invitation } else { Refusal::TooMany };
            // Whoever has no code yet can be anybody: they are counted together.
            self.audit(None, AuditEvent::Refused { asked: Asked::Pairing, why: because });
            return knock.refuse(&why).await;
        }
        match knock.welcome(here, self.name()).await {
            Ok(pairing) => {
                self.show(pairing, Way { asked_by_them: true, invited }, None);
            }
            Err(error) => {
                lock(&self.desk().line).leave(peer);
                tracing::debug!("machine {peer} did not get as far as a code: {error}");
            }
        }
    }

    fn redeem(&self, secret: &InviteSecret) -> Result<(), String> {
        let mut invites = lock(&self.desk().invites);
        let before = invites.clone();
        let redeemed = invites.redeem(secret, SystemTime::now());
        // Spent on disk before anybody is let to the code. A wrong secret is not worth a write.
        if *invites != before {
            self.save(INVITES, &*invites).map_err(|_| "the other machine cannot write its disk".to_owned())?;
        }
        redeemed.map_err(|error| error.to_string())
    }

    /// Shows the code, and carries out what the owners decide. Where one is shown already, because both machines asked at
    /// the same moment, the one that counts on both of them stays.
    fn show(&self, pairing: Pairing, Way { asked_by_them, invited }: Way, addr: Option<PeerAddr>) -> Code {
        let (peer, name, code) = (pairing.peer(), pairing.name().to_owned(), pairing.code());
        let (verdict, decided) = oneshot::channel();
        let pending = Pending { name: name.clone(), code, asked_by_them, approved_here: false, verdict: Some(verdict) };
        let stays = if asked_by_them { counts(self.id(), peer) } else { counts(peer, self.id()) };
        let namesake = match self.peers().show_pending(peer, pending, stays) {
            Ok(namesake) => namesake,
            Err(shown) => return shown,
        };
        let machine = Machine::new(peer, &name);
        let asked = AuditEvent::PairingAsked { by_them: asked_by_them, invited, code: code.to_string() };
        self.note_about(machine.clone(), asked);
        if let Some(approved) = namesake {
            self.note_about(machine.clone(), AuditEvent::NameTaken { approved: fingerprint(approved) });
        }
        let node = self.clone();
        self.spawn(async move {
            let outcome = pairing.settle(decided).await;
            if let Some(event) = node.peers().settled(peer, &name, code, outcome, addr.as_ref()) {
                node.note_about(machine, event);
            }
            if node.peers().pending_code(peer).is_none() {
                lock(&node.desk().line).leave(peer);
            }
        });
        code
    }
}

impl Peers {
    fn pending_code(&self, peer: PeerId) -> Option<Code> {
        self.lock().pending.get(&peer).map(|pending| pending.code)
    }

    /// Shows a code, and gives the approved machine that has the same name under another key, if there is one. Where a code
    /// is shown that `stays`, gives that as the error.
    fn show_pending(&self, peer: PeerId, pending: Pending, stays: bool) -> Result<Option<PeerId>, Code> {
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
        self.admission.expect(peer, pairing::PEOPLE_PATIENCE);
        self.touch();
        Ok(namesake)
    }

    /// Takes back the code of a machine that asked by itself: another at its place has asked since.
    fn withdraw(&self, peer: PeerId) {
        // Dropping the verdict's sender is a no to whoever waits.
        self.lock().pending.remove(&peer);
        self.admission.expect_no_more(peer);
        self.touch();
    }

    /// This owner wants nothing of a machine any more.
    fn want_no_more(&self, peer: PeerId) {
        self.lock().wanted.remove(&peer);
        self.admission.expect_no_more(peer);
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
        if !state.wanted.contains_key(&peer) {
            self.admission.expect_no_more(peer);
        }
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
    use crate::node::NodeOptions;

    async fn node(name: &str) -> Node {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        Node::start(NodeOptions::new(name.to_owned(), loopback)).await.unwrap()
    }

    /// One machine knows where the other is, as from an invitation or an announcement.
    fn introduce(one: &Node, other: &Node) {
        one.peers().invited(&other.addr());
        other.peers().invited(&one.addr());
    }

    /// Requests of strangers, until no more codes come up for them.
    async fn flood(victim: &Node) -> Vec<(hive_net::Endpoint, Pairing)> {
        let mut shown = Vec::new();
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        for _ in 0..40 {
            let options = hive_net::EndpointOptions::new(hive_net::Identity::generate(), loopback);
            let (stranger, _) = hive_net::Endpoint::bind(options).await.unwrap();
            if let Ok(pairing) = pairing::ask(&stranger, &victim.addr(), "studio", None).await {
                shown.push((stranger, pairing));
            }
        }
        shown
    }

    #[tokio::test]
    async fn both_owners_pair_while_strangers_take_every_place_in_the_line() {
        let (ann, cat) = (node("ann").await, node("cat").await);
        introduce(&ann, &cat);
        let (_at_ann, _at_cat) = (flood(&ann).await, flood(&cat).await);
        let wanted = [ann.peers().is_wanted(cat.id()), cat.peers().is_wanted(ann.id())];
        assert_eq!(wanted, [false, false]);
        let started = Instant::now();
        let (by_ann, by_cat) = tokio::join!(ann.pair(cat.id()), cat.pair(ann.id()));
        let (by_ann, by_cat) = (by_ann.unwrap(), by_cat.unwrap());
        assert_eq!(by_ann, by_cat, "both machines show one code");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        ann.approve(cat.id(), by_ann).unwrap();
        cat.approve(ann.id(), by_cat).unwrap();
        while !(ann.peers().is_approved(cat.id()) && cat.peers().is_approved(ann.id())) {
            ann.changes().changed().await.unwrap();
        }
        ann.stop().await;
        cat.stop().await;
    }

    #[tokio::test]
    async fn one_place_has_two_codes_shown_at_most() {
        let ann = node("ann").await;
        let asked = flood(&ann).await;
        assert!(asked.len() > 2, "{}", asked.len());
        let shown = ann.peer_views().len();
        assert_eq!(shown, 2);
        ann.stop().await;
    }

    #[tokio::test]
    async fn two_machines_that_ask_each_other_again_and_again_show_one_code() {
        for _ in 0..10 {
            let (ann, cat) = (node("ann").await, node("cat").await);
            introduce(&ann, &cat);
            let (by_ann, by_cat) = tokio::join!(ann.pair(cat.id()), cat.pair(ann.id()));
            assert_eq!(by_ann.unwrap(), by_cat.unwrap());
            ann.stop().await;
            cat.stop().await;
        }
    }
}
