//! Lets two people decide about a stranger, and carries out their decisions.

use std::time::{Duration, Instant};

use hive_audit::{Asked, AuditEvent, Machine, Refusal};
use hive_net::invite::{InviteSecret, Ticket};
use hive_net::near::ReachableFrom;
use hive_net::pairing::{self, Code, PairError, Pairing};
use hive_net::{Channel, Origin, PeerAddr, PeerId, fingerprint};
use tokio::sync::oneshot;

use crate::data::{DataError, NotKept};
use crate::line::Turn;
use crate::membership::Membership;
use crate::pairings::INVITES;
use crate::peers::{DecideError, Pending, RestoreError};

/// How long and how often to ask again after a machine refused for lack of time: its owner may be about to ask this
/// machine, which settles it.
const ASK_FOR: Duration = Duration::from_secs(6);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How many new addresses of a machine are tried while asking it.
const FOLLOWED: u32 = 3;

/// Default validity of an invitation.
pub const INVITE_VALID_FOR: Duration = Duration::from_hours(24);

/// How a pairing began.
#[derive(Debug, Clone, Copy)]
struct Way {
    asked_by_them: bool,
    invited: bool,
}

/// If two machines ask each other at the same time, whether this asker's request counts.
fn counts(asker: PeerId, answerer: PeerId) -> bool {
    asker < answerer
}

impl Membership {
    /// Asks a machine to pair; returns the code that both machines now show.
    pub async fn pair(&self, peer: PeerId) -> Result<Code, PairError> {
        self.peers().want(peer);
        let mut followed = 0;
        loop {
            let addr = self.peers().addr(peer);
            self.endpoint().expect_from(&addr);
            match self.pair_at(&addr, None).await {
                // The machine has restarted at another address; try that.
                Err(PairError::Connect(_)) if self.peers().addr(peer) != addr && followed < FOLLOWED => followed += 1,
                asked => return asked,
            }
        }
    }

    /// Asks the machine that an invitation names to pair.
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
            let asking = self.pairings().ask(peer);
            let asked = pairing::ask(self.endpoint(), addr, self.name(), invite).await;
            drop(asking);
            match asked {
                // A person gave this address, so it is kept. Announced addresses are kept only once they have proven
                // themselves.
                Ok(pairing) => {
                    let way = Way { asked_by_them: false, invited: invite.is_some() };
                    return Ok(self.show(pairing, way, invite.map(|_| addr.clone())));
                }
                // The refusal of an invitation is final. Without one, the machine may be busy with others, or may be
                // asking this machine at the same moment.
                Err(PairError::Refused(_)) if invite.is_none() && Instant::now() < until => {
                    let mut changes = self.peers().changes();
                    let shown =
                        async { while self.peers().pending_code(peer).is_none() && changes.changed().await.is_ok() {} };
                    let _ = tokio::time::timeout(ASK_AGAIN, shown).await;
                }
                Err(error) => return self.peers().pending_code(peer).ok_or(error),
            }
        }
    }

    /// Records that the owner confirmed the code and approves the machine.
    pub fn approve(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        self.peers().approve_pending(peer, code)?;
        self.peers().want(peer);
        self.endpoint().expect_from(&self.peers().addr(peer));
        Ok(())
    }

    /// Records that the owner denies the machine.
    pub fn deny(&self, peer: PeerId) -> Result<(), DecideError> {
        self.peers().deny_pending(peer)?;
        self.peers().want_no_more(peer);
        // An approved machine that was asked again stays approved.
        if !self.peers().is_approved(peer) {
            self.endpoint().forget(peer);
        }
        Ok(())
    }

    /// Removes a machine.
    pub fn remove(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().remove(peer);
        self.endpoint().forget(peer);
        self.note_about(machine, AuditEvent::Removed);
        Ok(kept?)
    }

    /// Undoes the removal of a machine.
    pub fn restore(&self, peer: PeerId) -> Result<(), RestoreError> {
        self.peers().restore(peer)?;
        for (addr, reached) in self.peers().proven().into_iter().filter(|(addr, _)| addr.id() == peer) {
            self.endpoint().vouch(&addr, reached);
        }
        self.audit(Some(peer), AuditEvent::Restored);
        Ok(())
    }

    /// Blocks a machine: refuses it everything, pairing included.
    pub fn block(&self, peer: PeerId) -> Result<(), NotKept> {
        let machine = self.as_audited(peer);
        let kept = self.peers().block(peer);
        self.endpoint().forget(peer);
        self.note_about(machine, AuditEvent::Blocked);
        Ok(kept?)
    }

    /// Gives a machine another display name.
    pub fn rename(&self, peer: PeerId, name: &str) -> Result<(), NotKept> {
        self.audit(Some(peer), AuditEvent::Renamed { name: hive_net::border::name(name) });
        Ok(self.peers().rename(peer, name)?)
    }

    /// Creates a ticket with which one machine may ask to pair within `valid_for`.
    pub fn invite(&self, valid_for: Duration) -> Result<Ticket, DataError> {
        let secret = self.pairings().invite(valid_for, |invites| self.save(INVITES, invites))?;
        self.audit(None, AuditEvent::Invited { valid_for_s: valid_for.as_secs() });
        Ok(Ticket { addr: self.addr(), secret })
    }

    /// Answers a stranger's request to pair.
    pub(crate) async fn answer_pairing(&self, peer: PeerId, origin: Origin, channel: Channel) {
        let knock = match pairing::receive(peer, channel).await {
            Ok(knock) => knock,
            Err(error) => {
                tracing::debug!("machine {peer} did not get as far as a code: {error}");
                return;
            }
        };
        let invited = knock.invite.is_some();
        let (here, is_asked) = (self.id(), self.pairings().is_asking(peer));
        if self.peers().pending_code(peer).is_some() || is_asked && counts(here, peer) {
            return knock.refuse("a code is already shown for this machine; decide on that one").await;
        }
        let allowed = match &knock.invite {
            Some(secret) => self.pairings().redeem(secret, |invites| self.save(INVITES, invites)),
            None if self.peers().is_wanted(peer) => Ok(()),
            None => match self.pairings().line().ask(peer, origin, Instant::now()) {
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
            // Without a code, the sender could be anybody, so all such refusals are counted together.
            self.audit(None, AuditEvent::Refused { asked: Asked::Pairing, why: because });
            return knock.refuse(&why).await;
        }
        match knock.welcome(here, self.name()).await {
            Ok(pairing) => {
                self.show(pairing, Way { asked_by_them: true, invited }, None);
            }
            Err(error) => {
                self.pairings().line().leave(peer);
                tracing::debug!("machine {peer} did not get as far as a code: {error}");
            }
        }
    }

    /// Shows the code and carries out the owners' decisions. If both machines asked at the same moment, the code that
    /// counts stays, the same on both.
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
        let member = self.clone();
        self.spawn(async move {
            let outcome = pairing.settle(decided).await;
            if let Some(event) = member.peers().settled(peer, &name, code, outcome, addr.as_ref()) {
                member.note_about(machine, event);
            }
            if member.peers().pending_code(peer).is_none() {
                member.pairings().line().leave(peer);
            }
        });
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine as Node;

    async fn node(name: &str) -> Node {
        Node::start(name).await
    }

    /// Tells two machines each other's address, as an invitation or announcement would.
    fn introduce(one: &Node, other: &Node) {
        one.peers().invited(&other.addr());
        other.peers().invited(&one.addr());
    }

    /// Sends requests of many strangers and returns those for which a code came up.
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
            ann.peers().changes().changed().await.unwrap();
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
