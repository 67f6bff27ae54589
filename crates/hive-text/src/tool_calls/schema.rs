//! Which arguments are text: some formats write text and numbers alike.

use std::collections::BTreeSet;

use serde_json::Value as Json;

/// The arguments that are text, of every tool.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    texts: BTreeSet<(String, String)>,
}

impl Schema {
    /// From the tools that a request offers, in the form of the `OpenAI` API.
    pub fn new(tools: &Json) -> Self {
        let tools = tools.as_array().into_iter().flatten();
        let tools = tools.map(|tool| tool.get("function").unwrap_or(tool));
        let texts = tools.flat_map(|tool| {
            let name = tool["name"].as_str().unwrap_or_default();
            let arguments = tool["parameters"]["properties"].as_object().into_iter().flatten();
            let texts = arguments.filter(|(_, about)| about["type"] == "string");
            texts.map(move |(argument, _)| (name.to_owned(), argument.clone()))
        });
        Self { texts: texts.collect() }
    }

    /// The value of an argument. It is text if the tool wants text, and otherwise JSON if it reads as such.
    pub(super) fn value(&self, tool: &str, argument: &str, written: &str) -> Json {
        let is_text = self.texts.contains(&(tool.to_owned(), argument.to_owned()));
        let text = || Json::String(written.to_owned());
        if is_text { text() } else { serde_json::from_str(written.trim()).unwrap_or_else(|_| text()) }
    }
}
