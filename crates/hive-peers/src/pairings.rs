//! A node's state for pairings: the queue of strangers, open invitations, and the machines it is asking.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hive_net::PeerId;
use hive_net::invite::{InviteSecret, Invites};

use crate::data::{DataError, DataFolder};
use crate::line::Line;

pub(crate) const INVITES: &str = "invites.json";

/// A node's state for pairings.
#[derive(Debug)]
pub(crate) struct Pairings {
    line: Mutex<Line>,
    invites: Mutex<Invites>,
    /// Machines that this node is asking right now.
    asking: Mutex<BTreeSet<PeerId>>,
}

impl Pairings {
    /// Reads the open invitations.
    pub(crate) fn open(data: Option<&DataFolder>) -> Result<Self, DataError> {
        let invites: Option<Invites> = data.map(|data| data.read(INVITES)).transpose()?.flatten();
        Ok(Self {
            line: Mutex::new(Line::new(Instant::now())),
            invites: Mutex::new(invites.unwrap_or_default()),
            asking: Mutex::default(),
        })
    }

    /// The queue of strangers that ask to pair.
    pub(crate) fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }

    /// Creates an invitation; `save` writes it to disk before it is returned.
    pub(crate) fn invite(
        &self,
        valid_for: Duration,
        save: impl FnOnce(&Invites) -> Result<(), DataError>,
    ) -> Result<InviteSecret, DataError> {
        let mut invites = lock(&self.invites);
        let secret = invites.give_out(valid_for, SystemTime::now());
        save(&invites)?;
        Ok(secret)
    }

    /// Redeems an invitation, which works once; `save` writes to disk that it is spent.
    pub(crate) fn redeem(
        &self,
        secret: &InviteSecret,
        save: impl FnOnce(&Invites) -> Result<(), DataError>,
    ) -> Result<(), String> {
        let mut invites = lock(&self.invites);
        let before = invites.clone();
        let redeemed = invites.redeem(secret, SystemTime::now());
        // Spent on disk before a code is shown. A wrong secret changes nothing and causes no write.
        if *invites != before {
            save(&invites).map_err(|_| "the other machine cannot write its disk".to_owned())?;
        }
        redeemed.map_err(|error| error.to_string())
    }

    /// Whether this node is asking a machine right now.
    pub(crate) fn is_asking(&self, peer: PeerId) -> bool {
        lock(&self.asking).contains(&peer)
    }

    /// Marks a machine as being asked until the guard is dropped, even if the asking future is cancelled.
    pub(crate) fn ask(&self, peer: PeerId) -> Asking<'_> {
        lock(&self.asking).insert(peer);
        Asking { pairings: self, peer }
    }
}

/// Marks a machine as being asked while it lives.
pub(crate) struct Asking<'a> {
    pairings: &'a Pairings,
    peer: PeerId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.pairings.asking).remove(&self.peer);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
