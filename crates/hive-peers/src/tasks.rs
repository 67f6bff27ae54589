//! What runs for a node, and the end of it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a node that stops waits for its tasks. They end at once: whatever they wait for has ended before.
const TASKS_END_WITHIN: Duration = Duration::from_secs(5);

/// The tasks of a node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Cancelled when answers end with what there is of them.
    answers: CancellationToken,
    /// Cancelled when the node stops.
    node: CancellationToken,
}

impl Tasks {
    /// Runs a task that ends with the node, at the latest when it has stopped.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Ends the answers to people and programs here, with what there is of them.
    pub fn end_answers(&self) {
        self.answers.cancel();
    }

    /// Ends when this node's answers are ended.
    pub async fn answers_end(&self) {
        self.answers.cancelled().await;
    }

    /// Has everything that runs for the node end.
    pub fn stop(&self) {
        self.node.cancel();
    }

    /// Ends when the node stops.
    pub async fn stopping(&self) {
        self.node.cancelled().await;
    }

    /// Waits for the last task of a node that stops.
    pub async fn ended(&self) {
        self.tracker.close();
        if tokio::time::timeout(TASKS_END_WITHIN, self.tracker.wait()).await.is_err() {
            tracing::warn!("{} tasks of the node had not ended when it stopped", self.count());
        }
    }
}
