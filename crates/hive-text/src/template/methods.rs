//! Python's methods of strings, lists and dictionaries that templates call, where `minijinja_contrib` lacks them or
//! differs.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Wider than any real padding.
const MAX_WIDTH: usize = 10_000;

/// Calls a method of a value.
pub(super) fn call(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let own = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(text, name, arguments)?,
        (None, ValueKind::Seq) => of_list(value, name, arguments)?,
        (None, ValueKind::Map) => of_map(value, name, arguments)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's white space: Unicode's, and the four ASCII separators.
pub(super) fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn of_text(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let affix = || -> Result<&str, Error> { Ok(from_args::<(&str,)>(arguments)?.0) };
    let value = match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(arguments)?;
            let is_cut = |c: char| set.map_or_else(|| is_blank(c), |set| set.contains(c));
            Value::from(match name {
                "strip" => text.trim_matches(is_cut),
                "lstrip" => text.trim_start_matches(is_cut),
                _ => text.trim_end_matches(is_cut),
            })
        }
        "split" | "rsplit" => split(text, name == "rsplit", arguments)?,
        "splitlines" => splitlines(text, arguments)?,
        "removeprefix" => text.strip_prefix(affix()?).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(affix()?).unwrap_or(text).into(),
        "partition" => {
            let by = separator(affix()?)?;
            let (before, by, after) = text.split_once(by).map_or((text, "", ""), |(before, after)| (before, by, after));
            Value::from(Tuple::from([before, by, after].map(Value::from)))
        }
        "rpartition" => {
            let by = separator(affix()?)?;
            let (before, by, after) =
                text.rsplit_once(by).map_or(("", "", text), |(before, after)| (before, by, after));
            Value::from(Tuple::from([before, by, after].map(Value::from)))
        }
        "index" | "rindex" => {
            let found = if name == "index" { text.find(affix()?) } else { text.rfind(affix()?) };
            let at = found.ok_or_else(|| refused("substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        "ljust" | "rjust" | "center" | "zfill" => pad(text, name, arguments)?,
        "swapcase" => text.chars().flat_map(swapped).collect::<String>().into(),
        "casefold" => text.to_lowercase().replace('ß', "ss").into(),
        "isdecimal" => (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())).into(),
        "isidentifier" => {
            let mut characters = text.chars();
            let starts = characters.next().is_some_and(|c| c.is_alphabetic() || c == '_');
            (starts && characters.all(|c| c.is_alphanumeric() || c == '_')).into()
        }
        "isprintable" => text.chars().all(|c| c == ' ' || !(c.is_control() || is_blank(c))).into(),
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

fn separator(by: &str) -> Result<&str, Error> {
    if by.is_empty() { Err(refused("empty separator")) } else { Ok(by) }
}

/// `split` and `rsplit`, with positional or keyword arguments.
fn split(text: &str, from_right: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (by, at_most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(arguments)?;
    let by = by.or(named.get::<Option<Value>>("sep")?).filter(|by| !by.is_none());
    let at_most = at_most.or(named.get::<Option<i64>>("maxsplit")?);
    named.assert_all_used()?;
    let cuts = at_most.and_then(|most| usize::try_from(most).ok());
    let parts: Vec<&str> = match &by {
        Some(by) => {
            let by = separator(by.as_str().ok_or_else(|| refused("a separator must be text"))?)?;
            let count = cuts.map_or(usize::MAX, |cuts| cuts.saturating_add(1));
            if from_right {
                let mut parts: Vec<_> = text.rsplitn(count, by).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(count, by).collect()
            }
        }
        None if from_right => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(is_blank);
            while !rest.is_empty() {
                let cut = (cuts.is_none_or(|cuts| parts.len() < cuts)).then(|| rest.rfind(is_blank)).flatten();
                let at = cut.map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
                parts.push(&rest[at..]);
                rest = rest[..at].trim_end_matches(is_blank);
            }
            parts.reverse();
            parts
        }
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_start_matches(is_blank);
            while !rest.is_empty() {
                let cut = (cuts.is_none_or(|cuts| parts.len() < cuts)).then(|| rest.find(is_blank)).flatten();
                let at = cut.unwrap_or(rest.len());
                parts.push(&rest[..at]);
                rest = rest[at..].trim_start_matches(is_blank);
            }
            parts
        }
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// All line endings that Python knows.
fn splitlines(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (keep, named): (Option<bool>, Kwargs) = from_args(arguments)?;
    let keep = keep.or(named.get::<Option<bool>>("keepends")?).unwrap_or(false);
    named.assert_all_used()?;
    let ends = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ends) {
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(Value::from(&rest[..if keep { at + width } else { at }]));
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Ok(Value::from(lines))
}

fn pad(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(arguments)?;
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(refused("a text is padded to more than 10000 characters"));
    }
    let mut one = fill.unwrap_or(" ").chars();
    let (Some(fill), None) = (one.next(), one.next()) else {
        return Err(refused("what fills a text must be one character"));
    };
    let missing = width.saturating_sub(text.chars().count());
    let filled = |count: usize| fill.to_string().repeat(count);
    Ok(Value::from(match name {
        "ljust" => text.to_owned() + &filled(missing),
        "rjust" => filled(missing) + text,
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            filled(left) + text + &filled(missing - left)
        }
        _ => {
            let sign = usize::from(text.starts_with(['+', '-']));
            text[..sign].to_owned() + &"0".repeat(missing) + &text[sign..]
        }
    }))
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn of_list(list: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    match name {
        "index" => {
            let (what,): (Value,) = from_args(arguments)?;
            let at = list.try_iter()?.position(|item| item == what);
            at.map(|at| Some(Value::from(at))).ok_or_else(|| refused("the value is not in the list"))
        }
        "copy" => {
            let () = from_args(arguments)?;
            Ok(Some(list.clone()))
        }
        _ => Ok(None),
    }
}

fn of_map(map: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    if name == "copy" {
        let () = from_args(arguments)?;
        return Ok(Some(map.clone()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::template::{ChatTemplate, Conversation};

    /// The results in Python.
    #[test]
    fn methods_do_what_pythons_do() {
        for (expression, expected) in [
            ("'abcabc'.removeprefix('abc')", "abc"),
            ("'abcabc'.removesuffix('bc')", "abca"),
            ("'abc'.removesuffix('')", "abc"),
            ("'a-b-c'.rsplit('-', 1)", "['a-b', 'c']"),
            ("'a-b-c'.split('-', maxsplit=1)", "['a', 'b-c']"),
            ("'a-b-c'.split(sep='-')", "['a', 'b', 'c']"),
            ("' a  b c '.split()", "['a', 'b', 'c']"),
            ("' a  b c '.split(none, 1)", "['a', 'b c ']"),
            ("' a  b c '.rsplit(none, 1)", "[' a  b', 'c']"),
            ("''.split()", "[]"),
            ("''.split('x')", "['']"),
            ("'a=b=c'.partition('=')", "('a', '=', 'b=c')"),
            ("'a=b=c'.rpartition('=')", "('a=b', '=', 'c')"),
            ("'abc'.partition('x')", "('abc', '', '')"),
            ("'abc'.rpartition('x')", "('', '', 'abc')"),
            ("'42'.zfill(5)", "00042"),
            ("'-42'.zfill(5)", "-0042"),
            ("'héllo'.index('l')", "2"),
            ("'héllo'.rindex('l')", "3"),
            ("'ab'.ljust(4, '.') ~ 'ab'.rjust(4) ~ '|'", "ab..  ab|"),
            ("'ab'.center(5, '*') ~ 'a'.center(4, '*')", "**ab**a**"),
            ("'aB'.swapcase()", "Ab"),
            ("'\\x1c a\\u00a0\\n'.strip()", "a"),
            ("'xxaxx'.strip('x')", "a"),
            ("'a\\r\\nb\\rc\\n'.splitlines()", "['a', 'b', 'c']"),
            ("'a\\nb'.splitlines(keepends=true)", "['a\\n', 'b']"),
            ("[1, 2].index(2)", "1"),
            ("{'a': 1}.copy()", "{'a': 1}"),
        ] {
            let template = ChatTemplate::new(&format!("{{{{ {expression} }}}}"), []).unwrap();
            assert_eq!(template.render(&Conversation::default()).unwrap(), expected, "{expression}");
        }
        for refused in ["'abc'.index('x')", "'a'.split('')", "[1].index(2)", "'a'.zfill(10001)", "[1].append(2)"] {
            let template = ChatTemplate::new(&format!("{{{{ {refused} }}}}"), []).unwrap();
            assert!(template.render(&Conversation::default()).is_err(), "{refused}");
        }
    }
}
