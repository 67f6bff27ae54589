//! The interface between presence and the rest of the node: the profile, and handlers of channels that other machines
//! open.

use std::pin::Pin;

use hive_net::{Channel, PeerId};
use hive_protocol::{Profile, Request};

/// A boxed future that can move between threads.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A channel that an approved machine has opened, other than for presence.
pub enum Opened {
    /// A request; the machine waits for the reply.
    Request(Box<Request>, Channel),
    /// A stream of frames.
    Frames(Channel),
}

/// The part of a node that computes, as seen from here.
pub trait Local: Send + Sync + 'static {
    /// This machine's profile as another machine gets it: whether and how much this machine shares depends on the
    /// other.
    fn profile_for(&self, peer: PeerId) -> Profile;

    /// Whether this machine is computing answers, or its owner is getting one.
    fn is_busy(&self) -> bool;

    /// Work to run while a machine is present. Dropped when the machine leaves.
    fn while_present(&self, peer: PeerId) -> Work;

    /// Serves a channel that an approved machine has opened.
    fn serve(&self, peer: PeerId, opened: Opened) -> Work;
}
