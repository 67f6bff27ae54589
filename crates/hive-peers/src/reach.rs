//! Diagnoses why a machine that is seen cannot be reached, so that people are told what to do.

use std::net::{SocketAddr, UdpSocket};

pub use hive_types::Condition;

/// The observations of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "five answers to five questions")]
pub(crate) struct Observation {
    /// Its announcements arrive.
    pub announced: bool,
    /// It has answered since this node started. Announcements outlive a machine that died.
    pub met: bool,
    /// One of its addresses is in one of this machine's networks.
    pub near: bool,
    /// The system refuses to send there: no route to host.
    pub no_route: bool,
    /// Its only connection is through a relay.
    pub relayed: bool,
    /// This is a Mac, where a refusal to send to a neighbour means a missing permission.
    pub macos: bool,
}

/// The condition that explains the observation; `None` if it allows no conclusion.
pub(crate) fn diagnose(seen: Observation) -> Option<Condition> {
    match seen {
        Observation { announced: true, near: true, no_route: true, macos: true, .. } => {
            Some(Condition::LocalNetworkDenied)
        }
        Observation { near: true, relayed: true, macos: true, .. } => Some(Condition::LocalNetworkDenied),
        Observation { near: true, relayed: true, .. } => Some(Condition::RelayedNearby),
        Observation { announced: true, near: true, relayed: false, met: false, .. } => Some(Condition::Firewalled),
        _ => None,
    }
}

/// Whether the system refuses to send to an address on this network; tried with one meaningless byte.
pub(crate) fn has_no_route(socket: SocketAddr) -> bool {
    let any: SocketAddr = if socket.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let sent = UdpSocket::bind(any).and_then(|from| from.send_to(&[0], socket));
    matches!(sent, Err(error) if error.kind() == std::io::ErrorKind::HostUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Observation =
        Observation { announced: true, met: false, near: true, no_route: false, relayed: false, macos: false };

    #[test]
    fn a_missing_permission_is_not_a_missing_machine() {
        let denied = Observation { no_route: true, macos: true, ..SEEN };
        assert_eq!(diagnose(denied), Some(Condition::LocalNetworkDenied));
        let relayed = Observation { relayed: true, macos: true, ..SEEN };
        assert_eq!(diagnose(relayed), Some(Condition::LocalNetworkDenied));
        // On Linux the same observation has another cause.
        assert_eq!(diagnose(Observation { no_route: true, ..SEEN }), Some(Condition::Firewalled));
        assert_eq!(diagnose(Observation { relayed: true, ..SEEN }), Some(Condition::RelayedNearby));
        assert_eq!(diagnose(SEEN), Some(Condition::Firewalled));
        // One that answered a moment ago has most likely died.
        assert_eq!(diagnose(Observation { met: true, ..SEEN }), None);
        assert_eq!(diagnose(Observation { announced: false, near: false, ..SEEN }), None);
        assert_eq!(diagnose(Observation { near: false, macos: true, no_route: true, ..SEEN }), None);
    }
}
