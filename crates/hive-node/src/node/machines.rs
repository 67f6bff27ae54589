//! The node and the other machines.

use std::time::Duration;

use hive_audit::{AuditEvent, Log, Query};
use hive_net::invite::Ticket;
use hive_net::pairing::{Code, PairError};
use hive_net::{PeerAddr, PeerId};
use hive_peers::data::{DataError, NotKept};
use hive_peers::{DecideError, FindPeerError, Notice, PeerView, Rights, RightsError};
use hive_protocol::Profile;
use hive_stage::aside;
use tokio::sync::watch;

use super::Node;

impl Node {
    /// The name people see.
    pub fn name(&self) -> &str {
        self.member().name()
    }

    /// Where other nodes reach this one.
    pub fn addr(&self) -> PeerAddr {
        self.member().addr()
    }

    /// Who this node is.
    pub fn id(&self) -> PeerId {
        self.member().id()
    }

    /// Lets another node of this process ask this one for work, and be asked.
    pub fn allow(&self, peer: &PeerAddr) {
        self.member().allow(peer);
    }

    /// What this machine says of itself now.
    pub fn profile(&self) -> Profile {
        self.member().profile()
    }

    /// The other machines.
    pub fn peer_views(&self) -> Vec<PeerView> {
        self.member().peer_views()
    }

    /// The machine that a person means: by key or the beginning of it, name, or the three words.
    pub fn find(&self, who: &str) -> Result<PeerId, FindPeerError> {
        self.member().find(who)
    }

    /// Counts up whenever [`Node::status`] has something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.member().view().subscribe()
    }

    /// What has happened with machines since the notice of this number.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.member().notices(after)
    }

    /// Notes something about a machine, or about this one, in the audit log.
    pub fn audit(&self, machine: Option<PeerId>, event: AuditEvent) {
        self.member().audit(machine, event);
    }

    /// Reads the audit log.
    pub fn audit_log(&self, query: &Query) -> std::io::Result<Log> {
        aside(|| self.member().audit_log().read(query))
    }

    /// Asks a machine to pair; gives the code that both machines now show.
    pub async fn pair(&self, peer: PeerId) -> Result<Code, PairError> {
        self.member().pair(peer).await
    }

    /// Asks the machine that an invitation names.
    pub async fn join_by(&self, ticket: &Ticket) -> Result<(PeerId, Code), PairError> {
        self.member().join_by(ticket).await
    }

    /// The code of a machine matches: this owner approves.
    pub fn approve(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        self.member().approve(peer, code)
    }

    /// This owner says no.
    pub fn deny(&self, peer: PeerId) -> Result<(), DecideError> {
        self.member().deny(peer)
    }

    /// Takes a machine out.
    pub fn remove(&self, peer: PeerId) -> Result<(), NotKept> {
        let kept = self.member().remove(peer);
        self.host().drop_stages_of(peer);
        kept
    }

    /// Refuses a machine everything, pairing included.
    pub fn block(&self, peer: PeerId) -> Result<(), NotKept> {
        let kept = self.member().block(peer);
        self.host().drop_stages_of(peer);
        kept
    }

    /// Calls a machine otherwise.
    pub fn rename(&self, peer: PeerId, name: &str) -> Result<(), NotKept> {
        self.member().rename(peer, name)
    }

    /// A ticket that lets one machine knock within `valid_for`.
    pub fn invite(&self, valid_for: Duration) -> Result<Ticket, DataError> {
        self.member().invite(valid_for)
    }

    /// What a machine may do; `None` unless it is approved.
    pub fn rights(&self, peer: PeerId) -> Option<Rights> {
        self.member().rights(peer)
    }

    /// Changes what an approved machine may do, from now on; remembered. What it has here or holds for this machine moves.
    pub fn set_rights(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let changed = self.member().set_rights(peer, rights);
        self.look();
        changed
    }
}
