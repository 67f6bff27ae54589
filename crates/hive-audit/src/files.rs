//! The log on disk: a file of JSON lines per day (UTC), in a folder that only the owner can read.
//!
//! A line is written whole or removed again. Readers skip a line that a crash cut off, and the lines after it are
//! unaffected.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::entry::Entry;

/// The folder's name in the data folder.
pub const FOLDER: &str = "log";

/// Days for which a file is kept.
const KEPT_DAYS: i32 = 90;
/// Maximum number of bytes read of a file: many times the ledger's limit per day.
const MOST_BYTES: u64 = 64 << 20;

/// How long the clock must have been steady before files are deleted by it.
const PROVEN: Duration = Duration::from_mins(10);
/// Maximum drift between the clock and the elapsed time. The clock is UTC, so daylight saving does not count.
const WRONG: SignedDuration = SignedDuration::from_mins(5);

fn date(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

fn path(folder: &Path, date: Date) -> PathBuf {
    folder.join(format!("{date}.jsonl"))
}

/// The days for which there are files.
fn days(folder: &Path) -> std::io::Result<Vec<Date>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut days: Vec<Date> = names.filter_map(|name| name.strip_suffix(".jsonl")?.parse().ok()).collect();
    days.sort_unstable();
    Ok(days)
}

/// Appends lines, each to the file of its day.
pub(super) fn append(folder: &Path, lines: &[Entry]) -> std::io::Result<()> {
    hive_host::folders::create_private(folder)?;
    lines.chunk_by(|a, b| date(a.at) == date(b.at)).try_for_each(|of_a_day| {
        let mut text = Vec::new();
        for line in of_a_day {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        append_to(&path(folder, date(of_a_day[0].at)), &text)
    })
}

fn append_to(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.read_exact_at(&mut last, before - 1)?;
    }
    // Terminates a line that a crash cut off.
    let text = if last == [b'\n'] { text.to_vec() } else { [b"\n", text].concat() };
    let written = file.write_all(&text).and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a line would be counted as damage. Truncating needs no disk space.
        let _ = file.set_len(before);
    }
    written
}

/// The lines since a time, in the order they were written, and the number of unreadable ones.
pub(super) fn read(folder: &Path, since: Option<Timestamp>) -> std::io::Result<(Vec<Entry>, u64)> {
    let (mut entries, mut unreadable) = (Vec::new(), 0);
    for day in days(folder)?.into_iter().filter(|day| since.is_none_or(|since| *day >= date(since))) {
        let (some, damaged) = read_file(&path(folder, day))?;
        entries.extend(some);
        unreadable += damaged;
    }
    Ok((entries, unreadable))
}

/// The readable lines of a day.
pub(super) fn read_day(folder: &Path, day: Timestamp) -> Vec<Entry> {
    read_file(&path(folder, date(day))).unwrap_or_default().0
}

fn read_file(path: &Path) -> std::io::Result<(Vec<Entry>, u64)> {
    let mut text = Vec::new();
    match File::open(path) {
        // Deleted meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        file => file?.take(MOST_BYTES).read_to_end(&mut text)?,
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut entries, mut damaged) = (Vec::new(), 0);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            Err(_) => damaged += 1,
        }
    }
    Ok((entries, damaged))
}

/// Deletes files that have expired.
pub(super) fn delete_expired(folder: &Path, now: Timestamp) {
    let Ok(oldest) = date(now).checked_sub(KEPT_DAYS.days()) else { return };
    for day in days(folder).unwrap_or_default().into_iter().filter(|day| *day < oldest) {
        if let Err(error) = fs::remove_file(path(folder, day)) {
            tracing::warn!("the audit log of {day} could not be deleted: {error}");
        }
    }
}

/// Decides when files may be deleted by the clock: a clock that jumps ahead must not delete three months of logs.
#[derive(Debug)]
pub(super) struct Keeper {
    /// When the clock was last found wrong: its own time, and the monotonic time.
    since: (Timestamp, Instant),
}

impl Keeper {
    pub(super) fn new(clock: Timestamp, now: Instant) -> Self {
        Self { since: (clock, now) }
    }

    pub(super) fn may_delete(&mut self, clock: Timestamp, now: Instant) -> bool {
        let (began, start) = self.since;
        let passed = now.saturating_duration_since(start);
        let drift = clock.duration_since(began) - SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        if drift.abs() > WRONG {
            self.since = (clock, now);
            return false;
        }
        passed >= PROVEN
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::entry::AuditEvent;

    fn entry(second: i64, version: &str) -> Entry {
        let event = AuditEvent::Started { version: version.to_owned() };
        Entry::at(Timestamp::from_second(1_795_737_600 + second).unwrap(), None, event)
    }

    #[test]
    fn lines_are_read_back_and_only_their_owner_can_read_them() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join(FOLDER);
        let (one, two, tomorrow) = (entry(0, "1"), entry(1, "2"), entry(86_400, "3"));
        append(&folder, std::slice::from_ref(&one)).unwrap();
        append(&folder, &[two.clone(), tomorrow.clone()]).unwrap();
        assert_eq!(read(&folder, None).unwrap(), (vec![one, two, tomorrow.clone()], 0));
        assert_eq!(read(&folder, Some(tomorrow.at)).unwrap().0, [tomorrow]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("2026-11-27.jsonl"))), (0o700, 0o600));
        let text = fs::read_to_string(folder.join("2026-11-27.jsonl")).unwrap();
        assert_eq!(text.lines().next().unwrap(), r#"{"at":"2026-11-27T00:00:00Z","event":"started","version":"1"}"#);
    }

    #[test]
    fn a_torn_last_line_costs_nothing_but_itself() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), &[entry(0, "1"), entry(1, "2")]).unwrap();
        let file = path(folder.path(), date(entry(0, "").at));
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 9]).unwrap();
        append(folder.path(), &[entry(2, "3")]).unwrap();
        assert_eq!(read(folder.path(), None).unwrap(), (vec![entry(0, "1"), entry(2, "3")], 1));
    }

    #[test]
    fn what_is_older_than_ninety_days_goes_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let day = 86_400;
        append(folder.path(), &[entry(-91 * day, "old"), entry(-90 * day, "kept"), entry(5 * day, "ahead")]).unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        delete_expired(folder.path(), entry(0, "").at);
        assert_eq!(read(folder.path(), None).unwrap().0, [entry(-90 * day, "kept"), entry(5 * day, "ahead")]);
        assert!(folder.path().join("notes.txt").exists());
    }

    #[test]
    fn a_clock_that_jumps_deletes_nothing() {
        let (clock, now) = (entry(0, "").at, Instant::now());
        let mut keeper = Keeper::new(clock, now);
        let after = |seconds: u64, jump: i64| {
            (clock + SignedDuration::from_secs(seconds as i64 + jump), now + Duration::from_secs(seconds))
        };
        let mut may = |seconds, jump| {
            let (clock, now) = after(seconds, jump);
            keeper.may_delete(clock, now)
        };
        assert!(!may(60, 0));
        assert!(may(600, 0));
        let year = 365 * 86_400;
        assert!(!may(660, year));
        assert!(!may(720, year));
        assert!(!may(780, 0), "and back");
        assert!(!may(1200, 0));
        assert!(may(1400, 0));
    }
}
