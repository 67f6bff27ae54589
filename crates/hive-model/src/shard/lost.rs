//! What becomes of sessions' caches when others fail or leave.

use std::collections::BTreeSet;

use super::{SessionId, Shard};
use crate::gang;
use crate::kv::{LayerCache, PlainCache};

impl Shard {
    /// Moves sessions back to the beginning, with those that share buffers with them: a computation that failed leaves
    /// nothing in their caches that counts. [`Self::take_lost`] names them.
    pub(super) fn forget(&mut self, sessions: impl Iterator<Item = SessionId>) {
        let mut lost: BTreeSet<SessionId> = sessions.collect();
        let buffers: BTreeSet<usize> = self.buffers(|id| lost.contains(&id)).map(|(_, buffer)| buffer).collect();
        lost.extend(self.buffers(|_| true).filter(|(_, buffer)| buffers.contains(buffer)).map(|(id, _)| id));
        for id in lost {
            if let Some(session) = self.sessions.get_mut(&id)
                && let Ok(caches) = self.stage.caches()
            {
                session.caches = caches;
                session.position = 0;
                self.lost.push(id);
            }
        }
    }

    /// The sessions that are back at the beginning since the last call, in whatever batch that happened.
    pub fn take_lost(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.lost)
    }

    /// Frees what sessions that ended or moved on have left of shared buffers.
    pub(super) fn release(&mut self) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        if gang::release(self.sessions.values_mut().map(|session| &mut session.caches)).is_err() {
            self.forget(sessions.into_iter());
        }
    }

    /// Sessions with a buffer of each of their layers.
    fn buffers(&self, of: impl Fn(SessionId) -> bool) -> impl Iterator<Item = (SessionId, usize)> {
        let sessions = self.sessions.iter().filter(move |(id, _)| of(**id));
        sessions.flat_map(|(id, session)| {
            let plain = session.caches.iter().filter_map(LayerCache::as_plain);
            plain.map(|cache| (*id, PlainCache::buffer_id(cache)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::shard::{Input, Slot};
    use crate::{Compute, ModelFiles, Output, SessionOptions, ShardOptions};

    fn decoded(shard: &mut Shard, batch: &[(u128, usize, u32)]) -> Vec<Output> {
        let slot = |&(session, position, token): &(u128, usize, u32)| Slot {
            session: SessionId(session),
            position,
            input: Input::Tokens(vec![token]),
            sample: true,
        };
        shard.forward(&batch.iter().map(slot).collect::<Vec<_>>()).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn what_fails_takes_those_with_it_that_share_its_buffers_and_nobody_else() {
        let path = std::env::var_os("HIVEMIND_STARTER").map(PathBuf::from);
        let files = ModelFiles::open(&path.expect("HIVEMIND_STARTER names the starter model")).unwrap();
        let mut shard = Shard::load(&files, &ShardOptions { layers: 0..2, compute: Compute::Plain }, |_| ()).unwrap();
        for session in 0..4 {
            shard.open(SessionId(session), SessionOptions::default()).unwrap();
        }
        let first = decoded(&mut shard, &[(0, 0, 11), (1, 0, 12), (2, 0, 13)]);
        let fourth = decoded(&mut shard, &[(3, 0, 14)]);
        shard.forget([SessionId(0), SessionId(1)].into_iter());
        let positions = [0, 1, 2, 3].map(|session| shard.position(SessionId(session)));
        assert_eq!(positions, [Some(0), Some(0), Some(0), Some(1)]);
        assert_eq!(shard.take_lost(), [0, 1, 2].map(SessionId));
        assert!(shard.take_lost().is_empty());
        // From the beginning, the same again; the fourth goes on.
        let again = decoded(&mut shard, &[(0, 0, 11), (1, 0, 12), (2, 0, 13), (3, 1, 15)]);
        assert_eq!(again[..3], first);
        shard.rollback(SessionId(3), 0).unwrap();
        assert_eq!(decoded(&mut shard, &[(3, 0, 14)]), fourth);
    }
}
