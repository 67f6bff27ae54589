//! Which regions of a copy's files a power cut may have damaged.
//!
//! The system buffers writes in memory, and may write a map to the disk before the contents it describes. So a region
//! is noted here, durably, before anything is written to it. When many are noted, their contents are made durable, and
//! the note is deleted. Regions noted before the system last started are discarded.
//!
//! The promise is that of the disk: contents are durable when it says so. On a system that does not say when it started,
//! nothing is forgotten, and a power cut may leave up to a gigabyte of blocks that are wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::blocks::touched;
use super::disk::{self, Access};
use super::file::PartFile;
use super::manifest::Manifest;
use crate::file_name::FileName;

/// Bytes of a region: making each durable takes a disk less time than a line takes to deliver it.
const REGION: u64 = 64 << 20;
/// Regions noted at most, but for those of one write: a gigabyte. Eight connections write to eight at once.
const MOST: usize = 16;
/// The longest note that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// The file of the note: the start of the system, then a line for each region, its file's place in the manifest and its
/// number.
const FILE: &str = "unsynced";

/// The note of a copy. The copy's lock must be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Journal<'a> {
    pub(crate) folder: &'a Path,
}

type Region = (usize, u64);

impl Journal<'_> {
    /// Before a range of a file is written.
    pub(crate) fn note(&self, manifest: &Manifest, file: &FileName, range: &Range<u64>) -> io::Result<()> {
        let Some(index) = manifest.index_of(file).filter(|_| !range.is_empty()) else { return Ok(()) };
        let (_, known) = self.read();
        let regions = range.start / REGION..range.end.div_ceil(REGION);
        let new: BTreeSet<Region> =
            regions.map(|region| (index, region)).filter(|region| !known.contains(region)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let is_full = known.len() + new.len() > MOST;
        if is_full {
            self.settle(manifest)?;
        }
        let kept = known.into_iter().filter(|_| !is_full);
        self.write(&kept.chain(new).collect())
    }

    /// Makes the contents of all noted regions, and their maps, durable, and deletes the note.
    pub(crate) fn settle(&self, manifest: &Manifest) -> io::Result<()> {
        let (_, regions) = self.read();
        let files: BTreeSet<usize> = regions.iter().map(|(index, _)| *index).collect();
        for file in files.into_iter().filter_map(|index| manifest.files.get(index)) {
            let open = PartFile { folder: self.folder, name: &file.name, size: file.bytes }.open()?;
            open.contents.sync_data()?;
            // A bit that is lost costs its bytes once more.
            open.map.sync_data()?;
        }
        self.write(&BTreeSet::new())
    }

    /// Whether something was noted before the system last started. Needs no lock.
    pub(crate) fn is_stale(&self) -> bool {
        let (start, regions) = self.read();
        let is_known = !start.is_empty() && !system_start().is_empty();
        is_known && start != system_start() && !regions.is_empty()
    }

    /// Discards regions noted before the system last started.
    pub(crate) fn recover(&self, manifest: &Manifest) -> io::Result<()> {
        if !self.is_stale() {
            return Ok(());
        }
        let (_, regions) = self.read();
        if !regions.is_empty() {
            // What tells the model may be among them. Who confirmed the rest stays known.
            let _ = fs::rename(self.folder.join(disk::KNOWN), self.folder.join(disk::WAS_KNOWN));
        }
        for (index, region) in regions {
            let Some(file) = manifest.files.get(index) else { continue };
            let bytes = region.saturating_mul(REGION)..region.saturating_add(1).saturating_mul(REGION);
            let open = PartFile { folder: self.folder, name: &file.name, size: file.bytes }.open()?;
            open.set(&touched(&bytes, file.bytes), false)?;
            open.map.sync_data()?;
        }
        self.write(&BTreeSet::new())
    }

    /// The system start at which regions were noted, and the regions. An illegible note was not durable when the power
    /// was cut, so nothing was written to its regions either.
    fn read(&self) -> (String, BTreeSet<Region>) {
        let mut text = String::new();
        if let Ok(file) = disk::open(self.folder, FILE, Access::Read) {
            // Without a note, nothing is noted.
            let _ = file.take(LONGEST).read_to_string(&mut text);
        }
        let (start, regions) = text.split_once('\n').unwrap_or_default();
        let region = |line: &str| {
            let (index, region) = line.split_once(' ')?;
            Some((index.parse().ok()?, region.parse().ok()?))
        };
        (start.to_owned(), regions.lines().filter_map(region).collect())
    }

    /// A note fits a sector of the disk, which is written whole or not at all.
    fn write(&self, regions: &BTreeSet<Region>) -> io::Result<()> {
        let regions = regions.iter().map(|(index, region)| format!("{index} {region}\n"));
        let text = format!("{}\n{}", system_start(), regions.collect::<String>());
        let file = disk::open(self.folder, FILE, Access::Write)?;
        let is_new = file.metadata()?.len() == 0;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)?;
        file.sync_data()?;
        if is_new { fs::File::open(self.folder)?.sync_all() } else { Ok(()) }
    }
}

/// An identifier of the system's current start; empty if the system has none.
fn system_start() -> &'static str {
    static START: OnceLock<String> = OnceLock::new();
    START.get_or_init(|| {
        let start = if cfg!(target_os = "macos") {
            let asked = Command::new("/usr/sbin/sysctl").args(["-n", "kern.bootsessionuuid"]).output();
            asked.ok().and_then(|output| String::from_utf8(output.stdout).ok())
        } else {
            fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
        };
        start.unwrap_or_default().trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::ManifestFile;

    #[test]
    fn as_much_is_noted_as_was_written_and_no_more_than_a_gigabyte() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a", "b"].map(|name| FileName::new(name).unwrap());
        let file = |name: &FileName| ManifestFile { name: name.clone(), bytes: 1 << 40 };
        let manifest = Manifest { origin: None, digest: None, files: names.iter().map(file).collect(), gguf: None };
        let journal = Journal { folder: folder.path() };
        journal.note(&manifest, &names[1], &(REGION - 1..REGION + 1)).unwrap();
        journal.note(&manifest, &names[0], &(7..7)).unwrap();
        assert_eq!(journal.read().1, BTreeSet::from([(1, 0), (1, 1)]));
        for at in 0..100 {
            journal.note(&manifest, &names[0], &(at * REGION..at * REGION + 9)).unwrap();
            let (start, noted) = journal.read();
            assert!(noted.contains(&(0, at)) && noted.len() <= MOST, "{noted:?}");
            assert_eq!(start, system_start());
        }
        assert!(fs::metadata(folder.path().join(FILE)).unwrap().len() < 512, "it fits a sector");
        journal.settle(&manifest).unwrap();
        assert_eq!(journal.read().1.len(), 0);
    }
}
