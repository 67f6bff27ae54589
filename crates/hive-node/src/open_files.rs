//! The limit on open files and sockets of this process: raised to the system's limit.
//!
//! A program started from a window has a soft limit of 256 on a Mac and 1024 on Linux, for the sake of old programs;
//! the hard limit is about a thousand times higher. A node needs sockets to every machine, pipes to every worker, and
//! connections of programs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than a node ever needs. macOS refuses more than its `OPEN_MAX`, whatever the hard limit says.
const ENOUGH: u64 = if cfg!(target_os = "macos") { 10_240 } else { 65_536 };

/// Raises the soft limit if it is lower than what a node may need. A failure is ignored.
pub(crate) fn allow_many() {
    let now = getrlimit(Resource::Nofile);
    let Some(raised) = raised(now) else { return };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the limit of open files stays at {:?}: {error}", now.current);
    }
}

/// The limit to ask for, if it can be raised. `None` in an argument means no limit.
fn raised(now: Rlimit) -> Option<Rlimit> {
    let wanted = now.maximum.map_or(ENOUGH, |hard| hard.min(ENOUGH));
    now.current.is_some_and(|soft| soft < wanted).then_some(Rlimit { current: Some(wanted), maximum: now.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn the_soft_limit_is_raised_as_far_as_the_hard_one_allows_and_never_lowered() {
        assert_eq!(raised(limit(Some(256), None)), Some(limit(Some(ENOUGH), None)));
        assert_eq!(raised(limit(Some(256), Some(4096))), Some(limit(Some(4096), Some(4096))));
        assert_eq!(raised(limit(Some(4096), Some(4096))), None);
        assert_eq!(raised(limit(Some(1 << 20), Some(1 << 20))), None);
        assert_eq!(raised(limit(None, None)), None);
    }

    #[tokio::test]
    async fn a_node_starts_with_room_for_many_files() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, limit(Some(256), before.maximum)).unwrap();
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let node = crate::Node::start(crate::NodeOptions::new("many".to_owned(), loopback)).await.unwrap();
        let after = getrlimit(Resource::Nofile);
        node.stop().await;
        assert_eq!(after.current, before.maximum.map_or(Some(ENOUGH), |hard| Some(hard.min(ENOUGH))));
    }
}
