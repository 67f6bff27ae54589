//! Blocks, of which a file is there or not, and the bits that say so. Pure.

use std::ops::Range;

/// Bytes of a block; a file's last one may be shorter. It is a page of the smallest kind: what is missing of a file is a
/// hole on the disk.
pub const BLOCK: u64 = 4096;

/// The number of blocks of a file of `size` bytes.
pub(crate) fn count(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// Bytes of the map of a file of `size` bytes.
pub(crate) fn map_length(size: u64) -> u64 {
    count(size).div_ceil(8)
}

/// The blocks that a range of bytes touches, of a file of `size` bytes.
pub(crate) fn touched(range: &Range<u64>, size: u64) -> Range<u64> {
    let end = range.end.min(size);
    if range.start >= end { 0..0 } else { range.start / BLOCK..end.div_ceil(BLOCK) }
}

/// The blocks of which a range of bytes consists; `None` if it cuts one in two or leaves the file.
pub(crate) fn whole(range: &Range<u64>, size: u64) -> Option<Range<u64>> {
    let ends_block = range.end == size || range.end.is_multiple_of(BLOCK);
    let is_whole = range.start <= range.end && range.end <= size && range.start.is_multiple_of(BLOCK) && ends_block;
    is_whole.then(|| range.start / BLOCK..range.end.div_ceil(BLOCK))
}

/// The bytes of blocks.
pub(crate) fn bytes(blocks: &Range<u64>, size: u64) -> Range<u64> {
    (blocks.start * BLOCK).min(size)..(blocks.end * BLOCK).min(size)
}

/// Adds to `runs` the blocks whose bit is `wanted`, merged. `bits` begins with the bit of the block `first`, a multiple
/// of eight.
pub(crate) fn add_runs(runs: &mut Vec<Range<u64>>, bits: &[u8], first: u64, blocks: &Range<u64>, wanted: bool) {
    let mut add = |found: Range<u64>| {
        let found = found.start.max(blocks.start)..found.end.min(blocks.end);
        match runs.last_mut() {
            _ if found.is_empty() => {}
            Some(last) if last.end == found.start => last.end = found.end,
            _ => runs.push(found),
        }
    };
    let none = if wanted { 0 } else { u8::MAX };
    for (index, byte) in bits.iter().enumerate().filter(|(_, byte)| **byte != none) {
        let block = first + index as u64 * 8;
        if *byte == !none {
            add(block..block + 8);
        } else {
            for bit in (0..8).filter(|bit| (byte >> bit & 1 == 1) == wanted) {
                add(block + bit..block + bit + 1);
            }
        }
    }
}

/// Sets or clears the bits of blocks. `bits` begins with the bit of the block `first`, a multiple of eight.
pub(crate) fn set(bits: &mut [u8], first: u64, blocks: &Range<u64>, to: bool) {
    for block in blocks.start - first..blocks.end - first {
        let (byte, bit) = (&mut bits[(block / 8) as usize], 1 << (block % 8));
        *byte = if to { *byte | bit } else { *byte & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_ends_with_the_file() {
        assert_eq!((count(0), count(1), count(BLOCK), count(BLOCK + 1)), (0, 1, 1, 2));
        assert_eq!((map_length(0), map_length(8 * BLOCK), map_length(8 * BLOCK + 1)), (0, 1, 2));
        let size = 3 * BLOCK + 5;
        assert_eq!(touched(&(1..BLOCK + 1), size), 0..2);
        assert_eq!(touched(&(BLOCK..u64::MAX), size), 1..4);
        assert_eq!(touched(&(size..size + 9), size), 0..0);
        assert_eq!(touched(&(7..7), size), 0..0);
        assert_eq!(bytes(&(1..4), size), BLOCK..size);
        assert_eq!(whole(&(BLOCK..size), size), Some(1..4));
        assert_eq!(whole(&(0..2 * BLOCK), size), Some(0..2));
        for cut in [1..BLOCK, 0..BLOCK + 1, BLOCK..size + 1, 0..4 * BLOCK] {
            assert_eq!(whole(&cut, size), None, "{cut:?}");
        }
    }

    #[test]
    fn bits_are_found_as_they_were_set() {
        let mut bits = [0; 5];
        for blocks in [10..12, 12..13, 17..41, 43..44] {
            set(&mut bits, 8, &blocks, true);
        }
        set(&mut bits, 8, &(20..21), false);
        let runs = |blocks: &Range<u64>, wanted| {
            let mut runs = Vec::new();
            add_runs(&mut runs, &bits[..2], 8, blocks, wanted);
            add_runs(&mut runs, &bits[2..], 24, blocks, wanted);
            runs
        };
        assert_eq!(runs(&(8..48), true), [10..13, 17..20, 21..41, 43..44]);
        assert_eq!(runs(&(8..48), false), [8..10, 13..17, 20..21, 41..43, 44..48]);
        assert_eq!(runs(&(11..42), true), [11..13, 17..20, 21..41]);
        assert_eq!(runs(&(11..42), false), [13..17, 20..21, 41..42]);
    }
}
