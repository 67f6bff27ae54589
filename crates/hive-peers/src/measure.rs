//! How long a path to a machine is and how much it carries: a burst of bytes, timed until the other side has all of it.
//!
//! Each path is measured once for as long as two machines are in touch, and never while answers are computed: the one in use
//! over the connection that there is, the others, through every network that both are in, by a [`Gauge`].

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

/// One message of the burst.
const MESSAGE_BYTES: usize = 256 << 10;
/// The first burst, and how much longer each next one is.
const FIRST_MESSAGES: u32 = 4;
const GROWTH: u32 = 4;
/// The longest: 64 MiB, a third of a second on a 1.6 Gbit/s path.
const MOST_MESSAGES: u32 = 256;
/// A burst that took this long has outlived the slow start of the connection.
const LONG_ENOUGH: Duration = Duration::from_millis(80);
/// No message takes this long on a path that is worth having.
const BURST_TIMEOUT: Duration = Duration::from_secs(10);
/// Exchanges of nothing, of which the shortest tells a path's round trip.
const ECHOES: u32 = 3;

/// Paths of one machine that are measured: it may name ever new ones.
const MOST_PATHS: usize = 32;

/// How soon after it has settled a path is measured.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures the paths to a machine as they come.
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
                // iroh opens the other paths, and the choice is made anew.
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

/// Whether another path than the one in use would be chosen, by what was measured.
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

/// Measures one path by itself.
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

/// Which path a burst takes.
enum Over<'a> {
    /// The one in use to this machine.
    Use(&'a Membership, PeerId),
    /// One in particular.
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

/// What a path carries, in bits per second.
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

/// How long so many messages take until the other side has them.
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

/// The other side of a path that is measured by itself.
pub(crate) async fn serve(mut channel: Channel) {
    if let Ok(Some(Request::Measure(messages))) = channel.read_message().await {
        answer(channel, messages).await;
    }
}

/// The other side: takes the bytes and says when it has them.
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
