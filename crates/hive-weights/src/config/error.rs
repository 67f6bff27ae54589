//! Why a configuration cannot be used.

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// The architecture is not implemented.
    #[error("the architecture \"{name}\" is not supported; supported are: {list}", list = known.join(", "))]
    Architecture {
        /// Its name in the file.
        name: String,
        /// Those that are.
        known: Vec<&'static str>,
    },
    /// A key is missing.
    #[error("the configuration has no {0}")]
    Missing(&'static str),
    /// A value is impossible.
    #[error("the configuration says {key} = {value}, which is not possible")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A feature of the family is not implemented.
    #[error("the configuration asks for {0}, which is not supported")]
    Unsupported(String),
}
