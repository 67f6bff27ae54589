//! A GGUF's metadata about text, by the format's own keys.

/// The items of a list, in order.
pub type Items<'a, T> = Box<dyn Iterator<Item = T> + 'a>;

/// The metadata of an open GGUF. A value of another type than requested counts as missing.
pub trait Metadata {
    /// A string.
    fn string(&self, key: &str) -> Option<&str>;

    /// A non-negative integer.
    fn number(&self, key: &str) -> Option<u64>;

    /// A boolean.
    fn flag(&self, key: &str) -> Option<bool>;

    /// A list of strings.
    fn strings(&self, key: &str) -> Option<Items<'_, &str>>;

    /// The integers of a list of numbers.
    fn integers(&self, key: &str) -> Option<Items<'_, i64>>;

    /// A list of real numbers.
    fn reals(&self, key: &str) -> Option<Vec<f64>>;
}
