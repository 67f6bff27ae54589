//! Calls of Qwen 3 Coder: `<function=NAME>` around `<parameter=KEY>` and values with line breaks around them.

use serde_json::Map;

use super::call::Call;
use super::schema::Schema;

/// Reads a call, with or without `<tool_call>` around it.
pub(super) fn call(text: &str, schema: &Schema) -> Option<Call> {
    let text = text.strip_prefix("<tool_call>").unwrap_or(text).trim_start();
    let (name, mut rest) = text.strip_prefix("<function=")?.split_once('>')?;
    let name = name.trim();
    let mut arguments = Map::new();
    while let Some(parameter) = rest.trim_start().strip_prefix("<parameter=") {
        let (key, value) = parameter.split_once('>')?;
        let (value, after) = value.split_once("</parameter>")?;
        arguments.insert(key.trim().to_owned(), schema.value(name, key.trim(), without_frame(value)));
        rest = after;
    }
    let after = rest.trim_start().strip_prefix("</function>")?.trim();
    let is_complete = !name.is_empty() && (after.is_empty() || after == "</tool_call>");
    is_complete.then(|| Call { name: name.to_owned(), arguments })
}

/// A value without the line break before and after it.
fn without_frame(value: &str) -> &str {
    let value = value.strip_prefix('\n').unwrap_or(value);
    value.strip_suffix('\n').unwrap_or(value)
}
