//! Assigns chunks to machines: several machines at once, and no chunk twice to the same machine.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hive_net::PeerId;
use hive_store::FileName;
use tokio::sync::Notify;

/// Bytes in one request: a slow network sends them in about a second, and a lost connection costs only the messages in
/// flight.
const CHUNK_BYTES: u64 = 16 << 20;
/// Ranges in one request: a model's small tensors lie scattered.
const CHUNK_RANGES: usize = 512;

/// Ranges of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The file.
    pub(crate) file: FileName,
    /// Offsets in it, in order.
    pub(crate) ranges: Vec<Range<u64>>,
    asked: BTreeSet<PeerId>,
}

/// The chunks still to be fetched. Machines take chunks from it and put back the missing ranges.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    state: Mutex<State>,
    /// Wakes tasks that wait for a chunk in progress.
    back: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Chunks in progress.
    out: usize,
    /// The ranges that each machine has sent.
    sent: Vec<(PeerId, FileName, Range<u64>)>,
    /// Machines that sent wrong bytes.
    banned: BTreeSet<PeerId>,
}

impl Sources {
    /// Divides missing ranges, which are in order of file and offset, into chunks.
    pub(crate) fn new(missing: impl IntoIterator<Item = (FileName, Range<u64>)>) -> Self {
        let mut chunks: VecDeque<Chunk> = VecDeque::new();
        let mut room = 0;
        for (file, mut range) in missing {
            while !range.is_empty() {
                let last = chunks.back_mut().filter(|last| last.file == file && last.ranges.len() < CHUNK_RANGES);
                let Some(last) = last.filter(|_| room > 0) else {
                    chunks.push_back(Chunk { file: file.clone(), ranges: Vec::new(), asked: BTreeSet::new() });
                    room = CHUNK_BYTES;
                    continue;
                };
                let end = range.end.min(range.start + room);
                room -= end - range.start;
                last.ranges.push(range.start..end);
                range.start = end;
            }
        }
        Self { state: Mutex::new(State { chunks, ..State::default() }), back: Notify::new() }
    }

    /// The next chunk for which this machine has not been asked. Waits for those that others are being asked for: they may
    /// not have them.
    pub(crate) async fn next(&self, machine: PeerId) -> Option<Chunk> {
        loop {
            let back = self.back.notified();
            tokio::pin!(back);
            // From here on, no chunk comes back unnoticed.
            back.as_mut().enable();
            {
                let mut state = self.state();
                if state.banned.contains(&machine) {
                    return None;
                }
                let place = state.chunks.iter().position(|chunk| !chunk.asked.contains(&machine));
                if let Some(chunk) = place.and_then(|place| state.chunks.remove(place)) {
                    state.out += 1;
                    return Some(chunk);
                }
                if state.out == 0 {
                    return None;
                }
            }
            back.await;
        }
    }

    /// Returns the ranges of a chunk that a machine did not send. It is not asked for them again.
    pub(crate) fn put_back(&self, chunk: Chunk, machine: PeerId, missing: Vec<Range<u64>>) {
        let Chunk { file, mut asked, .. } = chunk;
        asked.insert(machine);
        self.back(Chunk { file, ranges: missing, asked });
    }

    /// Returns the missing ranges of a chunk as if the machine had not been asked: its connection broke.
    pub(crate) fn return_unasked(&self, chunk: Chunk, missing: Vec<Range<u64>>) {
        self.back(Chunk { ranges: missing, ..chunk });
    }

    fn back(&self, chunk: Chunk) {
        let mut state = self.state();
        state.out -= 1;
        if !chunk.ranges.is_empty() {
            state.chunks.push_back(chunk);
        }
        drop(state);
        self.back.notify_waiters();
    }

    /// Records ranges that a machine has sent. `false` if it was banned for wrong bytes, so that these must not be
    /// written.
    pub(crate) fn sent(&self, machine: PeerId, file: &FileName, ranges: Vec<Range<u64>>) -> bool {
        let mut state = self.state();
        let is_good = !state.banned.contains(&machine);
        if is_good {
            state.sent.extend(ranges.into_iter().map(|range| (machine, file.clone(), range)));
        }
        is_good
    }

