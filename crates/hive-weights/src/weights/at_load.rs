//! Quantization of plain numbers as they are read, so that a model in 16 bits takes less memory.
//!
//! Matrices that are stored as numbers, in FP8 or in GGUF's plain types look like affine-quantized ones to whoever loads
//! them. Their numbers are those of MLX's `quantize`, to the bit.

use serde::{Deserialize, Serialize};

use super::packing::pack;
use super::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, to_f32};

/// Columns per scale: as many as mlx-lm takes by default, or fewer where a matrix has no whole groups of these.
const GROUPS: [usize; 2] = [64, 32];

/// The smallest step between two numbers, as MLX has it.
const LEAST_STEP: f32 = 1e-7;

/// How a model is quantized as it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct AtLoad {
    bits: u8,
}

impl AtLoad {
    /// The bits per weight that can be chosen.
    pub const BITS: [u8; 3] = [4, 6, 8];

    /// With this many bits per weight, if they are one of [`Self::BITS`].
    pub fn new(bits: u8) -> Option<Self> {
        Self::BITS.contains(&bits).then_some(Self { bits })
    }

    /// All choices.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::BITS.into_iter().map(|bits| Self { bits })
    }

    /// The bits per weight.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Quantizes a matrix of this name, unless it stays as it is.
    pub fn quantized(self, name: &str, matrix: FloatTensor) -> Matrix {
        let format = self.format_of(name, MatrixFormat::Float(matrix.float), matrix.shape[1]);
        in_format(Matrix::Float(matrix), format)
    }

    /// The format that a stored matrix gets: the stored one, if it is quantized already, decides where tokens go, or has
    /// no whole groups of columns.
    pub(super) fn format_of(self, name: &str, stored: MatrixFormat, columns: usize) -> MatrixFormat {
        let MatrixFormat::Float(float) = stored else { return stored };
        let group = GROUPS.into_iter().find(|group| columns.is_multiple_of(*group));
        match group.filter(|_| !is_kept(name)) {
            Some(group) => MatrixFormat::Quantized { bits: self.bits.into(), group, float, multiple: None },
            None => stored,
        }
    }
}

impl TryFrom<u8> for AtLoad {
    type Error = String;

    fn try_from(bits: u8) -> Result<Self, String> {
        Self::new(bits).ok_or_else(|| format!("{bits} bits per weight, instead of one of {:?}", Self::BITS))
    }
}

impl From<AtLoad> for u8 {
    fn from(AtLoad { bits }: AtLoad) -> Self {
        bits
    }
}

/// Whether a matrix stays as it is: routers, which are small and sensitive, and what is converted after it is read.
fn is_kept(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    matches!(last, "gate" | "router" | "shared_expert_gate" | "kv_b_proj") || name.ends_with("router.proj")
}

/// Rows of a matrix in the format that [`AtLoad::format_of`] chose.
pub(super) fn in_format(matrix: Matrix, format: MatrixFormat) -> Matrix {
    match (matrix, format) {
        (Matrix::Float(tensor), MatrixFormat::Quantized { bits, group, .. }) => {
            Matrix::Quantized(quantized(&tensor, bits, group))
        }
        (matrix, _) => matrix,
    }
}

fn quantized(FloatTensor { float, shape, bytes }: &FloatTensor, bits: usize, group: usize) -> QuantizedMatrix {
    let [rows, columns] = [shape[0], shape[1]];
    let groups = rows * columns / group;
    let mut words = Vec::with_capacity(rows * columns * bits / 8);
    let [mut scales, mut biases] = [(); 2].map(|()| Vec::with_capacity(groups * float.bytes()));
    let mut codes = vec![0u8; group];
    for stored in bytes.chunks_exact(group * float.bytes()) {
        let values = to_f32(*float, stored);
        let [scale, bias] = scale_and_bias(&values, bits);
        let most = ((1u32 << bits) - 1) as f32;
        for (code, value) in codes.iter_mut().zip(&values) {
            *code = rounded((value - bias) / scale).clamp(0.0, most) as u8;
        }
        pack(&codes, bits, &mut words);
        push(&mut scales, *float, scale);
        push(&mut biases, *float, bias);
    }
    QuantizedMatrix { rows, columns, bits, group, words, float: *float, scales, biases: Biases::Stored(biases) }
}

