//! The node: a handle to this machine as a member of the swarm.
//!
//! Its parts do the work: [`Membership`] knows the other machines, [`StageHost`] holds stages, [`Serving`] loads models
//! and asks them. The node starts and stops them together, and applies the owner's settings.

mod catalogue;
mod hub_token;
mod machine;
mod machines;
mod models;
pub(crate) mod options;
mod start;
mod status;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hive_peers::Membership;
use hive_serving::Serving;
use hive_stage::StageHost;
use tokio::sync::watch;

use crate::sharing::{Policy, Switches};
pub use hub_token::{HubTokenError, hub_settings};
pub use status::Status;

/// This machine in the swarm. Clones share it.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    member: Membership,
    host: StageHost,
    serving: Serving,
    /// The owner's settings.
    owner: Owner,
    switches: watch::Sender<Switches>,
    leaving: AtomicBool,
}

/// The owner's settings, at the start and in the settings file.
struct Owner {
    share: bool,
    memory_cap: Option<u64>,
    keep_prompts_here: bool,
    /// Follows the settings file.
    policy: Mutex<Policy>,
}

impl Node {
    /// Ends the answers to people and programs here, each with the text it has so far.
    pub fn end_answers(&self) {
        self.member().tasks().end_answers();
    }

    /// Completes when this node ends its answers because it is stopping.
    pub async fn ending(&self) {
        self.member().tasks().answers_end().await;
    }

    /// Leaves the swarm: ends stages, closes connections, withdraws the announcement.
    pub async fn stop(&self) {
        self.end_answers();
        let (member, serving) = (self.member(), &self.inner.serving);
        member.tasks().stop();
        member.stop_discovery().await;
        let placements = serving.unload().await;
        serving.write_placements(placements);
        self.host().clear();
        member.close().await;
        member.tasks().ended().await;
    }

    fn member(&self) -> &Membership {
        &self.inner.member
    }

    fn host(&self) -> &StageHost {
        &self.inner.host
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section is a single assignment, so a poisoned value is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
