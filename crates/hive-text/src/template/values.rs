//! Limits on a template's results: the depth of values, and the size of texts.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::{methods, python};

/// Maximum depth of lists in lists. Conversations and tools nest about ten deep.
pub(super) const MAX_DEPTH: usize = 100;
/// Maximum number of values inspected in total while namespaces are filled: about a hundred messages in each of a
/// hundred turns.
const MAX_LOOKED_AT: usize = 2_000_000;
/// Wider than any real format.
const MAX_WIDTH_DIGITS: usize = 4;
/// Methods process the whole text at once, before fuel accounts for their results.
const MAX_METHOD_TEXT_BYTES: usize = 8 << 20;

/// Maximum number of lists or texts that are added up.
const MAX_SUMMED: usize = 1000;

/// Counters for one rendering.
#[derive(Debug, Default)]
pub(super) struct Looked(AtomicUsize);

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// A value that a namespace may hold: plain data of limited depth, with nothing lazy and nothing that could contain the
/// namespace itself.
pub(super) fn settled(looked: &Looked, value: &Value) -> Result<Value, Error> {
    Ok(settle(looked, value, 0)?.unwrap_or_else(|| value.clone()))
}

/// The replacement for a value, if it needs one.
fn settle(looked: &Looked, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
    if looked.0.fetch_add(1, Ordering::Relaxed) > MAX_LOOKED_AT {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    if depth > MAX_DEPTH {
        return Err(refused("a namespace holds lists nested too deep"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let is_plain = value.downcast_object_ref::<Vec<Value>>().is_some() || value.is_tuple();
            let (mut items, mut changed) = (Vec::new(), !is_plain);
            for item in value.try_iter()? {
                let item = match settle(looked, &item, depth + 1)? {
                    Some(other) => {
                        changed = true;
                        other
                    }
                    None => item,
                };
                items.push(item);
            }
            let rebuilt = || if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) };
            Ok(changed.then(rebuilt))
        }
        ValueKind::Map => {
            if value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace")) {
                return Err(refused("a namespace cannot hold a namespace"));
            }
            let mut changed = value.downcast_object_ref::<IndexMap<Value, Value>>().is_none();
            let mut entries = IndexMap::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                let settled = settle(looked, &item, depth + 1)?;
                changed |= settled.is_some();
                entries.insert(key, settled.unwrap_or(item));
            }
            Ok(changed.then(|| Value::from_object(entries)))
        }
        ValueKind::Plain => Err(refused("a namespace can hold data only")),
        _ => Ok(None),
    }
}

/// Maximum number of items written as text at once, each counted as often as it is reached: a list can contain another
/// a thousand times, which contains another a thousand times. Tools and conversations have about ten thousand.
const MAX_WRITTEN: usize = 1_000_000;

/// Whether a value can be written as text in reasonable time and memory.
pub(super) fn is_writable(value: &Value) -> bool {
    fn within(value: &Value, left: &mut usize, depth: usize) -> bool {
        let size = 1 + value.as_str().map_or(0, |text| text.len() / 16);
        let Some(rest) = left.checked_sub(size) else { return false };
        *left = rest;
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => depth > 0 && all(value, left, depth),
            ValueKind::Map => {
                depth > 0
                    && all(value, left, depth)
                    && value.try_iter().is_ok_and(|mut keys| {
                        keys.all(|key| value.get_item(&key).is_ok_and(|item| within(&item, left, depth - 1)))
                    })
            }
            _ => true,
        }
    }
    fn all(value: &Value, left: &mut usize, depth: usize) -> bool {
        value.try_iter().is_ok_and(|mut items| items.all(|item| within(&item, left, depth - 1)))
    }
    let mut left = MAX_WRITTEN;
    within(value, &mut left, 2 * MAX_DEPTH)
}

/// Checks a value and prints it.
pub(super) fn print(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if !is_writable(value) {
        return Err(ErrorKind::OutOfFuel.into());
    }
    match python::text(value) {
        Some(text) => Ok(output.write_str(&text)?),
        None => minijinja::escape_formatter(output, state, value),
    }
}

