//! Hidden states as they travel between stages: raw numbers of the model's activation type.

use half::{bf16, f16};

use crate::weights::Float;

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
    /// Tokens.
    pub rows: usize,
    /// Width of a hidden state.
    pub width: usize,
    /// `rows × width` numbers.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Sizes only: what a person wrote can be read back from hidden states, so they belong in no log.
impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hidden({} × {} {:?})", self.rows, self.width, self.activation)
    }
}

impl Hidden {
    /// Whether the bytes are as many as rows, width and type say.
    pub fn is_consistent(&self) -> bool {
        let expected = self.rows.checked_mul(self.width).and_then(|n| n.checked_mul(self.activation.bytes()));
        expected == Some(self.bytes.len())
    }

    /// Whether every number is finite. A stage that computed nonsense is caught here, before its neighbour uses it.
    pub fn is_finite(&self) -> bool {
        let pairs = || self.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        match self.activation {
            ActivationType::F32 => {
                self.bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
            }
            ActivationType::F16 => pairs().all(|bits| f16::from_bits(bits).is_finite()),
            ActivationType::Bf16 => pairs().all(|bits| bf16::from_bits(bits).is_finite()),
        }
    }
}
