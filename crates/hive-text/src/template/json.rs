//! The filter `tojson`: Python's `json.dumps`, as in Hugging Face's templates, because models are trained on its
//! format.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, Value};

use super::python;
use super::values::is_writable;

/// More than a conversation's tools need.
const MAX_BYTES: usize = 32 << 20;
/// Maximum indentation per level, in characters.
const MAX_INDENT: usize = 16;

/// Formatting options.
struct Style {
    /// Whether to write only ASCII.
    ascii: bool,
    /// The indentation per level; `None` writes a single line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Style {
    /// From the arguments after the value, positional or by keyword.
    fn read(arguments: Rest<ValueOrKwargs>) -> Result<Self, Error> {
        let mut arguments = arguments.into_values();
        let named = match arguments.pop_if(|last| last.is_kwargs()) {
            Some(last) => Some(Kwargs::try_from(last)?),
            None => None,
        };
        let mut by_place = arguments.into_iter();
        let mut argument = |name: &str| -> Result<Value, Error> {
            match (by_place.next(), &named) {
                (Some(value), _) => Ok(value),
                (None, Some(named)) => Ok(named.get::<Option<Value>>(name)?.unwrap_or_default()),
                (None, None) => Ok(Value::UNDEFINED),
            }
        };
        let ascii = argument("ensure_ascii")?.is_true();
        let indent = indent(&argument("indent")?)?;
        let separators = argument("separators")?;
        let sort_keys = argument("sort_keys")?.is_true();
        if by_place.next().is_some() {
            return Err(ErrorKind::TooManyArguments.into());
        }
        named.as_ref().map_or(Ok(()), Kwargs::assert_all_used)?;
        let (item_separator, key_separator) = if separators.is_none() || separators.is_undefined() {
            ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned())
        } else {
            let texts = separators.try_iter()?.map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            match texts.as_deref() {
                Some([item, key]) if item.len() <= MAX_INDENT && key.len() <= MAX_INDENT => (item.clone(), key.clone()),
                _ => return Err(refused("tojson: separators must be two short texts")),
            }
        };
        Ok(Self { ascii, indent, item_separator, key_separator, sort_keys })
    }
}

fn indent(value: &Value) -> Result<Option<String>, Error> {
    if value.is_none() || value.is_undefined() {
        return Ok(None);
    }
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(i64::try_from(value.clone())?).unwrap_or(0).min(MAX_INDENT + 1)),
    };
    if text.len() > MAX_INDENT { Err(refused("tojson: the indent is too wide")) } else { Ok(Some(text)) }
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// The filter.
pub(super) fn tojson(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let style = Style::read(arguments)?;
    if !is_writable(value) {
        return Err(ErrorKind::OutOfFuel.into());
    }
    let mut out = String::new();
    write(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if out.len() > MAX_BYTES {
        return Err(ErrorKind::OutOfFuel.into());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(out, value),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq => {
            let items = value.try_iter()?.collect::<Vec<_>>();
            write_all(out, ['[', ']'], items, style, depth, |out, item| write(out, &item, style, depth + 1))?;
        }
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                entries.push((name(&key)?, item));
            }
            if style.sort_keys {
                entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            }
            write_all(out, ['{', '}'], entries, style, depth, |out, (key, item)| {
                write_text(out, &key, style.ascii);
                out.push_str(&style.key_separator);
                write(out, &item, style, depth + 1)
            })?;
        }
        kind => return Err(Error::new(ErrorKind::BadSerialization, format!("tojson: {kind} is not JSON"))),
    }
    Ok(())
}

fn write_all<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: Vec<T>,
    style: &Style,
    depth: usize,
    mut each: impl FnMut(&mut String, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let is_empty = items.is_empty();
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    out.push(open);
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push_str(&style.item_separator);
        }
        line(out, depth + 1);
        each(out, item)?;
    }
    if !is_empty {
        line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn write_number(out: &mut String, value: &Value) {
    match (value.is_integer(), f64::try_from(value.clone())) {
        (false, Ok(number)) if number.is_nan() => out.push_str("NaN"),
        (false, Ok(number)) if number.is_infinite() => {
            out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
        }
        (false, Ok(number)) => out.push_str(&python::float(number)),
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

/// A key as in JSON: a string.
fn name(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(key.to_string().to_lowercase()),
        ValueKind::Number => {
            let mut text = String::new();
            write_number(&mut text, key);
            Ok(text)
        }
        kind => Err(Error::new(ErrorKind::BadSerialization, format!("tojson: {kind} cannot be a key"))),
    }
}

fn write_text(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use crate::template::{ChatTemplate, Conversation};

    /// The results of `json.dumps` with `ensure_ascii=False` in Python.
    #[test]
    fn json_is_spelled_as_python_spells_it() {
        for (expression, expected) in [
            (r#"{"b": 1, "a": [true, none, 1.0]} | tojson"#, r#"{"b": 1, "a": [true, null, 1.0]}"#),
            (r#""<a href='x'>&\"\\" | tojson"#, r#""<a href='x'>&\"\\""#),
            (r#""é\n\t\u0001😀" | tojson"#, "\"é\\n\\t\\u0001😀\""),
            (r#""é😀" | tojson(ensure_ascii=true)"#, r#""\u00e9\ud83d\ude00""#),
            (r#""é" | tojson(true)"#, r#""\u00e9""#),
            (
                "[1e-7, 1e16, 123456789012345680.0, 0.1, 100000.0, -0.0] | tojson",
                "[1e-07, 1e+16, 1.2345678901234568e+17, 0.1, 100000.0, -0.0]",
            ),
            ("{1: 2, true: 3} | tojson", r#"{"1": 3}"#),
            ("{'b': 1, 'a': {'d': 2, 'c': 3}} | tojson(sort_keys=true)", r#"{"a": {"c": 3, "d": 2}, "b": 1}"#),
            ("{'a': [1, 2]} | tojson(separators=(',', ':'))", r#"{"a":[1,2]}"#),
            (
                "{'a': [1], 'b': [], 'c': {}} | tojson(indent=2)",
                "{\n  \"a\": [\n    1\n  ],\n  \"b\": [],\n  \"c\": {}\n}",
            ),
            ("[1, 2] | tojson(indent=0)", "[\n1,\n2\n]"),
            ("[1] | tojson(indent='\t')", "[\n\t1\n]"),
            ("(1, 2) | tojson", "[1, 2]"),
        ] {
            let template = ChatTemplate::new(&format!("{{{{ {expression} }}}}"), []).unwrap();
            assert_eq!(template.render(&Conversation::default()).unwrap(), expected, "{expression}");
        }
        for refused in
            ["nothing | tojson", "[1] | tojson(indent=17)", "1 | tojson(colour=1)", "[1] | tojson(separators=',')"]
        {
            let template = ChatTemplate::new(&format!("{{{{ {refused} }}}}"), []).unwrap();
            assert!(template.render(&Conversation::default()).is_err(), "{refused}");
        }
    }
}
