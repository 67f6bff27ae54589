//! A machine that knows others and computes nothing.

#![allow(clippy::unwrap_used)]

use std::ops::Deref;
use std::sync::Arc;

use hive_net::PeerId;
use hive_protocol::{Profile, SPEAKS};

use super::options;
use crate::local::{Local, Opened, Work};
use crate::membership::{Membership, MembershipOptions};

/// A machine on the loopback network that shares nothing.
pub(crate) struct Machine(Membership);

impl Deref for Machine {
    type Target = Membership;

    fn deref(&self) -> &Membership {
        &self.0
    }
}

impl Machine {
    /// Starts a machine.
    pub(crate) async fn start(name: &str) -> Self {
        Self::speaking(name, SPEAKS).await
    }

    /// Starts a machine that speaks these versions of the protocol.
    pub(crate) async fn speaking(name: &str, speaks: (u32, u32)) -> Self {
        let (member, incoming) = Membership::open(MembershipOptions { speaks, ..options(name) }).await.unwrap();
        let local: Arc<dyn Local> = Arc::new(Nothing(member.profile()));
        member.run(&local, incoming);
        Self(member)
    }

    /// Stops the machine.
    pub(crate) async fn stop(&self) {
        self.tasks().stop();
        self.close().await;
        self.tasks().ended().await;
        assert_eq!(self.tasks().count(), 0, "a task has outlived its node");
    }
}

/// A [`Local`] that does nothing for others.
struct Nothing(Profile);

impl Local for Nothing {
    fn profile_for(&self, _: PeerId) -> Profile {
        self.0.clone()
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn while_present(&self, _: PeerId) -> Work {
        Box::pin(std::future::pending())
    }

    fn serve(&self, _: PeerId, _: Opened) -> Work {
        Box::pin(std::future::ready(()))
    }
}
