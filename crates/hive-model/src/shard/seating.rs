//! Which sessions share buffers (`kv/shared.rs`): those that decode together, as long as they do.
//!
//! A set of sessions moves in when it decodes for the second time in a row, so that sets that change with each step do
//! not copy their caches each time. A session that leaves, or does anything else, gets buffers of its own back first. So a
//! batch has all members or none, and one that fails concerns nobody outside it.

use hive_kernels::KV_BLOCK;

use super::{Session, SessionId, Shard};
use crate::error::ComputeError;
use crate::kv::shared::{Row, SharedCaches};

impl Shard {
    /// Moves sessions in or out before a batch of these sessions, positions and numbers of tokens.
    pub(super) fn seat(&mut self, batch: &[(SessionId, usize, usize)]) -> Result<(), ComputeError> {
        if self.arithmetic.fast {
            return Ok(());
        }
        let ids: Vec<SessionId> = batch.iter().map(|(session, ..)| *session).collect();
        let decodes = batch.len() > 1 && batch.iter().all(|(.., tokens)| *tokens == 1);
        if !decodes {
            return self.unseat(|session| ids.contains(&session));
        }
        if self.seats.members.iter().any(|member| ids.contains(member)) {
            self.unseat(|session| !ids.contains(&session))?;
        }
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        let is_stable = self.seats.latest == sorted;
        self.seats.latest = sorted;
        let positions: Vec<usize> = batch.iter().map(|(_, position, _)| *position).collect();
        let needed = |sessions: &[usize]| sessions.iter().map(|at| positions[*at] + 1).max().unwrap_or(0);
        let seated: Vec<usize> = (0..ids.len()).filter(|at| self.seats.row(ids[*at]).is_some()).collect();
        if !is_stable && needed(&seated) <= self.seats.caches.capacity() {
            return Ok(());
        }
        let wanted = if is_stable { sharing(&positions) } else { seated.clone() };
        if wanted == seated && needed(&seated) <= self.seats.caches.capacity() {
            return Ok(());
        }
        let wanted_ids: Vec<SessionId> = wanted.iter().map(|at| ids[*at]).collect();
        self.unseat(|session| !wanted_ids.contains(&session))?;
        let mut rows = Vec::with_capacity(wanted.len());
        // Taken out, since each row borrows its session.
        let mut taken: Vec<Option<Session>> = wanted_ids.iter().map(|session| self.sessions.remove(session)).collect();
        for ((session, at), state) in wanted_ids.iter().zip(&wanted).zip(&mut taken) {
            match (self.seats.row(*session), state) {
                (Some(row), _) => rows.push(Row::Kept(row)),
                (None, Some(state)) => rows.push(Row::Joining(&mut state.caches, positions[*at])),
                (None, None) => {}
            }
        }
        let rebuilt = self.seats.caches.rebuild(rows, needed(&wanted));
        for (session, state) in wanted_ids.iter().zip(taken) {
            self.sessions.extend(state.map(|state| (*session, state)));
        }
        self.seats.members = wanted_ids;
        rebuilt
    }

    /// Gives members that leave, or are closed, buffers of their own. If that fails, all members are back at the
    /// beginning.
    pub(super) fn unseat(&mut self, leaves: impl Fn(SessionId) -> bool) -> Result<(), ComputeError> {
        let members = self.seats.members.clone();
        let moved = self.move_out(&members, leaves);
        if moved.is_err() {
            self.forget(members.into_iter());
        }
        moved
    }

    fn move_out(&mut self, members: &[SessionId], leaves: impl Fn(SessionId) -> bool) -> Result<(), ComputeError> {
        let (leaving, mut staying): (Vec<_>, Vec<_>) =
            (0..members.len()).partition(|row| leaves(members[*row]) || !self.sessions.contains_key(&members[*row]));
        if leaving.is_empty() {
            return Ok(());
        }
        // A row alone is no better than a buffer alone.
        let moving = if staying.len() < 2 { (0..members.len()).collect() } else { leaving };
        staying.retain(|row| !moving.contains(row));
        // A step under way has written one position more.
        let open = |row: &usize| self.sessions.get(&members[*row]).map(|state| (*row, state.position + 1));
        let moving: Vec<(usize, usize)> = moving.iter().filter_map(open).collect();
        // One layer after the other, so that no more than a layer is in memory twice.
        for layer in 0..self.seats.caches.layers() {
            let Some(own) = self.seats.caches.part(layer, &moving, &staying)? else { continue };
            for ((row, _), own) in moving.iter().zip(own) {
                if let Some(state) = self.sessions.get_mut(&members[*row]) {
                    state.caches[layer] = own;
                }
            }
        }
        self.seats.caches.set_rows(staying.len());
        self.seats.members = staying.iter().map(|row| members[*row]).collect();
        if staying.is_empty() {
            self.seats.caches = SharedCaches::default();
        }
        Ok(())
    }
}

