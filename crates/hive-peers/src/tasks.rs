//! A node's tasks, and how they end.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a stopping node waits for its tasks. They end at once: whatever they wait for has ended before.
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks of a node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Cancelled when answers are to end early.
    answers: CancellationToken,
    /// Cancelled when the node stops.
    node: CancellationToken,
}

impl Tasks {
    /// Spawns a task. The task must end by itself once the node is stopping.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// The number of running tasks.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Ends this machine's answers early; they keep their tokens so far.
    pub fn end_answers(&self) {
        self.answers.cancel();
    }

    /// Resolves when answers are to end early.
    pub async fn answers_end(&self) {
        self.answers.cancelled().await;
    }

    /// Tells all tasks to end.
    pub fn stop(&self) {
        self.node.cancel();
    }

    /// Resolves when the node stops.
    pub async fn stopping(&self) {
        self.node.cancelled().await;
    }

    /// Waits until the last task has ended, up to the time-out.
    pub async fn ended(&self) {
        self.tracker.close();
        if tokio::time::timeout(TASKS_TIMEOUT, self.tracker.wait()).await.is_err() {
            tracing::warn!("{} tasks of the node had not ended when it stopped", self.count());
        }
    }
}
