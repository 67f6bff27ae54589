//! Looks at what the stages of an answer compute.

use tokio::task::JoinSet;

use crate::ring::spot::{Found, Spot};

/// The look that is under way, and how far the last one came.
#[derive(Default)]
pub(super) struct Looks {
    pub(super) under_way: JoinSet<(Spot, Found)>,
    /// With the session that it reads along in.
    pub(super) latest: Option<(u128, Spot)>,
}
