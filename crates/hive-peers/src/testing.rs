//! For tests: a machine on the loopback network.

#[cfg(test)]
mod machine;

use std::net::{Ipv4Addr, SocketAddr};

use hive_net::Relay;
use hive_protocol::{Profile, SPEAKS};

use crate::membership::MembershipOptions;

#[cfg(test)]
pub(crate) use machine::Machine;

/// Options for a machine of this name, on the loopback network and without a data folder.
pub fn options(name: &str) -> MembershipOptions {
    MembershipOptions {
        name: name.to_owned(),
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data: None,
        relay: Relay::None,
        lan_only: false,
        networks: Vec::new(),
        speaks: SPEAKS,
        profile: Profile { name: name.to_owned(), ..Profile::default() },
    }
}
