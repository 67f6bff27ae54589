//! `strftime_now`, as in Hugging Face's templates: Python's `datetime.now().strftime`, at the time when the
//! conversation began.

use jiff::civil::DateTime;
use jiff::fmt::strtime::{BrokenDownTime, Config};

/// Longer than any real date.
const MAX_FORMAT_BYTES: usize = 1000;

/// Formats the time by Python's rules; unknown directives stay as they are. `None` for an unreasonable format.
pub(super) fn strftime(time: DateTime, format: &str) -> Option<String> {
    if format.len() > MAX_FORMAT_BYTES {
        return None;
    }
    let format = as_in_python(format);
    let mut text = String::new();
    let config = Config::new().lenient(true);
    BrokenDownTime::from(time).format_with_config(&config, &format, &mut text).ok()?;
    Some(text)
}

/// Directives that differ in jiff: the C locale's forms, and no time zone.
fn as_in_python(format: &str) -> String {
    let mut out = String::with_capacity(format.len());
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('c') => out.push_str("%a %b %e %H:%M:%S %Y"),
            Some('x') => out.push_str("%m/%d/%y"),
            Some('X') => out.push_str("%H:%M:%S"),
            Some('r') => out.push_str("%I:%M:%S %p"),
            Some('f') => out.push_str("%6f"),
            Some('z' | 'Z') => {}
            Some(other) => out.extend(['%', other]),
            None => out.push_str("%%"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of `datetime(2026, 7, 5, 9, 8, 7).strftime(…)` in Python on Linux.
    #[test]
    fn dates_are_written_as_python_writes_them() {
        let time = jiff::civil::date(2026, 7, 5).at(9, 8, 7, 0);
        for (format, expected) in [
            ("%Y-%m-%d", "2026-07-05"),
            ("%d %b %Y", "05 Jul 2026"),
            ("%-d %B %y", "5 July 26"),
            ("%A, %a %e", "Sunday, Sun  5"),
            ("%H:%M:%S %I %p", "09:08:07 09 AM"),
            ("%j %U %W %w %u", "186 27 26 0 7"),
            ("%c", "Sun Jul  5 09:08:07 2026"),
            ("%x %X", "07/05/26 09:08:07"),
            ("%f", "000000"),
            ("[%z%Z]", "[]"),
            ("100%%", "100%"),
            ("%", "%"),
            ("", ""),
            ("naïve – %Y年", "naïve – 2026年"),
            ("%D %F %T %R %h %n", "07/05/26 2026-07-05 09:08:07 09:08 Jul \n"),
        ] {
            assert_eq!(strftime(time, format).as_deref(), Some(expected), "{format}");
        }
        assert_eq!(strftime(time, &"%Y".repeat(501)), None);
    }
}
