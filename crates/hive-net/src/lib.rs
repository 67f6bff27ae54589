//! The network layer: identity, discovery, pairing, links, and the protocols between machines.
//!
//! iroh and mdns-sd are used here and nowhere else. An [`Endpoint`] is this machine's address in the swarm; a
//! [`Channel`] is one stream to a peer, of one [`Protocol`]: *pair* introduces strangers ([`pairing`]), *control*
//! carries heartbeats, requests and replies (`control`), *stage* carries the frames of the ring ([`stage`],
//! [`wire`]), *gauge* measures paths ([`gauge`]).
//!
//! Invariants: a peer that is not approved can pair and nothing else, whichever side dials (`admission`). Without a
//! relay, packets go only to dialled peers and to this network's multicast group; peers are dialled only on this
//! machine's own networks, or where a person or an earlier connection found them ([`near`]).
//!
//! Start with `examples/pair_and_send.rs`: two endpoints pair, and one sends the other a frame.

mod addr;
mod admission;
pub mod border;
mod control;
pub mod discovery;
mod endpoint;
pub mod fingerprint;
pub mod gauge;
pub mod heartbeat;
pub mod identity;
pub mod invite;
pub mod links;
mod lock;
pub mod near;
mod pace;
pub mod pairing;
mod protocol;
pub mod stage;
mod strangers;
mod token_bucket;
pub mod wire;

pub use addr::{NotAnId, PeerAddr, PeerId};
pub use admission::Admission;
pub use control::{ControlError, Reader, Writer};
pub use endpoint::{BindError, Channel, ConnectError, Endpoint, EndpointOptions, Incoming, Link, Relay};
pub use fingerprint::fingerprint;
pub use identity::Identity;
pub use near::Range;
pub use pace::Pace;
pub use protocol::Protocol;
pub use strangers::Origin;
pub use token_bucket::TokenBucket;
pub use wire::{Element, Frame, HEADER_BYTES, Header, Kind, WireError};

#[cfg(test)]
#[path = "../../../tests/common/golden.rs"]
mod golden;
