//! How one life of an answer ends.

use std::time::Instant;

use hive_peers::Tasks;
use tokio::sync::mpsc;

use crate::events::Event;

/// What is said of an answer that was not done in the time it had.
const TOO_LATE: &str = "the answer was not done in the time it was given";
/// And of one whose node is stopped.
const STOPPED: &str = "HiveMind is being stopped on this machine";

/// How one life of an answer ended.
#[derive(Debug)]
pub(super) enum End {
    /// With its last event.
    Over(Event),
    /// Nobody listens any more.
    Cancelled,
    /// Its time is over.
    TooLate,
    /// Its node stops.
    Stopped,
    /// A stage is on another machine now, which has to catch up.
    Moved,
    /// The model has a better place, where it goes on.
    Superseded,
    /// The stages cannot go on, for this reason.
    Lost(String),
}

/// What ends an answer from outside.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) deadline: Option<Instant>,
    /// Tells when its node ends its answers.
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

/// Does something for an answer, unless nobody listens any more, its time is over or its node stops.
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

/// What is said of an answer that ends for this before it is complete.
pub(super) fn broken_off(end: &End) -> &'static str {
    if matches!(end, End::Stopped) { STOPPED } else { TOO_LATE }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
