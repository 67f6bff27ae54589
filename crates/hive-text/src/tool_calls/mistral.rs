//! Calls of Mistral: a list of JSON objects, or a name and its arguments for each. They end the answer.

use serde_json::{Map, Value as Json};

use super::call::Call;
use super::json;

const BEGIN: &str = "[TOOL_CALLS]";

pub(super) fn calls(text: &str) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    for part in text.split(BEGIN).skip(1).map(str::trim) {
        if let Ok(objects) = serde_json::from_str::<Vec<Map<String, Json>>>(part) {
            calls.extend(objects.into_iter().map(json::from_object).collect::<Option<Vec<_>>>()?);
        } else {
            let (name, arguments) = part.split_once("[ARGS]")?;
            let name = name.split_once("[CALL_ID]").map_or(name, |(name, _)| name).trim();
            let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
            calls.push(
                is_name.then(|| json::object(arguments))?.map(|arguments| Call { name: name.to_owned(), arguments })?,
            );
        }
    }
    (!calls.is_empty()).then_some(calls)
}
