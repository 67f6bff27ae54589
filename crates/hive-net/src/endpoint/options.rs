//! Options of an endpoint, and the errors of binding and connecting.

use std::net::SocketAddr;

use crate::addr::PeerId;
use crate::admission::Admission;
use crate::border;
use crate::identity::Identity;
use crate::links::Networks;
use crate::near::{NotDialled, Range};

/// Whether and through which relay machines beyond this network are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Relay {
    /// No relay: packets go only to dialled peers.
    #[default]
    None,
    /// The public relays run by iroh's makers.
    Public,
    /// The owner's own relay.
    Own(String),
}

/// Options of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// This machine's key.
    pub identity: Identity,
    /// Listening address; an unspecified one means every interface, IPv6 included. Port 0 picks a free port.
    pub bind: SocketAddr,
    /// The relay for machines elsewhere.
    pub relay: Relay,
    /// The allow-list.
    pub admission: Admission,
    /// This machine's networks, for choosing links and for limiting dials.
    pub networks: Networks,
    /// How far dials may go.
    pub range: Range,
}

impl EndpointOptions {
    /// Defaults for a machine that listens on `bind`, has approved nobody yet, and dials any address.
    pub fn new(identity: Identity, bind: SocketAddr) -> Self {
        Self {
            identity,
            bind,
            relay: Relay::None,
            admission: Admission::default(),
            networks: Networks::default(),
            range: Range::default(),
        }
    }
}

/// Why an endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct BindError {
    address: SocketAddr,
    why: String,
}

impl BindError {
    pub(crate) fn new(address: SocketAddr, why: String) -> Self {
        Self { address, why }
    }
}

/// Why a channel was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// This machine has not approved the peer.
    #[error("machine {0} is not approved")]
    NotAllowed(PeerId),
    /// The peer has not approved this machine.
    #[error("machine {0} has not approved this one")]
    Refused(PeerId),
    /// The peer speaks no common version of the protocol.
    #[error("machine {0} runs another version of HiveMind; update the older of the two")]
    OtherVersion(PeerId),
    /// None of its addresses may be dialled.
    #[error("machine {peer} is not dialled: {why}")]
    NotDialled {
        /// The peer.
        peer: PeerId,
        /// The cause.
        why: NotDialled,
    },
    /// It could not be reached.
    #[error("machine {peer} cannot be reached: {why}")]
    Unreachable {
        /// The peer.
        peer: PeerId,
        /// The cause.
        why: String,
    },
}

impl ConnectError {
    /// The cause may quote the other machine's reason for closing.
    pub(crate) fn unreachable(peer: PeerId, why: &str) -> Self {
        Self::Unreachable { peer, why: border::reason(why) }
    }
}
