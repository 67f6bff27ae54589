//! Parsers of argument values. Their errors say what was expected, in words.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::path::Path;
use std::str::FromStr;

use hive_node::border;

/// A whole number in a range; `what` says what it counts, and the range if it is a narrow one.
pub(crate) fn number<N, R>(
    what: &'static str,
    range: R,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialOrd + Clone + Send + Sync + 'static,
    R: RangeBounds<N> + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        let number: Option<N> = text.parse().ok().filter(|number: &N| range.contains(number));
        number.ok_or_else(|| format!("\"{text}\" is not {what}"))
    }
}

/// A number that may have decimals; `what` says what it measures.
pub(crate) fn decimal<N>(what: &'static str) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + Clone + Send + Sync + 'static,
{
    move |text: &str| text.parse::<N>().map_err(|_| format!("\"{text}\" is not {what}"))
}

/// A number that is one of these.
pub(crate) fn one_of<N, const COUNT: usize>(
    numbers: [N; COUNT],
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialEq + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        let number: Option<N> = text.parse().ok().filter(|number: &N| numbers.contains(number));
        number.ok_or_else(|| {
            let listed: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("\"{text}\" is not one of {}", listed.join(", "))
        })
    }
}

/// An IP address with a port.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not an IP address with a port, such as 127.0.0.1:4483"))
}

pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("\"{other}\" is neither on nor off")),
    }
}

/// An amount of memory, in bytes.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    hive_node::settings::parse_bytes(text)
        .ok_or_else(|| format!("\"{text}\" is not an amount of memory; include a unit, as in 8GB"))
}

/// The name of a machine.
pub(crate) fn machine_name(text: &str) -> Result<String, String> {
    if border::label(text).is_empty() { Err("a machine needs a name".to_owned()) } else { Ok(text.to_owned()) }
}

/// Help text of the model argument.
pub(crate) const MODEL: &str = "A .gguf file, a folder, or owner/name from the Hugging Face cache; append :Q4_0 or @revision to choose \
                     one of several. Defaults to the starter model";

/// Makes the path of a file or folder absolute, since the node has another working directory. Anything else is a name.
#[allow(clippy::unnecessary_wraps, reason = "clap requires a Result")]
pub(crate) fn model(text: &str) -> Result<String, std::convert::Infallible> {
    let found = Path::new(text).exists().then(|| std::path::absolute(text).ok()).flatten();
    Ok(found.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| text.to_owned()))
}

/// Parses an age such as 12h, or a date or time in the local time zone.
pub(crate) fn since(text: &str) -> Result<jiff::Timestamp, String> {
    let wrong = || format!("\"{text}\" is not a valid time; try 30m, 12h, 2d, or 2026-11-27");
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        let zoned = at.to_zoned_datetime(jiff::tz::TimeZone::system());
        return Ok(zoned.map_err(|_| wrong())?.timestamp());
    }
    let unit_s: i64 = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0).ok_or_else(wrong)?;
    let before = count.checked_mul(unit_s).map(jiff::SignedDuration::from_secs).ok_or_else(wrong)?;
    jiff::Timestamp::now().checked_sub(before).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_is_refused_in_words() {
        let minutes = number("a number of minutes, such as 30", 0_u32..);
        assert_eq!(minutes("60"), Ok(60));
        for wrong in ["abc", "", "-1", "1.5", "99999999999"] {
            assert_eq!(minutes(wrong), Err(format!("\"{wrong}\" is not a number of minutes, such as 30")));
        }
        let threads = number("a number of threads from 1 to 1024", 1..=1024_u16);
        assert_eq!(threads("1024"), Ok(1024));
        assert_eq!(threads("0").unwrap_err(), "\"0\" is not a number of threads from 1 to 1024");
        assert_eq!(decimal::<f32>("a temperature, such as 0.7")("0.5"), Ok(0.5));
        assert_eq!(decimal::<f32>("a number of hours")("x").unwrap_err(), "\"x\" is not a number of hours");
        assert_eq!(one_of([2, 4])("4"), Ok(4));
        assert_eq!(one_of([2, 4])("3").unwrap_err(), "\"3\" is not one of 2, 4");
    }

    #[test]
    fn a_machine_needs_a_name_that_can_be_seen() {
        assert_eq!(machine_name("Attic"), Ok("Attic".to_owned()));
        for blank in ["", "  ", "\t\n"] {
            assert_eq!(machine_name(blank).unwrap_err(), "a machine needs a name", "{blank:?}");
        }
    }
}
