//! How long a pairing waits for machines, and for people.

use std::time::Duration;

/// A machine answers at once; people do not come into the first three messages.
pub(super) const MACHINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for two people to compare a code.
pub const DECISION_TIMEOUT: Duration = Duration::from_mins(5);
/// The last verdict is on its way this long at most.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
