//! How a machine listens, and what keeps it from that, or from reaching another.

use std::net::SocketAddr;

use crate::addr::PeerId;
use crate::admission::Admission;
use crate::border;
use crate::identity::Identity;
use crate::links::Networks;
use crate::near::{NotDialled, Range};

/// Whether, and through whom, machines beyond this network are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Relay {
    /// Not at all: no packet goes anywhere but to the peers that are dialled.
    #[default]
    None,
    /// Through the public relays of iroh's makers.
    Public,
    /// Through one's own.
    Own(String),
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// Who this machine is.
    pub identity: Identity,
    /// Where it listens; an unspecified address means every interface, IPv6 included. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Reaching machines elsewhere.
    pub relay: Relay,
    /// Who may come in.
    pub admission: Admission,
    /// This machine's networks, to choose links by, and to stay on.
    pub networks: Networks,
    /// How far machines are dialled.
    pub range: Range,
}

impl EndpointOptions {
    /// A machine of its own making that listens on `bind` and lets nobody in yet. It dials whatever it is told to.
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

/// Why a machine cannot listen.
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
    /// This side does not let the peer in.
    #[error("machine {0} is not approved")]
    NotAllowed(PeerId),
    /// The other side does not let this machine in.
    #[error("machine {0} has not approved this one")]
    Refused(PeerId),
    /// The other side speaks no common version of the protocol.
    #[error("machine {0} runs another version of HiveMind; update the older of the two")]
    OtherVersion(PeerId),
    /// None of its addresses may be dialled.
    #[error("machine {peer} is not dialled: {why}")]
    NotDialled {
        /// Who.
        peer: PeerId,
        /// The cause.
        why: NotDialled,
    },
    /// It could not be reached.
    #[error("machine {peer} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        peer: PeerId,
        /// The cause.
        why: String,
    },
}

impl ConnectError {
    /// The cause may hold the words with which the other machine closed the connection.
    pub(crate) fn unreachable(peer: PeerId, why: &str) -> Self {
        Self::Unreachable { peer, why: border::reason(why) }
    }
}
