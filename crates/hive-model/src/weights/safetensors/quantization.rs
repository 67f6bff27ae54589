//! The quantization of an MLX folder's matrices, from its `config.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

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

/// The `quantization` of an MLX `config.json`: a default, and exceptions by name.
#[derive(Debug, Clone, Default)]
pub struct QuantizationTable {
    default: Option<Quantization>,
    /// `None` for a matrix that is not quantized.
    overrides: BTreeMap<String, Option<Quantization>>,
}

impl QuantizationTable {
    /// Reads the value of `quantization`; entries that are neither an override nor a known setting are ignored.
    ///
    /// # Errors
    /// A quantization mode that is not known, by name.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        let modes = value.as_object().into_iter().flat_map(|table| table.values()).chain([value]);
        let modes = modes.filter_map(|entry| entry.get("mode")?.as_str());
        if let Some(mode) = modes.into_iter().find(|mode| !["affine", "mxfp4", "nvfp4", "mxfp8"].contains(mode)) {
            return Err(mode.to_owned());
        }
        let overrides = value.as_object().into_iter().flatten().filter_map(|(name, entry)| match entry {
            serde_json::Value::Bool(false) => Some((of_text(name).into_owned(), None)),
            serde_json::Value::Object(_) => {
                Some((of_text(name).into_owned(), serde_json::from_value(entry.clone()).ok()))
            }
            _ => None,
        });
        Ok(Self { default: serde_json::from_value(value.clone()).ok(), overrides: overrides.collect() })
    }

    pub(super) fn of(&self, name: &str) -> Option<Quantization> {
        self.overrides.get(name).copied().unwrap_or(self.default)
    }
}
