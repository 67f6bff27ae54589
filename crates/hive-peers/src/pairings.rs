//! What a node keeps for pairings: the line of strangers, open invitations, and whom it is asking.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hive_net::PeerId;
use hive_net::invite::{InviteSecret, Invites};

use crate::data::{DataError, DataFolder};
use crate::line::Line;

pub(crate) const INVITES: &str = "invites.json";

/// What the node keeps for pairings.
#[derive(Debug)]
pub(crate) struct Pairings {
    line: Mutex<Line>,
    invites: Mutex<Invites>,
    /// Machines that are being asked at this moment.
    asking: Mutex<BTreeSet<PeerId>>,
}

impl Pairings {
    /// Reads the invitations that are still open.
    pub(crate) fn open(data: Option<&DataFolder>) -> Result<Self, DataError> {
        let invites: Option<Invites> = data.map(|data| data.read(INVITES)).transpose()?.flatten();
        Ok(Self {
            line: Mutex::new(Line::new(Instant::now())),
            invites: Mutex::new(invites.unwrap_or_default()),
            asking: Mutex::default(),
        })
    }

    /// The strangers that ask to pair.
    pub(crate) fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.line)
    }

    /// Makes an invitation; `save` keeps it before anybody gets it.
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

    /// Takes an invitation in, which counts once; `save` keeps that it is spent.
    pub(crate) fn redeem(
        &self,
        secret: &InviteSecret,
        save: impl FnOnce(&Invites) -> Result<(), DataError>,
    ) -> Result<(), String> {
        let mut invites = lock(&self.invites);
        let before = invites.clone();
        let redeemed = invites.redeem(secret, SystemTime::now());
        // Spent on disk before anybody is let to the code. A wrong secret is not worth a write.
        if *invites != before {
            save(&invites).map_err(|_| "the other machine cannot write its disk".to_owned())?;
        }
        redeemed.map_err(|error| error.to_string())
    }

    /// Whether a machine is being asked at this moment.
    pub(crate) fn is_asking(&self, peer: PeerId) -> bool {
        lock(&self.asking).contains(&peer)
    }

    /// Notes that a machine is being asked, for as long as what this gives lives: whoever waits for the answer may go.
    pub(crate) fn ask(&self, peer: PeerId) -> Asking<'_> {
        lock(&self.asking).insert(peer);
        Asking { pairings: self, peer }
    }
}

/// A machine is being asked.
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
