//! Calls of GLM: a name, then pairs of `<arg_key>` and `<arg_value>`.

use serde_json::Map;

use super::call::Call;
use super::schema::Schema;

pub(super) fn call(text: &str, schema: &Schema) -> Option<Call> {
    let text = text.strip_prefix("<tool_call>")?.strip_suffix("</tool_call>")?;
    let (name, mut rest) = text.split_at(text.find("<arg_key>").unwrap_or(text.len()));
    let name = name.trim();
    let mut arguments = Map::new();
    while !rest.trim_start().is_empty() {
        let (key, after) = rest.trim_start().strip_prefix("<arg_key>")?.split_once("</arg_key>")?;
        let (value, after) = after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
        arguments.insert(key.trim().to_owned(), schema.value(name, key.trim(), value));
        rest = after;
    }
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "{<>".contains(c));
    is_name.then(|| Call { name: name.to_owned(), arguments })
}
