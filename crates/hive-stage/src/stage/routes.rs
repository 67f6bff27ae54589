//! Where a stage's frames go, and what it is told.

use hive_net::Frame;
use hive_net::stage::Outlet;
use hive_protocol::{Reply, Request};
use tokio::sync::{mpsc, oneshot};

use super::transit::{Part, Transit};

/// Where frames go: to this very node, or over a link.
#[derive(Debug)]
pub enum Destination {
    /// Something on this node.
    Local(mpsc::Sender<Frame>),
    /// Another node.
    Remote(Outlet),
}

impl Destination {
    /// Sends a frame there. An error is final: the stream has broken for good.
    pub async fn send(&mut self, frame: Frame) -> Result<(), String> {
        match self {
            Self::Local(queue) => queue.send(frame).await.map_err(|_| "it has ended".to_owned()),
            Self::Remote(outlet) => outlet.send(frame).await.map_err(|error| error.to_string()),
        }
    }
}

/// Destinations of one stage.
#[derive(Debug)]
pub(crate) struct Routes {
    /// How often the ring has been mended.
    pub(crate) epoch: u32,
    pub(crate) next: Option<Destination>,
    /// The first stage, from the last one; absent where the coordinator hands tokens on to it ([`hive_protocol::Role::Head`]).
    pub(crate) first: Option<Destination>,
    pub(crate) coordinator: Destination,
}

/// What a stage is told.
pub(super) enum Command {
    Join(Routes),
    /// A stream to a neighbour broke for good.
    Lost(&'static str, String),
    /// Answers what is asked of a stage.
    Ask(Request, oneshot::Sender<Result<Reply, String>>),
    /// Says which sessions there are, and how many tokens each has.
    List(oneshot::Sender<Vec<(u128, u32)>>),
    /// Gives a session away, in parts.
    GiveAway(u128, mpsc::UnboundedSender<Part>),
    /// Takes one in.
    TakeIn(Box<Transit>, oneshot::Sender<Result<(), String>>),
    /// Ends the worker, for this reason; answered when its sessions have been told.
    End(String, oneshot::Sender<()>),
}

/// Whose a stage is, and what it may hold in the node for that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenancy {
    /// Whether it is another machine's: that hears nothing of what is on this disk.
    pub(crate) is_guest: bool,
    /// The longest conversation of its model, in tokens.
    pub(crate) context: usize,
}
