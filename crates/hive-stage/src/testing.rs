//! Machines that hold stages and know each other, for tests.

use std::ops::Deref;

use hive_peers::{Membership, MembershipOptions};
use hive_protocol::offered_bytes;

pub use hive_peers::testing::options;

use crate::host::{HostOptions, StageHost};
use crate::stage::Fault;

/// The frame by which a stage tells the coordinator that a session failed.
pub fn failed_frame(session: u128, epoch: u32, fault: Fault, why: &str) -> hive_net::Frame {
    crate::stage::failed_frame(session, epoch, fault, why)
}

/// A machine on loopback that shares all its memory.
pub struct Machine(StageHost);

impl Deref for Machine {
    type Target = StageHost;

    fn deref(&self) -> &StageHost {
        &self.0
    }
}

impl Machine {
    /// Starts one.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, HostOptions::default()).await
    }

    /// Starts one with these limits.
    pub async fn start_with(name: &str, limits: HostOptions) -> Self {
        Self::open(options(name), limits).await
    }

    /// Starts one with these options.
    #[allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a test ends where this cannot be")]
    pub async fn open(options: MembershipOptions, limits: HostOptions) -> Self {
        // A test's executable is not a worker.
        hive_worker::read_texts_here();
        let (member, incoming) = Membership::open(options).await.unwrap();
        let memory = hive_host::Memory::now().unwrap();
        member.describe(|profile| {
            profile.sharing = true;
            profile.memory_bytes = memory.total_bytes;
            profile.offered_bytes = offered_bytes(memory.available_bytes, limits.memory_cap);
            true
        });
        let host = StageHost::new(member.clone(), limits);
        member.run(&host.local(), incoming);
        Self(host)
    }

    /// Stops it.
    pub async fn stop(&self) {
        let member = self.membership();
        member.tasks().end_answers();
        member.tasks().stop();
        self.clear();
        member.close().await;
        member.tasks().ended().await;
        assert_eq!(member.tasks().count(), 0, "a task has outlived its node");
    }
}

/// Makes two machines approve each other.
#[allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a test ends where this cannot be")]
pub fn admit(one: &StageHost, other: &StageHost) {
    for (here, there) in [(one.membership(), other.membership()), (other.membership(), one.membership())] {
        here.peers().admit(there.id(), there.name(), Some(&there.addr())).unwrap();
    }
}
