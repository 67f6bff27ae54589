//! GGUF metadata, as `hive-text` reads it.

use hive_text::metadata::{Items, Metadata};

use super::{Gguf, Numbers, Value};

impl Metadata for Gguf {
    fn string(&self, key: &str) -> Option<&str> {
        Gguf::string(self, key)
    }

    fn number(&self, key: &str) -> Option<u64> {
        Gguf::number(self, key)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn strings(&self, key: &str) -> Option<Items<'_, &str>> {
        Some(Box::new(Gguf::strings(self, key)?.iter()))
    }

    fn integers(&self, key: &str) -> Option<Items<'_, i64>> {
        Some(Box::new(self.numbers(key)?.integers()))
    }

    fn reals(&self, key: &str) -> Option<Vec<f64>> {
        self.numbers(key).and_then(Numbers::reals)
    }
}