/// Adds the filters that write whole values as text, with a check of the values first.
pub(super) fn add_writers(environment: &mut Environment<'static>) {
    let filters = [
        ("string", Value::from_function(string)),
        ("join", Value::from_function(minijinja::filters::join)),
        ("format", Value::from_function(minijinja::filters::format)),
        ("pprint", Value::from_function(minijinja::filters::pprint)),
        // These take anything for a text.
        ("upper", Value::from_function(minijinja::filters::upper)),
        ("lower", Value::from_function(minijinja::filters::lower)),
        ("title", Value::from_function(minijinja::filters::title)),
        ("capitalize", Value::from_function(minijinja::filters::capitalize)),
        ("trim", Value::from_function(minijinja::filters::trim)),
        ("replace", Value::from_function(replace)),
        ("indent", Value::from_function(indent)),
        ("safe", Value::from_function(minijinja::filters::safe)),
        ("escape", Value::from_function(minijinja::filters::escape)),
        ("e", Value::from_function(minijinja::filters::escape)),
    ];
    for (name, filter) in filters {
        let checked = move |state: &mut State, arguments: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let arguments = arguments.into_values();
            if !arguments.iter().all(is_writable) {
                return Err(Error::from(ErrorKind::OutOfFuel));
            }
            filter.call(state, &arguments)
        };
        environment.add_filter(name, checked);
    }
    let tests = [
        ("startingwith", Value::from_function(minijinja::tests::is_startingwith)),
        ("endingwith", Value::from_function(minijinja::tests::is_endingwith)),
    ];
    for (name, test) in tests {
        let checked = move |state: &mut State, value: Value, other: Value| -> Result<bool, Error> {
            if !is_writable(&value) || !is_writable(&other) {
                return Err(Error::from(ErrorKind::OutOfFuel));
            }
            Ok(test.call(state, &[value, other])?.is_true())
        };
        environment.add_test(name, checked);
    }
}

/// The filter `replace`, with how often at most, by place or by name.
fn replace(state: &mut State, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    type Arguments<'a> = (Cow<'a, str>, Cow<'a, str>, Cow<'a, str>, Option<i64>, Kwargs);
    let arguments = arguments.into_values();
    if arguments.len() <= 3 {
        return Value::from_function(minijinja::filters::replace).call(state, &arguments);
    }
    let (text, from, to, count, keywords): Arguments = from_args(&arguments)?;
    let count = if count.is_some() { count } else { keywords.get("count")? };
    keywords.assert_all_used()?;
    // Less than none is all.
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let replaced = text.matches(from.as_ref()).take(count).count();
    if replaced.saturating_mul(to.len()).saturating_add(text.len()) > MAX_METHOD_TEXT_BYTES {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Ok(text.replacen(from.as_ref(), &to, count).into())
}

/// The filter `indent`.
fn indent(state: &mut State, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    type Arguments<'a> = (Cow<'a, str>, Option<usize>, Option<bool>, Option<bool>, Kwargs);
    let arguments = arguments.into_values();
    let (text, width, _, _, keywords): Arguments = from_args(&arguments)?;
    let width = if width.is_some() { width } else { keywords.get("width")? };
    let lines = text.split('\n').count();
    if width.unwrap_or_default().saturating_mul(lines).saturating_add(text.len()) > MAX_METHOD_TEXT_BYTES {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    Value::from_function(minijinja::filters::indent).call(state, &arguments)
}

/// The filter `string`.
fn string(state: &State, value: &Value) -> Result<Value, Error> {
    match python::text(value) {
        Some(text) => Ok(text.into()),
        None => minijinja::filters::string(state, value),
    }
}

/// The filter `sum`. Anything but numbers is copied for every item added to it, which fuel does not account for.
pub(super) fn sum(
    state: &State,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    keywords: Kwargs,
) -> Result<Value, Error> {
    let named = keywords.get::<Option<Value>>("start")?;
    let is_number = start.as_ref().or(named.as_ref()).is_none_or(Value::is_number);
    if !is_number && values.len().is_none_or(|count| count > MAX_SUMMED) {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    minijinja::filters::sum(state, values, attribute, start, keywords)
}

/// Python's methods, with a check that the result is not too large.
pub(super) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if text.len() > MAX_METHOD_TEXT_BYTES {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        if name == "format" && formats_wide(text) {
            return Err(refused("a format asks for more than 9999 characters, or takes its width from an argument"));
        }
    }
    if !arguments.iter().all(is_writable) {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    methods::call(state, value, name, arguments)
}

/// Whether a format string has a width of many digits, or one given by an argument.
fn formats_wide(text: &str) -> bool {
    let digits = text.as_bytes().split(|byte| !byte.is_ascii_digit()).map(<[u8]>::len).max();
    let mut depth = 0;
    let nests = text.replace("{{", "").bytes().any(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = 0,
            _ => {}
        }
        depth > 1
    });
    nests || digits > Some(MAX_WIDTH_DIGITS)
}

/// Whether JSON is nested no deeper than a template can handle.
pub(super) fn is_shallow(json: &serde_json::Value) -> bool {
    fn within(json: &serde_json::Value, left: usize) -> bool {
        match json {
            serde_json::Value::Array(items) => left > 0 && items.iter().all(|item| within(item, left - 1)),
            serde_json::Value::Object(entries) => left > 0 && entries.values().all(|item| within(item, left - 1)),
            _ => true,
        }
    }
    within(json, MAX_DEPTH)
}

/// Approximate size of JSON's strings and values, in bytes.
pub(super) fn json_bytes(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::String(text) => text.len() + 2,
        serde_json::Value::Array(items) => items.iter().map(|item| json_bytes(item) + 2).sum(),
        serde_json::Value::Object(entries) => entries.iter().map(|(key, item)| key.len() + json_bytes(item) + 4).sum(),
        _ => 8,
    }
}