/// The scale and the bias of a group, such that the value furthest from zero is met.
fn scale_and_bias(values: &[f32], bits: usize) -> [f32; 2] {
    // Codes have no such numbers, so that what is computed with them would be finite, and wrong.
    if !values.iter().all(|value| value.is_finite()) {
        return [f32::NAN; 2];
    }
    let most = ((1u32 << bits) - 1) as f32;
    let (low, high) =
        values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (value.min(low), value.max(high)));
    let is_low_far = low.abs() > high.abs();
    let step = ((high - low) / most).max(LEAST_STEP);
    let step = if is_low_far { step } else { -step };
    let edge = if is_low_far { low } else { high };
    let steps = rounded(edge / step);
    if steps == 0.0 { [step, 0.0] } else { [edge / steps, edge] }
}

/// Rounds to the nearest integer, halves to even. Adding the number from which on a float has no fraction does that, and
/// unlike a call of `rint` it is done for many numbers at a time; larger ones have no fraction.
fn rounded(value: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    if value.abs() < WHOLE / 4.0 { (value + WHOLE) - WHOLE } else { value }
}

fn push(to: &mut Vec<u8>, float: Float, value: f32) {
    match float {
        Float::F32 => to.extend_from_slice(&value.to_le_bytes()),
        Float::F16 => to.extend_from_slice(&half::f16::from_f32(value).to_le_bytes()),
        Float::Bf16 => to.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_or_has_no_whole_groups_stays() {
        let four = AtLoad::new(4).unwrap();
        let float = MatrixFormat::Float(Float::Bf16);
        let of = |name: &str, columns| match four.format_of(name, float, columns) {
            MatrixFormat::Quantized { bits, group, .. } => Some((bits, group)),
            MatrixFormat::Float(_) => None,
        };
        assert_eq!(of("model.layers.0.mlp.gate_proj", 128), Some((4, 64)));
        assert_eq!(of("model.embed_tokens", 96), Some((4, 32)));
        assert_eq!(of("model.layers.0.mlp.down_proj", 100), None);
        for router in ["mlp.gate", "router.proj", "mlp.router", "mlp.shared_expert_gate", "self_attn.kv_b_proj"] {
            assert_eq!(of(&format!("model.layers.0.{router}"), 128), None, "{router}");
        }
        let eight = MatrixFormat::Quantized { bits: 8, group: 32, float: Float::F16, multiple: None };
        assert_eq!(four.format_of("lm_head", eight, 128), eight);
    }

    #[test]
    fn only_some_bits_can_be_chosen_also_on_the_wire() {
        assert_eq!(AtLoad::all().map(AtLoad::bits).collect::<Vec<_>>(), AtLoad::BITS);
        for bits in [0, 1, 5, 16, 255] {
            assert!(AtLoad::new(bits).is_none() && serde_json::from_str::<AtLoad>(&bits.to_string()).is_err());
        }
        assert_eq!(serde_json::from_str::<AtLoad>("6").unwrap(), AtLoad::new(6).unwrap());
    }

    #[test]
    fn a_number_that_is_none_is_not_made_one() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; 64];
            values[9] = bad;
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let matrix = quantized(&FloatTensor { float: Float::F32, shape: vec![1, 64], bytes }, 4, 64);
            assert!(matrix.row(0).iter().all(|value| value.is_nan()));
        }
    }

    #[test]
    fn rounding_is_to_even_and_leaves_what_is_whole() {
        for value in [0.0, 0.49, 0.5, 1.5, 2.5, -0.5, -1.5, 254.5, 1e6, 3e6, 4e6, 1e30, -7.3] {
            assert_eq!(rounded(value), value.round_ties_even(), "{value}");
        }
        assert!(rounded(f32::NAN).is_nan());
    }
}