    /// Bans a machine from this fetch. Returns everything it has sent, which must be fetched again elsewhere.
    pub(crate) fn ban(&self, machine: PeerId) -> Vec<(FileName, Range<u64>)> {
        let mut state = self.state();
        state.banned.insert(machine);
        let (wrong, good): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.sent).into_iter().partition(|(sender, ..)| *sender == machine);
        state.sent = good;
        let wrong: Vec<_> = wrong.into_iter().map(|(_, file, range)| (file, range)).collect();
        for (file, range) in wrong.clone() {
            state.chunks.push_back(Chunk {
                file,
                ranges: std::iter::once(range).collect(),
                asked: BTreeSet::from([machine]),
            });
        }
        drop(state);
        self.back.notify_waiters();
        wrong
    }

    /// The ranges that no machine has sent.
    pub(crate) fn left(self) -> Vec<(FileName, Range<u64>)> {
        let State { chunks, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ranges = |Chunk { file, ranges, .. }: Chunk| ranges.into_iter().map(move |range| (file.clone(), range));
        chunks.into_iter().flat_map(ranges).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    fn machine() -> PeerId {
        hive_net::Identity::generate().id()
    }

    #[tokio::test]
    async fn small_ranges_of_a_file_are_asked_for_together_and_large_ones_in_pieces() {
        let sources = Sources::new([
            (file("a"), 0..4096),
            (file("a"), 8192..2 * CHUNK_BYTES),
            (file("b"), 0..10),
            (file("b"), 20..30),
        ]);
        let ann = machine();
        let mut chunks: Vec<Chunk> = Vec::new();
        while let Some(chunk) = sources.next(ann).await {
            chunks.push(chunk.clone());
            sources.put_back(chunk, ann, Vec::new());
        }
        let bytes = |chunk: &Chunk| chunk.ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        assert_eq!(chunks.len(), 3, "{chunks:?}");
        assert_eq!((bytes(&chunks[0]), chunks[0].ranges.len()), (CHUNK_BYTES, 2));
        let Range { start, end } = chunks[1].ranges[0];
        assert_eq!((start, end, chunks[1].ranges.len()), (CHUNK_BYTES + 4096, 2 * CHUNK_BYTES, 1));
        assert_eq!((chunks[2].file.as_str(), chunks[2].ranges.len()), ("b", 2));
    }

    #[tokio::test]
    async fn what_one_machine_does_not_send_another_is_asked_for_and_the_rest_is_known() {
        let sources = Sources::new([(file("a"), 0..100)]);
        let [ann, bob] = [machine(), machine()];
        let chunk = sources.next(ann).await.unwrap();
        // Ann is at it, and bob waits to see whether she has it.
        let (next, ()) = tokio::join!(sources.next(bob), async {
            tokio::task::yield_now().await;
            sources.put_back(chunk, ann, vec![40..60, 80..100]);
        });
        let chunk = next.unwrap();
        assert_eq!(chunk.ranges, [40..60, 80..100]);
        let left = chunk.ranges[1..].to_vec();
        sources.put_back(chunk, bob, left);
        assert!(sources.next(ann).await.is_none() && sources.next(bob).await.is_none());
        assert_eq!(sources.left(), [(file("a"), 80..100)]);
    }

    #[tokio::test]
    async fn a_machine_whose_line_was_cut_can_be_asked_again() {
        let sources = Sources::new([(file("a"), 0..100)]);
        let ann = machine();
        let chunk = sources.next(ann).await.unwrap();
        let left = 60..100;
        sources.return_unasked(chunk, vec![left.clone()]);
        let chunk = sources.next(ann).await.unwrap();
        assert_eq!(chunk.ranges, [left]);
        sources.put_back(chunk, ann, Vec::new());
        assert!(sources.left().is_empty());
    }
}
