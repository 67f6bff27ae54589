//! What this machine does for others and says of itself, as far as keeping in touch needs to know.

use std::pin::Pin;

use hive_net::{Channel, PeerId};
use hive_protocol::{Profile, Request};

/// A future that may go to another thread.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What an approved machine has opened here, beside what keeps it in touch.
pub enum Opened {
    /// It asks something, and waits for the answer.
    Request(Box<Request>, Channel),
    /// It sends frames, or is about to.
    Frames(Channel),
}

/// The part of a node that computes, as the part that knows the other machines sees it.
pub trait Local: Send + Sync + 'static {
    /// What this machine says of itself to another one: whether it shares, and how much, depends on who asks.
    fn profile_for(&self, peer: PeerId) -> Profile;

    /// Whether answers are being computed here, or for people here.
    fn is_busy(&self) -> bool;

    /// What is done for as long as a machine is in touch. It is dropped when that ends.
    fn while_present(&self, peer: PeerId) -> Work;

    /// Serves what an approved machine has opened.
    fn serve(&self, peer: PeerId, opened: Opened) -> Work;
}
