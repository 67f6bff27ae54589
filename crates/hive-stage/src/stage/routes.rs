//! A stage's routes, and the commands to its actor.

use hive_model::AdapterId;
use hive_net::Frame;
use hive_net::stage::Outlet;
use hive_protocol::{Reply, Request};
use hive_worker::AdaptFailure;
use tokio::sync::{mpsc, oneshot};

use super::transit::{Part, Transit};
use crate::adapters::AdapterBytes;

/// A destination for frames: this node, or another over a link.
#[derive(Debug)]
pub enum Destination {
    /// A queue on this node.
    Local(mpsc::Sender<Frame>),
    /// A stream to another node.
    Remote(Outlet),
}

impl Destination {
    /// Sends a frame. An error is final: the stream is broken for good.
    pub async fn send(&mut self, frame: Frame) -> Result<(), String> {
        match self {
            Self::Local(queue) => queue.send(frame).await.map_err(|_| "it has ended".to_owned()),
            Self::Remote(outlet) => outlet.send(frame).await.map_err(|error| error.to_string()),
        }
    }
}

/// The destinations of one stage.
#[derive(Debug)]
pub(crate) struct Routes {
    /// How often the ring has failed over.
    pub(crate) epoch: u32,
    pub(crate) next: Option<Destination>,
    /// On the last stage, the first one; `None` if the coordinator passes tokens on to it
    /// ([`hive_protocol::Role::Head`]).
    pub(crate) first: Option<Destination>,
    pub(crate) coordinator: Destination,
}

/// A command to the actor.
pub(super) enum Command {
    Join(Routes),
    /// A stream to a neighbour broke for good.
    Lost(&'static str, String),
    /// Answer a request about the stage.
    Ask(Request, oneshot::Sender<Result<Reply, String>>),
    /// Load an adapter into the worker; without its files, say whether it is loaded.
    Adapt(AdapterId, Option<AdapterBytes>, oneshot::Sender<Result<bool, AdaptFailure>>),
    /// List the sessions and their lengths, in tokens.
    List(oneshot::Sender<Vec<(u128, u32)>>),
    /// Hand a session over, in parts.
    GiveAway(u128, mpsc::UnboundedSender<Part>),
    /// Take a session in.
    TakeIn(Box<Transit>, oneshot::Sender<Result<(), String>>),
    /// End the worker, for this reason; answered when the sessions have been notified.
    End(String, oneshot::Sender<()>),
}

/// Whose stage it is, what part of its model, and its limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenancy {
    /// Whether it belongs to another machine, which must not learn of files on this disk.
    pub(crate) is_guest: bool,
    /// Whether it is the whole model: its answers then run ahead.
    pub(crate) is_whole: bool,
    /// The longest conversation of its model, in tokens.
    pub(crate) context: usize,
    /// Whether some of its layers keep a recurrent state, which goes back to checkpoints only.
    pub(crate) is_recurrent: bool,
}
