//! Connects: identity, endpoints, and the two protocols between machines.
//!
//! iroh lives here and nowhere else. An [`Endpoint`] is this machine's address in the swarm; a [`Channel`] is one
//! stream to a peer, of one [`Protocol`]: *control* carries questions and answers ([`control`]), *stage* carries the
//! frames of the ring ([`stage`], [`wire`]).
//!
//! What holds: a peer that has not been allowed gets no channel, whichever side dials.

pub mod control;
pub mod endpoint;
pub mod stage;
pub mod wire;

pub use endpoint::{BindError, Channel, ConnectError, Endpoint, Incoming, PeerAddr, PeerId, Protocol};
pub use wire::{Element, Frame, Kind, WireError};
