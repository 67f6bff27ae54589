//! Calls of Kimi K2: a section of calls, each with an id that holds the tool's name.

use super::call::Call;
use super::json;

pub(super) fn calls(section: &str) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    let mut rest = section;
    while !rest.is_empty() {
        let (id, after) = rest.strip_prefix("<|tool_call_begin|>")?.split_once("<|tool_call_argument_begin|>")?;
        // The last one's end may be cut off.
        let (arguments, after) = after.split_once("<|tool_call_end|>").unwrap_or((after, ""));
        calls.push(Call { name: name(id.trim())?.to_owned(), arguments: json::object(arguments)? });
        rest = after.trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

/// The name in an id such as `functions.search:0`.
fn name(id: &str) -> Option<&str> {
    let id = id.strip_prefix("functions.").unwrap_or(id);
    let name = id.rsplit_once(':').filter(|(_, count)| count.parse::<u32>().is_ok()).map_or(id, |(name, _)| name);
    (!name.is_empty()).then_some(name)
}
