//! Values as Python prints them.

use std::fmt::Write as _;

use minijinja::Value;
use minijinja::value::ValueKind;

/// A float as in `repr`: the shortest digits that round-trip, with an exponent from 1e16 up and below 1e-4.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Whether a value contains a number that Python prints differently from the template engine.
fn needs_python(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Number => !value.is_integer(),
        ValueKind::Seq => value.try_iter().is_ok_and(|mut items| items.any(|item| needs_python(&item))),
        ValueKind::Map => value.try_iter().is_ok_and(|mut keys| {
            keys.any(|key| needs_python(&key) || value.get_item(&key).is_ok_and(|item| needs_python(&item)))
        }),
        _ => false,
    }
}

/// `str(value)`, where the engine's own form differs. The value has been checked to be writable.
pub(super) fn text(value: &Value) -> Option<String> {
    needs_python(value).then(|| {
        let mut out = String::new();
        write_repr(&mut out, value);
        out
    })
}

fn write_repr(out: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            out.push_str(&f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float));
        }
        ValueKind::Seq => {
            let [open, close] = if value.is_tuple() { ['(', ')'] } else { ['[', ']'] };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                separate(out, count);
                write_repr(out, &item);
                count += 1;
            }
            if value.is_tuple() && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (count, key) in value.try_iter().into_iter().flatten().enumerate() {
                separate(out, count);
                write_repr(out, &key);
                out.push_str(": ");
                write_repr(out, &value.get_item(&key).unwrap_or_default());
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value:?}");
        }
    }
}

fn separate(out: &mut String, count: usize) {
    if count > 0 {
        out.push_str(", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{ChatTemplate, Conversation};

    #[test]
    fn floats_are_spelled_as_python_spells_them() {
        for (number, expected) in [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (-0.0, "-0.0"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn lists_with_floats_are_printed_as_python_prints_them() {
        let template =
            ChatTemplate::new("{{ [1e16, 'it\\'s', (1.0,), {'a': 1e-7}] }}|{{ 1e16 }}|{{ [1, 'a'] }}", []).unwrap();
        let text = template.render(&Conversation::default()).unwrap();
        assert_eq!(text, r#"[1e+16, "it's", (1.0,), {'a': 1e-07}]|1e+16|[1, 'a']"#);
    }
}
