//! How many rows of a prompt are computed at once while other conversations wait for their tokens.
//!
//! [`PieceSize::Any`] is for kernels that take any number of rows equally well: as many as take little longer than one
//! token. On GPUs, each new number of rows costs a driver's work of tens of milliseconds, and a piece of 16 rows takes
//! nearly as long as one of 256. So [`PieceSize::Doubling`] has few sizes, and doubles them as long as that costs little.

use std::collections::BTreeMap;
use std::time::Duration;

/// Smallest piece of a prompt: below it, reading the weights costs more than computing with them.
const MIN_ROWS: usize = 4;
/// Smallest power-of-two piece; a shorter remainder is one piece.
const MIN_DOUBLED_ROWS: usize = 8;
/// The first size where sizes are doubled.
const FIRST_DOUBLED_ROWS: usize = 32;
/// Largest piece while others wait, however fast pieces are.
const MAX_ROWS: usize = 256;
/// Time limit of a piece, in tokens. A token waits half of it on average.
const PIECE_TOKENS: f64 = 1.5;
/// A piece may also take this many times as long as the fastest.
const MAX_SLOWDOWN: f64 = 1.5;
/// After this many pieces of a size, the next larger one is tried again: it may have been slow because of other work.
const TRIED_AGAIN_AFTER: u32 = 64;

#[derive(Debug)]
pub(super) enum PieceSize {
    /// Rows that take as long as a piece may.
    Any(f64),
    /// Powers of two.
    Doubling(Doubling),
}

#[derive(Debug)]
pub(super) struct Doubling {
    rows: usize,
    /// The time that each size takes, in seconds; `None` after its first run, which includes compilation and is ignored.
    times: BTreeMap<usize, Option<f64>>,
    /// Pieces of this size since it was chosen.
    pieces: u32,
}

impl PieceSize {
    pub(super) fn any() -> Self {
        Self::Any(MIN_ROWS as f64)
    }

    pub(super) fn doubling() -> Self {
        Self::Doubling(Doubling { rows: FIRST_DOUBLED_ROWS, times: BTreeMap::new(), pieces: 0 })
    }

    /// The rows of the next piece of a prompt of which this many are left.
    pub(super) fn of(&self, left: usize) -> usize {
        match self {
            Self::Any(rows) => *rows as usize,
            Self::Doubling(_) if left < MIN_DOUBLED_ROWS => left,
            Self::Doubling(Doubling { rows, .. }) => (*rows).min(1 << left.ilog2()),
        }
    }

    /// Adapts to the time that a piece took, beside the time of a token in seconds.
    pub(super) fn took(&mut self, rows: usize, time: Duration, token_s: f64) {
        let seconds = time.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        match self {
            Self::Any(size) => {
                // Small pieces take longer per row, so the size is approached in steps.
                let wanted = rows as f64 * token_s * PIECE_TOKENS / seconds;
                let near = wanted.clamp(*size / 2.0, *size * 2.0);
                *size = near.clamp(MIN_ROWS as f64, MAX_ROWS as f64);
            }
            Self::Doubling(doubling) => doubling.took(rows, seconds, token_s),
        }
    }
}

impl Doubling {
    fn took(&mut self, rows: usize, seconds: f64, token_s: f64) {
        if !rows.is_power_of_two() || rows < MIN_DOUBLED_ROWS {
            return;
        }
        let Some(known) = self.times.get_mut(&rows) else {
            self.times.insert(rows, None);
            return;
        };
        *known = Some(known.map_or(seconds, |before| before * 0.8 + seconds * 0.2));
        if rows != self.rows {
            return;
        }
        self.pieces += 1;
        if self.pieces > TRIED_AGAIN_AFTER {
            self.times.remove(&(rows * 2));
        }
        let fastest = self.times.values().flatten().fold(f64::INFINITY, |fastest, time| fastest.min(*time));
        let limit = (token_s * PIECE_TOKENS).max(fastest * MAX_SLOWDOWN);
        let time_of = |rows: usize| self.times.get(&rows).copied().flatten();
        let is_slower_than = |rows: usize, limit: f64| time_of(rows).is_some_and(|time| time > limit);
        // Whether smaller pieces are faster is not known before one was computed.
        let is_to_be_tried = rows > MIN_DOUBLED_ROWS && time_of(rows / 2).is_none();
        if is_slower_than(rows, limit) || (is_to_be_tried && is_slower_than(rows, token_s * PIECE_TOKENS)) {
            (self.rows, self.pieces) = ((rows / 2).max(MIN_DOUBLED_ROWS), 0);
        } else if rows < MAX_ROWS && !is_slower_than(rows * 2, limit) {
            (self.rows, self.pieces) = (rows * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The size after many pieces that take so long, beside tokens of 5 ms.
    fn settled(mut size: PieceSize, took_us: impl Fn(usize) -> u64) -> usize {
        let mut computed = BTreeSet::new();
        for _ in 0..100 {
            let rows = size.of(100_000);
            // The first of its size is slow.
            let first_us = if computed.insert(rows) { 60_000 } else { 0 };
            size.took(rows, Duration::from_micros(first_us + took_us(rows)), 5e-3);
        }
        size.of(100_000)
    }

    #[test]
    fn on_a_gpu_pieces_double_while_that_costs_little() {
        // As measured on an H200 with a model of a billion parameters.
        assert_eq!(settled(PieceSize::doubling(), |rows| 8_000 + 6 * rows as u64), 256);
        // With a larger one: 64 rows take 16 ms, which is half as much again as 16 rows do.
        assert!((32..=64).contains(&settled(PieceSize::doubling(), |rows| 7_000 + 140 * rows as u64)));
        // Where each row costs: 8 rows take more than a token and a half.
        assert_eq!(settled(PieceSize::doubling(), |rows| 1_000 * rows as u64), 8);
        // Tokens are so slow that it does not matter.
        assert_eq!(settled(PieceSize::doubling(), |rows| 20 * rows as u64), 256);
    }

    #[test]
    fn pieces_grow_again_when_what_slowed_them_is_over() {
        let mut size = PieceSize::doubling();
        let mut read = |us_per_row: u64| {
            for _ in 0..1000 {
                let rows = size.of(100_000);
                size.took(rows, Duration::from_micros(2_000 + us_per_row * rows as u64), 5e-3);
            }
            size.of(100_000)
        };
        assert_eq!(read(5), 256);
        assert_eq!(read(2_000), 8);
        assert_eq!(read(5), 256);
    }

    #[test]
    fn what_is_left_of_a_prompt_has_few_sizes_too() {
        let size = PieceSize::Doubling(Doubling { rows: 64, times: BTreeMap::new(), pieces: 0 });
        let mut left = 300;
        let mut pieces = Vec::new();
        while left > 0 {
            pieces.push(size.of(left));
            left -= pieces[pieces.len() - 1];
        }
        assert_eq!(pieces, [64, 64, 64, 64, 32, 8, 4]);
        assert_eq!((size.of(1), size.of(7), size.of(8), size.of(63)), (1, 7, 8, 32));
    }

    #[test]
    fn elsewhere_pieces_grow_to_what_takes_little_more_than_a_token() {
        let mut size = PieceSize::any();
        for _ in 0..10 {
            // Two milliseconds for the weights, and one per row.
            let rows = size.of(1000);
            size.took(rows, Duration::from_millis(2 + rows as u64), 10e-3);
        }
        assert!((12..=13).contains(&size.of(1000)), "{}", size.of(1000));
        size.took(13, Duration::from_secs(10), 10e-3);
        assert!(size.of(1000) >= 6, "one slow piece is not the rule");
    }
}
