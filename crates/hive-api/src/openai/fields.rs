//! Reads request fields the way clients send them.
//!
//! `null` counts as a missing field, `100.0` as a whole number and `"0.7"` as a number: clients in the wild send all of
//! these. An unreadable field is refused by name, with the expected and the actual value.

use serde_json::{Map, Value};

/// 2^53: up to here, an `f64` represents every whole number exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// An unreadable field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} must be {wanted}; it is {found}", quoted(field))]
pub(crate) struct FieldError {
    /// Its path, such as `messages[2].content`; empty for the request itself.
    pub(crate) field: String,
    wanted: &'static str,
    found: String,
}

fn quoted(field: &str) -> String {
    if field.is_empty() { "the request".to_owned() } else { format!("\"{field}\"") }
}

/// An object whose fields are taken one by one; whatever remains was not understood.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The object's path; empty for the request itself.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Result<Self, FieldError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(error(path, "an object", &other)),
        }
    }

    /// The path of a field of this object.
    pub(crate) fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field as it is; `null` counts as missing.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        name: &str,
        wanted: &'static str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(value).map(Some).map_err(|value| error(self.place(name), wanted, &value))
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f32>, FieldError> {
        self.read(name, "a number", |value| number(&value).map(|number| number as f32).ok_or(value))
    }

    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<f64>, FieldError> {
        self.read(name, "a number of seconds", |value| number(&value).filter(|seconds| *seconds >= 0.0).ok_or(value))
    }

    pub(crate) fn whole(&mut self, name: &str) -> Result<Option<i64>, FieldError> {
        self.read(name, "a whole number", |value| whole(&value).ok_or(value))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        self.read(name, "true or false", |value| match value {
            Value::Bool(flag) => Ok(flag),
            Value::String(text) => text.parse().map_err(|_| Value::String(text)),
            other => Err(other),
        })
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, FieldError> {
        self.read(name, "text", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, FieldError> {
        self.read(name, "a list", |value| match value {
            Value::Array(items) => Ok(items),
            other => Err(other),
        })
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, FieldError> {
        let place = self.place(name);
        self.take(name).map(|value| Self::new(place, value)).transpose()
    }

    /// The fields not taken, except those that are `null`.
    pub(crate) fn rest(mut self) -> Map<String, Value> {
        self.map.retain(|_, value| !value.is_null());
        self.map
    }
}

/// The error for a required field that is missing.
pub(crate) fn missing(field: String, wanted: &'static str) -> FieldError {
    FieldError { field, wanted, found: "missing".to_owned() }
}

/// The error for a field of the wrong type or value.
pub(crate) fn error(field: String, wanted: &'static str, value: &Value) -> FieldError {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= 40 => format!("\"{text}\""),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    FieldError { field, wanted, found }
}

/// A number, or a string that contains one.
pub(crate) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// A whole number, also if written as `100.0` or as a string. Large seeds keep every bit.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) if !number.is_f64() => number.as_i64().or_else(|| Some(number.as_u64()? as i64)),
        Value::String(text) if text.trim().parse::<i64>().is_ok() => text.trim().parse().ok(),
        _ => number(value).filter(|number| number.fract() == 0.0 && number.abs() <= EXACT).map(|number| number as i64),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::new("", value).unwrap()
    }

    #[test]
    fn numbers_are_read_as_clients_write_them() {
        for (value, whole) in [(json!(7), Some(7)), (json!(7.0), Some(7)), (json!("7"), Some(7)), (json!(-1), Some(-1))]
        {
            assert_eq!(fields(json!({ "a": value })).whole("a").unwrap(), whole, "{value}");
        }
        assert_eq!(fields(json!({ "a": u64::MAX })).whole("a").unwrap(), Some(-1), "a seed keeps its bits");
        assert_eq!(fields(json!({ "a": null })).whole("a").unwrap(), None);
        assert_eq!(fields(json!({ "a": "0.5" })).number("a").unwrap(), Some(0.5));
        for wrong in [json!(7.5), json!("many"), json!([7]), json!(true), json!(1e300)] {
            let message = fields(json!({ "a": wrong })).whole("a").unwrap_err().to_string();
            assert!(message.starts_with("\"a\" must be a whole number; it is "), "{message}");
        }
        assert_eq!(
            fields(json!({ "a": "NaN" })).number("a").unwrap_err().to_string(),
            "\"a\" must be a number; it is \"NaN\""
        );
    }

    #[test]
    fn a_field_is_named_with_its_place() {
        let mut request = fields(json!({ "options": { "usage": 5 } }));
        let mut options = request.object("options").unwrap().unwrap();
        let message = options.flag("usage").unwrap_err().to_string();
        assert_eq!(message, "\"options.usage\" must be true or false; it is 5");
        let message = Fields::new("", json!([1])).unwrap_err().to_string();
        assert_eq!(message, "the request must be an object; it is a list");
    }

    #[test]
    fn what_was_not_taken_is_left() {
        let mut request = fields(json!({ "a": 1, "taken": 2, "b": null, "c": 3 }));
        assert_eq!(request.whole("taken").unwrap(), Some(2));
        assert_eq!(request.rest().keys().collect::<Vec<_>>(), ["a", "c"]);
    }
}
