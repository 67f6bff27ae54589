//! One file of a copy, and its map.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::blocks::{add_runs, map_length, set};
use super::disk::{self, Access};
use crate::file_name::FileName;

/// Blocks whose bits are read or written at once: 64 KiB of a map, for 2 GiB of contents.
const AT_ONCE: u64 = 1 << 19;

/// A file of a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartFile<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a FileName,
    pub(crate) size: u64,
}

/// A file that is being changed.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) contents: File,
    pub(crate) map: File,
}

impl PartFile<'_> {
    /// Opens the file and its map for writing. If one has the wrong length, both become empty.
    pub(crate) fn open(&self) -> io::Result<Open> {
        let map = disk::open(self.folder, &self.map(), Access::Write)?;
        let contents = disk::open(self.folder, &self.contents(), Access::Write)?;
        let there = map.metadata()?.len();
        if there != map_length(self.size) || contents.metadata()?.len() != self.size {
            map.set_len(0)?;
            if there > 0 {
                // Bits must not outlast their contents.
                map.sync_all()?;
            }
            contents.set_len(0)?;
            contents.set_len(self.size)?;
            map.set_len(map_length(self.size))?;
        }
        Ok(Open { contents, map })
    }

    /// The blocks among these that are there, or those that are not; an error if the file has the wrong length, or its map
    /// has: then nothing is there.
    pub(crate) fn runs(&self, blocks: &Range<u64>, wanted: bool) -> io::Result<Vec<Range<u64>>> {
        let mut runs = Vec::new();
        if blocks.is_empty() {
            return Ok(runs);
        }
        let map = disk::open(self.folder, &self.map(), Access::Read)?;
        let has_length = disk::length(self.folder, &self.contents()) == Some(self.size);
        if map.metadata()?.len() != map_length(self.size) || !has_length {
            return Err(io::Error::other("its length is wrong"));
        }
        for window in windows(blocks) {
            let (bits, first) = read_bits(&map, &window)?;
            add_runs(&mut runs, &bits, first, &window, wanted);
        }
        Ok(runs)
    }

    /// Reads contents, holes included: the caller knows which blocks are present.
    pub(crate) fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        disk::open(self.folder, &self.contents(), Access::Read)?.read_exact_at(bytes, at)
    }

    fn contents(&self) -> String {
        format!("model/{}", self.name)
    }

    fn map(&self) -> String {
        format!("map/{}", self.name)
    }
}

impl Open {
    /// Notes that blocks are there, or that they are not.
    pub(crate) fn set(&self, blocks: &Range<u64>, to: bool) -> io::Result<()> {
        for window in windows(blocks) {
            let (mut bits, first) = read_bits(&self.map, &window)?;
            set(&mut bits, first, &window, to);
            self.map.write_all_at(&bits, first / 8)?;
        }
        Ok(())
    }
}

/// Blocks in portions whose bits are handled at once.
fn windows(blocks: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = blocks.clone();
    (start / AT_ONCE..end.div_ceil(AT_ONCE)).map(move |n| start.max(n * AT_ONCE)..end.min((n + 1) * AT_ONCE))
}

/// The bytes of a map that hold the bits of these blocks, and the block of their first bit.
fn read_bits(map: &File, blocks: &Range<u64>) -> io::Result<(Vec<u8>, u64)> {
    let first = blocks.start / 8;
    let mut bits = vec![0; (blocks.end.div_ceil(8) - first) as usize];
    map.read_exact_at(&mut bits, first)?;
    Ok((bits, first * 8))
}
