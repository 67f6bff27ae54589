//! A call, whatever its format.

use serde_json::{Map, Value as Json};

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// Its arguments, by name.
    pub arguments: Map<String, Json>,
}
