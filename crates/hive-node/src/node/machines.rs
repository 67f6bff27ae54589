//! The node and the other machines.

use std::time::Duration;

use hive_audit::{AuditEvent, Log, Query};
use hive_net::invite::Ticket;
use hive_net::pairing::{Code, PairError};
use hive_net::{PeerAddr, PeerId};
use hive_peers::data::{DataError, NotKept};
use hive_peers::{DecideError, FindPeerError, Notice, PeerView, RestoreError, Rights, RightsError};
use hive_protocol::Profile;
use hive_stage::aside;
use tokio::sync::watch;

use super::Node;

impl Node {
    /// The display name.
    pub(crate) fn name(&self) -> &str {
        self.member().name()
    }

    /// The address at which other nodes reach this one.
    pub fn addr(&self) -> PeerAddr {
        self.member().addr()
    }

    /// This node's id.
    pub fn id(&self) -> PeerId {
        self.member().id()
    }

    /// Introduces this node to another node of this process: each may send the other requests.
    pub(crate) fn allow(&self, peer: &PeerAddr) {
        self.member().allow(peer);
    }

    /// This machine's current profile.
    pub(crate) fn profile(&self) -> Profile {
        self.member().profile()
    }

    /// The other machines.
    pub fn peer_views(&self) -> Vec<PeerView> {
        self.member().peer_views()
    }

    /// Finds the machine that a person means: by key or its beginning, by name, or by its three words.
    pub fn find(&self, who: &str) -> Result<PeerId, FindPeerError> {
        self.member().find(who)
    }

    /// A counter that changes whenever [`Node::status`] does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.member().view().subscribe()
    }

    /// The notices about machines after the one with this number.
    pub fn notices(&self, after: u64) -> Vec<Notice> {
        self.member().notices(after)
    }

    /// Records something about a machine, or about this one, in the audit log.
    pub fn audit(&self, machine: Option<PeerId>, event: AuditEvent) {
        self.member().audit(machine, event);
    }

    /// Reads the audit log.
    pub fn audit_log(&self, query: &Query) -> std::io::Result<Log> {
        aside(|| self.member().audit_log().read(query))
    }

    /// Asks a machine to pair; returns the code that both machines now show.
    pub async fn pair(&self, peer: PeerId) -> Result<Code, PairError> {
        self.member().pair(peer).await
    }

    /// Asks the machine that issued an invitation to pair.
    pub async fn join_by(&self, ticket: &Ticket) -> Result<(PeerId, Code), PairError> {
        self.member().join_by(ticket).await
    }

    /// Approves a machine: its code matches.
    pub fn approve(&self, peer: PeerId, code: Code) -> Result<(), DecideError> {
        self.member().approve(peer, code)
    }

    /// Denies a machine.
    pub fn deny(&self, peer: PeerId) -> Result<(), DecideError> {
        self.member().deny(peer)
    }

    /// Removes a machine.
    pub fn remove(&self, peer: PeerId) -> Result<(), NotKept> {
        let kept = self.member().remove(peer);
        self.host().drop_stages_of(peer);
        kept
    }

    /// Undoes the removal of a machine: it is approved again, with its name and its rights.
    pub fn restore(&self, peer: PeerId) -> Result<(), RestoreError> {
        self.member().restore(peer)
    }

    /// Blocks a machine: it may do nothing, not even pair.
    pub fn block(&self, peer: PeerId) -> Result<(), NotKept> {
        let kept = self.member().block(peer);
        self.host().drop_stages_of(peer);
        kept
    }

    /// Renames a machine.
    pub fn rename(&self, peer: PeerId, name: &str) -> Result<(), NotKept> {
        self.member().rename(peer, name)
    }

    /// Creates a ticket with which one machine may ask to pair within `valid_for`.
    pub fn invite(&self, valid_for: Duration) -> Result<Ticket, DataError> {
        self.member().invite(valid_for)
    }

    /// A machine's rights; `None` unless it is approved.
    pub fn rights(&self, peer: PeerId) -> Option<Rights> {
        self.member().rights(peer)
    }

    /// Changes an approved machine's rights, persistently and at once. Stages that are no longer allowed move
    /// elsewhere.
    pub fn set_rights(&self, peer: PeerId, rights: Rights) -> Result<(), RightsError> {
        let changed = self.member().set_rights(peer, rights);
        self.look();
        changed
    }
}
