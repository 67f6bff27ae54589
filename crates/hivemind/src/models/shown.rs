//! The progress of a command that takes long, for a person or a program: on a terminal a line that is renewed, elsewhere
//! a line from time to time, and with `--json` an object per line on standard output.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::output;
use crate::terminal::Plain;

/// How often a terminal's line and a program's events are renewed.
pub(super) const OFTEN: Duration = Duration::from_millis(300);
/// How often a line is added where there is no terminal.
const SELDOM: Duration = Duration::from_secs(10);

/// The output of a command for a person or a program. A terminal's line is removed when it is dropped.
pub(super) struct Shown {
    /// What the command is about; ends every line.
    name: String,
    kind: Kind,
    last: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One line that is renewed.
    Terminal,
    /// A line from time to time.
    Plain,
    /// A JSON object per line, on standard output.
    Json,
}

impl Shown {
    /// `last`: when there was something to see; without it, the first progress is shown at once.
    pub(super) fn new(name: String, as_json: bool, last: Option<Instant>) -> Self {
        let kind = match (as_json, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Json,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Plain,
        };
        Self { name, kind, last }
    }

    /// Whether progress is shown now: the last was long enough ago, or there is no more to come. Then it counts as shown.
    pub(super) fn is_due(&mut self, now: Instant, is_whole: bool) -> bool {
        let every = if self.kind == Kind::Plain { SELDOM } else { OFTEN };
        let is_due = is_whole || self.last.is_none_or(|last| now.duration_since(last) >= every);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }

    /// Shows a program the event, and a person the line.
    pub(super) fn show(&self, event: &Value, line: &str) {
        if self.kind == Kind::Json {
            return output::line(event);
        }
        let line = Plain::new().pass(&format!("{line} · {}", self.name));
        // A line that is longer than the terminal is cut, not wrapped: a wrapped one could not be renewed.
        let (before, after) = if self.kind == Kind::Terminal { ("\r\x1b[K\x1b[?7l", "\x1b[?7h") } else { ("", "\n") };
        let _ = write!(std::io::stderr(), "{before}{line}{after}");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.kind == Kind::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A time to wait, as people say it.
pub(super) fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=90 => format!("{} s", seconds.max(1)),
        seconds @ 91..=5400 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_often_to_a_program_seldom_in_a_file_and_always_at_the_end() {
        let start = Instant::now();
        let mut shown = Shown::new("a model".to_owned(), true, None);
        let at = |after| start + after;
        assert!(shown.is_due(start, false), "the first");
        assert!(!shown.is_due(at(OFTEN / 2), false));
        assert!(shown.is_due(at(OFTEN), false));
        assert!(shown.is_due(at(OFTEN), true), "the last");
        shown.kind = Kind::Plain;
        assert!(!shown.is_due(at(SELDOM), false));
        assert!(shown.is_due(at(OFTEN + SELDOM), false));
        assert!(!Shown::new("another".to_owned(), true, Some(start)).is_due(start, false));
    }

    #[test]
    fn a_time_is_said_as_people_do() {
        let said = [0, 1, 90, 91, 3600, 7000].map(|seconds| in_words(Duration::from_secs(seconds)));
        assert_eq!(said, ["1 s", "1 s", "90 s", "2 min", "60 min", "2 h"]);
    }
}