/// Which of the sessions of a batch at these positions share buffers: all of them but the longest, for as long as more
/// than a third of the buffers would be padding. None if only one is left.
fn sharing(positions: &[usize]) -> Vec<usize> {
    let blocks = |at: usize| (positions[at] + 1).div_ceil(KV_BLOCK);
    let mut by_length: Vec<usize> = (0..positions.len()).collect();
    by_length.sort_by_key(|at| blocks(*at));
    let mut sum: usize = by_length.iter().map(|at| blocks(*at)).sum();
    while let Some(&longest) = by_length.last()
        && 2 * by_length.len() * blocks(longest) > 3 * sum
    {
        sum -= blocks(longest);
        by_length.pop();
    }
    if by_length.len() < 2 {
        return Vec::new();
    }
    by_length.sort_unstable();
    by_length
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hive_weights::ModelFiles;

    use super::*;
    use crate::shard::{ForwardError, Input, Output, Slot};
    use crate::{Compute, SessionOptions, ShardOptions};

    fn slot(&(session, position, token): &(u128, usize, u32)) -> Slot {
        Slot { session: SessionId(session), position, input: Input::Tokens(vec![token]), sample: true }
    }

    fn decoded(shard: &mut Shard, batch: &[(u128, usize, u32)]) -> Vec<Output> {
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
        let second = decoded(&mut shard, &[(0, 1, 21), (1, 1, 22), (2, 1, 23)]);
        let fourth = decoded(&mut shard, &[(3, 0, 14)]);
        assert_eq!(shard.seats.members, [0, 1, 2].map(SessionId));
        shard.forget([SessionId(1)].into_iter());
        assert!(shard.seats.members.is_empty());
        let positions = [0, 1, 2, 3].map(|session| shard.position(SessionId(session)));
        assert_eq!(positions, [Some(0), Some(0), Some(0), Some(1)]);
        // What comes next finds nothing, and says whose fault that is.
        let next = shard.forward(&[slot(&(2, 2, 33))]).remove(0);
        assert!(matches!(next, Err(ForwardError::Compute(_))), "{next:?}");
        // From the beginning, the same again; the fourth goes on.
        let again = decoded(&mut shard, &[(0, 0, 11), (1, 0, 12), (2, 0, 13), (3, 1, 15)]);
        assert_eq!(again[..3], first);
        assert_eq!(decoded(&mut shard, &[(0, 1, 21), (1, 1, 22), (2, 1, 23)]), second);
        shard.rollback(SessionId(3), 0).unwrap();
        assert_eq!(decoded(&mut shard, &[(3, 0, 14)]), fourth);
    }

    #[test]
    fn at_most_a_third_of_a_buffer_is_padding() {
        assert!(sharing(&[]).is_empty());
        assert!(sharing(&[3000]).is_empty());
        assert_eq!(sharing(&[10, 254, 255, 40]), [0, 1, 2, 3]);
        // Blocks 6, 1, 1, 2: the longest stays alone. With 3, the next one does, too.
        assert_eq!(sharing(&[1500, 7, 9, 300]), [1, 2, 3]);
        assert_eq!(sharing(&[1500, 7, 9, 600]), [1, 2]);
        // Blocks 6, 4, 5.
        assert_eq!(sharing(&[1500, 900, 1100]), [0, 1, 2]);
        assert!(sharing(&[1500, 9]).is_empty());
        for lengths in [[1, 1, 1, 8000, 1, 1], [100, 5000, 9000, 200, 700, 80], [900, 800, 700, 600, 500, 400]] {
            let together = sharing(&lengths);
            let blocks: Vec<usize> = together.iter().map(|at| lengths[*at] / KV_BLOCK + 1).collect();
            let buffer = blocks.len() * blocks.iter().max().unwrap();
            assert!(2 * buffer <= 3 * blocks.iter().sum::<usize>(), "{lengths:?}");
        }
    }
}
