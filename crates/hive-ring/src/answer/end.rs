//! How an answer ends, or has to leave the stages it is on.

use std::time::Instant;

use hive_peers::Tasks;
use tokio::sync::mpsc;

use crate::events::Event;

/// Shown if the answer did not complete in time.
const TOO_LATE: &str = "the answer took too long";
/// Shown if the node stops.
const STOPPED: &str = "HiveMind is being stopped on this machine";

/// Why an answer cannot continue on its current stages.
#[derive(Debug)]
pub(super) enum End {
    /// It ended, with this last event.
    Over(Event),
    /// The receiver of its events was dropped.
    Cancelled,
    /// Its deadline has passed.
    TooLate,
    /// Its node stops.
    Stopped,
    /// A stage was taken over by another machine, which needs a replay.
    Moved,
    /// The model has migrated: the answer resumes on the new ring.
    Superseded,
    /// The ring was abandoned, for this reason.
    Lost(String),
}

/// What ends an answer from outside.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) deadline: Option<Instant>,
    /// Announces that the node ends its answers.
    pub(super) tasks: Tasks,
}

impl Bound {
    /// Waits until the answer has to end.
    pub(super) async fn reached(&self) -> End {
        tokio::select! {
            () = self.tasks.answers_end() => End::Stopped,
            () = until(self.deadline) => End::TooLate,
        }
    }
}

/// Does something for an answer, unless it is cancelled, its deadline passes or its node stops meanwhile.
pub(super) async fn unless_over<T>(
    events: &mpsc::Sender<Event>,
    bound: &Bound,
    doing: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        done = doing => Ok(done),
        () = events.closed() => Err(End::Cancelled),
        end = bound.reached() => Err(end),
    }
}

/// Shown if an answer ends like this before it is complete.
pub(super) fn broken_off(end: &End) -> &'static str {
    if matches!(end, End::Stopped) { STOPPED } else { TOO_LATE }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
