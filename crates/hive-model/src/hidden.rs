//! Hidden states as they travel between stages: raw numbers of the model's activation type.

use half::{bf16, f16};
use hive_weights::weights::Float;

/// The number format of hidden states and of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ActivationType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl ActivationType {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The largest finite number.
    fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    pub(crate) fn mlx(self) -> mlx_rs::Dtype {
        match self {
            Self::F32 => mlx_rs::Dtype::Float32,
            Self::F16 => mlx_rs::Dtype::Float16,
            Self::Bf16 => mlx_rs::Dtype::Bfloat16,
        }
    }
}

impl From<Float> for ActivationType {
    fn from(float: Float) -> Self {
        match float {
            Float::F32 => Self::F32,
            Float::F16 => Self::F16,
            Float::Bf16 => Self::Bf16,
        }
    }
}

/// The hidden states of some consecutive tokens, `[rows, width]` row-major, little-endian.
#[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Hidden {
    /// Number format.
    pub activation: ActivationType,
    /// The number of tokens.
    pub rows: usize,
    /// Width of a hidden state.
    pub width: usize,
    /// `rows × width` numbers.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Prints sizes only: prompts can be reconstructed from hidden states, so they must not be logged.
impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hidden({} × {} {:?})", self.rows, self.width, self.activation)
    }
}

impl Hidden {
    /// Whether the number of bytes matches rows, width and type.
    pub fn is_consistent(&self) -> bool {
        let expected = self.rows.checked_mul(self.width).and_then(|n| n.checked_mul(self.activation.bytes()));
        expected == Some(self.bytes.len())
    }

    /// Whether every number is finite. A stage that computed nonsense is caught here, before its neighbour uses it.
    pub fn is_finite(&self) -> bool {
        bytes_are_finite(self.activation, &self.bytes)
    }

    /// Whether every number is finite and remains so in another type.
    pub(crate) fn is_finite_as(&self, activation: ActivationType) -> bool {
        self.is_finite() && (activation.largest() >= self.activation.largest() || self.is_within(activation.largest()))
    }

    /// Whether adding a few such numbers stays within the range of a type.
    pub(crate) fn has_headroom_as(&self, activation: ActivationType) -> bool {
        self.is_within(activation.largest() / 16.0)
    }

    fn is_within(&self, limit: f32) -> bool {
        let beyond = |number: f32| number.is_nan() || number.abs() > limit;
        match self.activation {
            ActivationType::F32 => none(&self.bytes, |b: [u8; 4]| beyond(f32::from_le_bytes(b))),
            ActivationType::F16 => none(&self.bytes, |b: [u8; 2]| beyond(f16::from_le_bytes(b).to_f32())),
            ActivationType::Bf16 => none(&self.bytes, |b: [u8; 2]| beyond(bf16::from_le_bytes(b).to_f32())),
        }
    }
}

/// Whether every number of a type is finite.
pub(crate) fn bytes_are_finite(activation: ActivationType, bytes: &[u8]) -> bool {
    match activation {
        ActivationType::F32 => none(bytes, |b: [u8; 4]| !f32::from_le_bytes(b).is_finite()),
        ActivationType::F16 => none(bytes, |b: [u8; 2]| !f16::from_le_bytes(b).is_finite()),
        ActivationType::Bf16 => none(bytes, |b: [u8; 2]| !bf16::from_le_bytes(b).is_finite()),
    }
}

/// Whether `is` holds for none of the numbers, of `N` bytes each.
fn none<const N: usize>(bytes: &[u8], is: impl Fn([u8; N]) -> bool) -> bool {
    // No early exit, so that the compiler vectorizes: this runs for every token.
    let (numbers, _) = bytes.as_chunks();
    !numbers.iter().fold(false, |found, &number| found | is(number))
}

/// Whether every number is finite.
pub(crate) fn all_finite(numbers: &[f32]) -> bool {
    numbers.iter().fold(true, |finite, number| finite & number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(activation: ActivationType, numbers: &[f32]) -> Hidden {
        let bytes = numbers.iter().flat_map(|&number| match activation {
            ActivationType::F32 => number.to_le_bytes().to_vec(),
            ActivationType::F16 => f16::from_f32(number).to_le_bytes().to_vec(),
            ActivationType::Bf16 => bf16::from_f32(number).to_le_bytes().to_vec(),
        });
        Hidden { activation, rows: 1, width: numbers.len(), bytes: bytes.collect() }
    }

    #[test]
    fn one_number_that_is_not_finite_is_found_wherever_it_is() {
        for activation in [ActivationType::F32, ActivationType::F16, ActivationType::Bf16] {
            assert!(hidden(activation, &[1.5; 67]).is_finite());
            for (at, bad) in (0..67).zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle()) {
                let mut numbers = [1.5; 67];
                numbers[at] = bad;
                assert!(!hidden(activation, &numbers).is_finite(), "{activation:?} {at}");
            }
        }
    }

    #[test]
    fn a_number_that_another_type_cannot_hold_is_not_finite_there() {
        use ActivationType::{Bf16, F16, F32};
        assert!(hidden(F32, &[65504.0]).is_finite_as(F16));
        assert!(!hidden(F32, &[70_000.0]).is_finite_as(F16));
        assert!(!hidden(Bf16, &[-70_000.0]).is_finite_as(F16));
        assert!(!hidden(F32, &[f32::MAX]).is_finite_as(Bf16));
        assert!(hidden(Bf16, &[1e38]).is_finite_as(F32));
        assert!(!hidden(F32, &[f32::NAN]).is_finite_as(F16));
    }

    #[test]
    fn numbers_near_the_end_of_the_range_have_no_headroom() {
        assert!(hidden(ActivationType::F32, &[1e30]).has_headroom_as(ActivationType::F32));
        assert!(!hidden(ActivationType::F32, &[3e38]).has_headroom_as(ActivationType::F32));
        assert!(!hidden(ActivationType::F32, &[60_000.0]).has_headroom_as(ActivationType::F16));
    }
}
