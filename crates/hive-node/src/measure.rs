//! How much a path carries: a burst of bytes, timed until the other side has all of it.

use std::time::{Duration, Instant};

use hive_net::{Channel, PeerId, Protocol};

use crate::control::{Answer, Question};
use crate::node::Node;

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
const PATIENCE: Duration = Duration::from_secs(10);

/// What the path in use to a machine carries, in bits per second.
pub(crate) async fn measure(node: &Node, peer: PeerId) -> Option<u64> {
    let mut messages = FIRST_MESSAGES;
    loop {
        let took = tokio::time::timeout(PATIENCE, burst(node, peer, messages)).await.ok()??;
        if took >= LONG_ENOUGH || messages >= MOST_MESSAGES {
            let bits = u64::from(messages) * MESSAGE_BYTES as u64 * 8;
            return Some((bits as f64 / took.as_secs_f64()) as u64);
        }
        messages *= GROWTH;
    }
}

async fn burst(node: &Node, peer: PeerId, messages: u32) -> Option<Duration> {
    let mut channel = node.endpoint().open(&node.peers().addr(peer), Protocol::Control).await.ok()?;
    channel.write_message(&Question::Measure(messages)).await.ok()?;
    let message = vec![0u8; MESSAGE_BYTES];
    let started = Instant::now();
    for _ in 0..messages {
        channel.write_message(&message).await.ok()?;
    }
    match channel.read_message().await.ok()?? {
        Answer::Done => Some(started.elapsed()),
        _ => None,
    }
}

/// The other side: takes the bytes and says when it has them.
pub(crate) async fn answer(mut channel: Channel, messages: u32) {
    for _ in 0..messages.min(MOST_MESSAGES) {
        if !matches!(channel.read_message::<Vec<u8>>().await, Ok(Some(_))) {
            return;
        }
    }
    if channel.write_message(&Answer::Done).await.is_ok() {
        channel.finish();
    }
}
