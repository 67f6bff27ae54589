//! What a GGUF says of its text, asked for by the format's own keys.

/// The items of a list, one after the other.
pub type Items<'a, T> = Box<dyn Iterator<Item = T> + 'a>;

/// The metadata of an open GGUF. What is of another type than the one asked for is not there.
pub trait Metadata {
    /// A text.
    fn string(&self, key: &str) -> Option<&str>;

    /// A whole number, not a negative one.
    fn number(&self, key: &str) -> Option<u64>;

    /// A truth value.
    fn flag(&self, key: &str) -> Option<bool>;

    /// A list of texts.
    fn strings(&self, key: &str) -> Option<Items<'_, &str>>;

    /// The whole numbers of a list of numbers.
    fn integers(&self, key: &str) -> Option<Items<'_, i64>>;

    /// A list of real numbers.
    fn reals(&self, key: &str) -> Option<Vec<f64>>;
}
