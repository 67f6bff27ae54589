//! The spot checks of an answer: the one under way and the one before.

use tokio::task::JoinSet;

use crate::ring::spot::{Found, Spot};

/// The spot check under way, and how far the latest one got.
#[derive(Default)]
pub(super) struct SpotChecks {
    pub(super) under_way: JoinSet<(Spot, Found)>,
    /// With the session that it follows.
    pub(super) latest: Option<(u128, Spot)>,
}
