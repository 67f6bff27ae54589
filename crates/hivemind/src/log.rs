//! `hivemind log`: other machines' and programs' actions here. If no node is running, it reads the log files directly.

use std::path::Path;

use clap::Args;
use hive_node::audit::{self, Line, Log, Query};
use jiff::tz::TimeZone;
use serde_json::json;

use crate::client::Client;
use crate::{Failure, output, values};

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Show entries since this time: 30m, 12h, or 2d ago, or a date such as 2026-11-27
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = values::since)]
    pub(crate) since: jiff::Timestamp,
    /// Only show this machine: name, ID prefix, or three-word fingerprint
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(options: LogOptions, folder: &Path) -> Result<(), Failure> {
    let LogOptions { since, machine, json } = options;
    let log = match Client::find(folder).await? {
        Some(client) => {
            let machine = machine.iter().map(|machine| ("machine", machine.clone()));
            let query: Vec<_> = std::iter::once(("since", since.to_string())).chain(machine).collect();
            client.get("/hive/v1/log", &query).await?
        }
        None => audit::read(folder, &Query { since: Some(since), machine: machine.clone(), last: None })
            .map_err(|error| Failure::new(format_args!("cannot read the log in {}: {error}", folder.display())))?,
    };
    if json {
        output::line(json!(log));
    } else {
        show(&log, machine.as_deref(), &TimeZone::system());
    }
    Ok(())
}

fn show(log: &Log, machine: Option<&str>, zone: &TimeZone) {
    let Log { entries, cut, unreadable, lost } = log;
    if *cut {
        output::note("Older entries are not shown; choose a machine with --machine, or a later --since.");
    }
    lines(entries, zone).iter().for_each(output::line);
    if entries.is_empty() {
        match machine {
            Some(machine) => output::note(format_args!("No entries about \"{machine}\" in this period.")),
            None => output::note("No entries in this period."),
        }
    }
    if *unreadable > 0 {
        output::note(format_args!("{unreadable} lines could not be read: damaged, or written by a newer version."));
    }
    if *lost > 0 {
        output::note(format_args!("{lost} entries could not be written so far: is the disk full?"));
    }
}

/// Lines such as "14:02  mallory loaded …", grouped under their day.
fn lines(entries: &[Line], zone: &TimeZone) -> Vec<String> {
    let (mut lines, mut day) = (Vec::new(), None);
    for line in entries {
        let at = line.entry.at.to_zoned_datetime(zone.clone());
        if day != Some(at.date()) {
            day = Some(at.date());
            lines.push(at.strftime("%A, %-d %B %Y").to_string());
        }
        lines.push(format!("{}  {}", at.strftime("%H:%M"), line.text));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_under_their_day_in_the_time_of_the_place() {
        let entry = |at: &str, event: &str| -> Line {
            let entry = format!(r#"{{"at":"{at}","event":"{event}","text":"it {event}"}}"#);
            serde_json::from_str(&entry).unwrap()
        };
        let entries = [entry("2026-11-27T13:02:09Z", "stopped"), entry("2026-11-27T23:30:00Z", "removed")];
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let expected =
            ["Friday, 27 November 2026", "14:02  it stopped", "Saturday, 28 November 2026", "00:30  it removed"];
        assert_eq!(lines(&entries, &zone), expected);
    }
}
