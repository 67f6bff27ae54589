//! Calls as JSON objects.

use serde_json::{Map, Value as Json};

use super::call::Call;

/// `{"name": …, "arguments": {…}}`.
pub(super) fn call(text: &str) -> Option<Call> {
    from_object(serde_json::from_str(text).ok()?)
}

/// A call from its object. Some models write `parameters`, and a tool without arguments may have none.
pub(super) fn from_object(mut object: Map<String, Json>) -> Option<Call> {
    let name = object.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
    let given = object.remove("arguments").or_else(|| object.remove("parameters"));
    Some(Call { name, arguments: arguments(given.unwrap_or_default())? })
}

/// Arguments from their value, which may be JSON in a text once more.
fn arguments(value: Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(arguments) => Some(arguments),
        Json::String(text) => object(&text),
        Json::Null => Some(Map::new()),
        _ => None,
    }
}

/// Arguments from their text.
pub(super) fn object(text: &str) -> Option<Map<String, Json>> {
    serde_json::from_str(text).ok()
}
