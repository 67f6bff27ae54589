//! Timeouts of a pairing, for machines and for people.

use std::time::Duration;

/// Machines answer at once; the first three messages involve no people.
pub(super) const MACHINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for two people to compare a code.
pub const DECISION_TIMEOUT: Duration = Duration::from_mins(5);
/// Maximum time to deliver the last verdict.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
