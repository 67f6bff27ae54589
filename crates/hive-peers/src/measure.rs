//! Measures a path's round trip and rate, with a burst of bytes that is timed until the other side has all of it.
//!
//! Each path is measured once while a machine is present, and never while answers are computed. The path in use is
//! measured over the open connection; a [`Gauge`] measures one other path per network that both machines share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_net::gauge::{Gauge, Reached};
use hive_net::links::{Candidate, Choice, Way, choose};
use hive_net::{Channel, Link, PeerId, Protocol};

use crate::local::Local;
use crate::membership::Membership;
use crate::peers::MeasuredPath;
use hive_protocol::{Reply, Request};

/// Size of a message in a burst.
const MESSAGE_BYTES: usize = 256 << 10;
/// Messages of the first burst, and the factor by which each next burst grows.
const FIRST_MESSAGES: u32 = 4;
const GROWTH: u32 = 4;
/// Messages of the longest burst: 64 MiB, a third of a second at 1.6 Gbit/s.
const MOST_MESSAGES: u32 = 256;
/// A burst that takes this long has outlived the connection's slow start.
const LONG_ENOUGH: Duration = Duration::from_millis(80);
/// Time-out of a burst; a path slower than that is not worth using.
const BURST_TIMEOUT: Duration = Duration::from_secs(10);
/// Empty bursts; the shortest gives the round trip.
const ECHOES: u32 = 3;

/// Maximum number of paths measured per machine, since a machine may name new ones forever.
const MOST_PATHS: usize = 32;

/// Pause before each measurement, so that a new path can settle.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures a machine's paths as they appear.
pub(crate) async fn run(member: Membership, local: Arc<dyn Local>, peer: PeerId) {
    let mut tried = BTreeSet::new();
    loop {
        tokio::time::sleep(SETTLED).await;
        let Some(in_use) = member.endpoint().link(peer).filter(|_| !local.is_busy()) else { continue };
        if tried.insert(in_use.remote.clone()) {
            if let Some(bits_per_s) = rate(&Over::Use(&member, peer)).await {
                note(&member, peer, MeasuredPath { link: in_use, bits_per_s });
            }
            continue;
        }
        let ways = member.endpoint().networks().ways(&member.peers().addr(peer).sockets());
        if let Some(way) = ways.into_iter().find(|way| tried.len() < MOST_PATHS && tried.insert(way.to.to_string())) {
            if let Some(path) = of_way(&member, peer, way).await {
                note(&member, peer, path);
            }
            if is_better_elsewhere(&in_use, &member.peers().paths(peer)) {
                // Makes iroh open the other paths, so that the choice is made again.
                member.endpoint().network_changed().await;
            }
        }
    }
}

fn note(member: &Membership, peer: PeerId, path: MeasuredPath) {
    tracing::debug!("the path to {} at {}: {} bit/s", member.peers().name(peer), path.link.remote, path.bits_per_s);
    member.endpoint().rates().set(&path.link.remote, path.bits_per_s);
    member.peers().measured(peer, path);
}

/// Whether the measurements favour another path over the one in use.
fn is_better_elsewhere(in_use: &Link, paths: &[MeasuredPath]) -> bool {
    let candidate = |path: &MeasuredPath| Candidate {
        kind: path.link.kind,
        round_trip: Duration::from_micros(path.link.round_trip_us),
        bits_per_s: Some(path.bits_per_s),
    };
    let candidates: Vec<_> = paths.iter().map(candidate).collect();
    let current = paths.iter().position(|path| path.link.remote == in_use.remote);
    current.is_some() && choose(current, &candidates) != Choice::Keep
}

/// Measures one path with an endpoint of its own.
async fn of_way(member: &Membership, peer: PeerId, way: Way) -> Option<MeasuredPath> {
    let gauge = Gauge::bind(way).await.ok()?;
    let measuring = async {
        member.ask_other(&member.peers().addr(peer), Request::GrantKey(gauge.id()), |_| ()).await.ok()?;
        let reached = gauge.reach(peer).await.ok()?;
        let mut round_trip = BURST_TIMEOUT;
        for _ in 0..ECHOES {
            round_trip = round_trip.min(burst(&Over::One(&reached), 0).await?);
        }
        let link = Link { kind: way.kind, remote: way.to.to_string(), round_trip_us: round_trip.as_micros() as u64 };
        let bits_per_s = rate(&Over::One(&reached)).await?;
        Some(MeasuredPath { link, bits_per_s })
    };
    let measured = measuring.await;
    gauge.close().await;
    measured
}

/// The path that a burst takes.
enum Over<'a> {
    /// The path in use to this machine.
    Use(&'a Membership, PeerId),
    /// A path of a [`Gauge`].
    One(&'a Reached),
}

impl Over<'_> {
    async fn open(&self) -> Option<Channel> {
        match self {
            Self::Use(member, peer) => {
                member.endpoint().open(&member.peers().addr(*peer), Protocol::Control).await.ok()
            }
            Self::One(reached) => reached.open().await.ok(),
        }
    }
}

/// A path's rate, in bits per second.
async fn rate(over: &Over<'_>) -> Option<u64> {
    let mut messages = FIRST_MESSAGES;
    loop {
        let took = burst(over, messages).await?;
        if took >= LONG_ENOUGH || messages >= MOST_MESSAGES {
            let bits = u64::from(messages) * MESSAGE_BYTES as u64 * 8;
            return Some((bits as f64 / took.as_secs_f64()) as u64);
        }
        messages *= GROWTH;
    }
}

/// The time until the other side has this many messages.
async fn burst(over: &Over<'_>, messages: u32) -> Option<Duration> {
    let exchange = async {
        let mut channel = over.open().await?;
        let message = vec![0u8; MESSAGE_BYTES];
        let started = Instant::now();
        channel.write_message(&Request::Measure(messages)).await.ok()?;
        for _ in 0..messages {
            channel.write_message(&message).await.ok()?;
        }
        match channel.read_message().await.ok()?? {
            Reply::Done => Some(started.elapsed()),
            _ => None,
        }
    };
    tokio::time::timeout(BURST_TIMEOUT, exchange).await.ok()?
}

/// Serves a channel that another machine's gauge has opened.
pub(crate) async fn serve(mut channel: Channel) {
    if let Ok(Some(Request::Measure(messages))) = channel.read_message().await {
        answer(channel, messages).await;
    }
}

/// The receiving side: reads the burst, then replies `Done`.
pub(crate) async fn answer(mut channel: Channel, messages: u32) {
    for _ in 0..messages.min(MOST_MESSAGES) {
        if !matches!(channel.read_message::<Vec<u8>>().await, Ok(Some(_))) {
            return;
        }
    }
    if channel.write_message(&Reply::Done).await.is_ok() {
        channel.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_net::links::LinkKind;

    fn path(remote: &str, round_trip_us: u64, bits_per_s: u64) -> MeasuredPath {
        let link = Link { kind: LinkKind::Ethernet, remote: remote.to_owned(), round_trip_us };
        MeasuredPath { link, bits_per_s }
    }

    #[test]
    fn a_path_that_was_measured_to_be_better_is_wanted() {
        let paths = [path("10.0.0.1:9", 400, 10_000_000), path("10.0.1.1:9", 2000, 1_000_000_000)];
        assert!(is_better_elsewhere(&paths[0].link, &paths));
        assert!(!is_better_elsewhere(&paths[1].link, &paths));
        assert!(!is_better_elsewhere(&paths[0].link, &paths[..1]));
        assert!(!is_better_elsewhere(&path("10.0.2.1:9", 1, 1).link, &paths), "the one in use is not measured yet");
    }
}
