//! The quantization of an MLX folder's matrices, from its `config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::fp8::Fp8;
use crate::weights::block_floats::BlockFloat;
use crate::weights::names::of_text;

/// The quantization of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quantization {
    /// Columns per scale.
    pub group_size: usize,
    /// Bits per weight.
    pub bits: usize,
    /// What the bits are.
    #[serde(default)]
    pub mode: Mode,
}

/// What the bits of a quantized weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A whole number, with a scale and a bias per group.
    #[default]
    Affine,
    /// A floating-point number of 4 bits, with a power of two per group of 32.
    Mxfp4,
    /// The same with a scale of 8 bits per group of 16.
    Nvfp4,
    /// A floating-point number of 8 bits, with a power of two per group of 32.
    Mxfp8,
}

impl Mode {
    /// The kind of small floating-point numbers, if it is one.
    pub(super) fn block_float(self) -> Option<BlockFloat> {
        match self {
            Self::Affine => None,
            Self::Mxfp4 => Some(BlockFloat::Mxfp4),
            Self::Nvfp4 => Some(BlockFloat::Nvfp4),
            Self::Mxfp8 => Some(BlockFloat::Mxfp8),
        }
    }
}

/// The `quantization` of an MLX `config.json`: a default, and exceptions by name. Or how a checkpoint that is not MLX's
/// stores its weights in FP8.
#[derive(Debug, Clone, Default)]
pub struct QuantizationTable {
    /// Which weights are in FP8, their types say.
    pub(super) fp8: Option<Fp8>,
    default: Option<Quantization>,
    /// `None` for a matrix that is not quantized.
    overrides: BTreeMap<String, Option<Quantization>>,
}

impl QuantizationTable {
    /// Reads the value of `quantization`. What is neither an override nor a known setting is ignored.
    ///
    /// # Errors
    /// What is not supported: a mode, by its name, or numbers that are not there or cannot be.
    pub fn from_json(value: &Json) -> Result<Self, String> {
        let mut overrides = BTreeMap::new();
        for (name, entry) in value.as_object().into_iter().flatten() {
            let quantization = match entry {
                Json::Bool(false) => None,
                Json::Object(_) => read(entry).map_err(|why| format!("{why} of {name}"))?,
                _ => continue,
            };
            overrides.insert(of_text(name).into_owned(), quantization);
        }
        Ok(Self { fp8: None, default: read(value)?, overrides })
    }

    /// Of a folder with weights in FP8, or of one with weights that are not quantized.
    pub(crate) fn of_fp8(fp8: Option<Fp8>) -> Self {
        Self { fp8, ..Self::default() }
    }

    pub(super) fn of(&self, name: &str) -> Option<Quantization> {
        self.overrides.get(name).copied().unwrap_or(self.default)
    }
}

/// Reads a quantization; `None` if nothing is said of one.
fn read(entry: &Json) -> Result<Option<Quantization>, String> {
    if let Some(mode) = entry["mode"].as_str().filter(|mode| !["affine", "mxfp4", "nvfp4", "mxfp8"].contains(mode)) {
        return Err(format!("{mode} quantization"));
    }
    let keys = ["group_size", "bits", "mode"].map(|key| (key, &entry[key]));
    if keys.iter().all(|(_, value)| value.is_null()) {
        return Ok(None);
    }
    let words = || keys.map(|(key, value)| format!("{key} = {value}")).join(", ");
    Quantization::deserialize(entry).map(Some).map_err(|_| format!("quantization with {}", words()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quantization_without_its_numbers_is_not_none() {
        let table = |value: Json| QuantizationTable::from_json(&value);
        for nothing in [json!(null), json!({}), json!({ "quant_method": "mlx", "skipped": ["a"] })] {
            assert_eq!(table(nothing).unwrap().of("a"), None);
        }
        let four = Quantization { group_size: 64, bits: 4, mode: Mode::Affine };
        let eight = json!({ "group_size": 32, "bits": 8, "mode": "affine" });
        let mixed = table(json!({ "group_size": 64, "bits": 4, "a": false, "b": {}, "c": eight })).unwrap();
        assert_eq!(["a", "b", "d"].map(|name| mixed.of(name)), [None, None, Some(four)]);
        assert_eq!(mixed.of("c"), Some(Quantization { group_size: 32, bits: 8, ..four }));
        for (value, words) in [
            (json!({ "bits": 8 }), "quantization with group_size = null, bits = 8, mode = null"),
            (json!({ "bits": "4", "group_size": 64 }), "bits = \"4\""),
            (json!({ "bits": 4, "group_size": -1 }), "group_size = -1"),
            (json!({ "bits": 4, "group_size": 64, "mode": 1 }), "mode = 1"),
            (json!({ "bits": 4, "group_size": 64, "mode": "int4" }), "int4 quantization"),
            (json!({ "bits": 4, "group_size": 64, "a.b": { "bits": 8 } }), "mode = null of a.b"),
            (json!({ "bits": 4, "group_size": 64, "a.b": { "mode": "awq" } }), "awq quantization of a.b"),
        ] {
            let why = table(value).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
