//! Measures one path to a machine, whichever path is in use.
//!
//! All connections between two machines use the selected path, and iroh keeps no other open. So each path is measured
//! by a separate endpoint, bound to one address of this machine, with an ephemeral key that the other machine was asked
//! to admit ([`crate::Admission::lend`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::transports::{Addr, PathSelection, PathSelectionContext, PathSelector};
use iroh::endpoint::{Connection, PortmapperConfig, presets};
use iroh::{RelayMode, SecretKey};

use crate::addr::{PeerAddr, PeerId};
use crate::endpoint::{BindError, Channel, ConnectError, transport};
use crate::links::Way;
use crate::protocol::Protocol;

/// A machine on a local network answers in a few round trips.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// An endpoint bound to one path.
#[derive(Debug)]
pub struct Gauge {
    inner: iroh::Endpoint,
    way: Way,
}

impl Gauge {
    /// Listens at this machine's end of the path.
    pub async fn bind(way: Way) -> Result<Self, BindError> {
        let address = SocketAddr::new(way.from, 0);
        let refuse = |why: String| BindError::new(address, why);
        let builder = iroh::Endpoint::builder(presets::Minimal).clear_ip_transports();
        let builder = builder.bind_addr(address).map_err(|error| refuse(error.to_string()))?;
        let inner = builder
            .secret_key(SecretKey::generate())
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport())
            .path_selector(Arc::new(Only(way.to)))
            .bind()
            .await
            .map_err(|error| refuse(format!("{error:#}")))?;
        Ok(Self { inner, way })
    }

    /// The key that the other machine must admit.
    pub fn id(&self) -> PeerId {
        PeerId(self.inner.id())
    }

    /// Connects to the machine at the other end.
    pub async fn reach(&self, peer: PeerId) -> Result<Reached, ConnectError> {
        let to = PeerAddr::new(peer, [self.way.to]).0;
        let unreachable = |why: String| ConnectError::unreachable(peer, &why);
        let dial = tokio::time::timeout(DIAL_TIMEOUT, self.inner.connect(to, Protocol::Gauge.alpn()));
        match dial.await {
            Ok(Ok(connection)) => Ok(Reached { connection, peer }),
            Ok(Err(error)) => Err(unreachable(format!("{error:#}"))),
            Err(_) => Err(unreachable(format!("no answer for {} seconds", DIAL_TIMEOUT.as_secs()))),
        }
    }

    /// Releases the path.
    pub async fn close(self) {
        self.inner.close().await;
    }
}

/// A machine reached over one path.
#[derive(Debug)]
pub struct Reached {
    connection: Connection,
    peer: PeerId,
}

impl Reached {
    /// Opens a channel. The opener must write first.
    pub async fn open(&self) -> Result<Channel, ConnectError> {
        let unreachable = |why: String| ConnectError::unreachable(self.peer, &why);
        let (send, recv) = self.connection.open_bi().await.map_err(|error| unreachable(error.to_string()))?;
        Ok(Channel::new(send, recv))
    }
}

/// Selects the path to this socket and no other, even if the peer offers more.
#[derive(Debug)]
struct Only(SocketAddr);

impl PathSelector for Only {
    fn select(&self, context: &PathSelectionContext<'_>) -> PathSelection {
        let mut selection = PathSelection::none();
        if let Some(path) = context.paths().find(|path| path.network_path().remote() == Addr::Ip(self.0)) {
            selection.set(&path);
        }
        selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Endpoint, EndpointOptions};
    use crate::identity::Identity;
    use crate::links::LinkKind;

    #[tokio::test]
    async fn a_path_is_reached_with_a_key_that_was_lent_and_with_no_other() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (host, mut incoming) = Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)).await.unwrap();
        let way = Way { from: loopback.ip(), to: host.addr().sockets()[0], kind: LinkKind::Loopback };
        let gauge = Gauge::bind(way).await.unwrap();
        // A refusal shows at the first use.
        if let Ok(reached) = gauge.reach(host.id()).await
            && let Ok(mut channel) = reached.open().await
        {
            let _ = channel.write_message(&1u8).await;
            assert!(channel.read_message::<u8>().await.is_err());
        }
        assert!(incoming.try_recv().is_err());

        let friend = Identity::generate().id();
        host.admission().approve(friend);
        host.admission().lend(gauge.id(), friend);
        let mut channel = gauge.reach(host.id()).await.unwrap().open().await.unwrap();
        channel.write_message(&1u8).await.unwrap();
        let accepted = incoming.recv().await.unwrap();
        assert_eq!((accepted.peer, accepted.protocol), (gauge.id(), Protocol::Gauge));
        host.admission().revoke(friend);
        assert!(channel.read_message::<u8>().await.is_err(), "a revoke closes what was lent as well");
        gauge.close().await;
        host.close().await;
    }
}
