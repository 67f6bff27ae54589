//! ggml's block formats, and their conversion to MLX's affine quantization.
//!
//! ggml stores a group of 32 weights as one block: its scale (and minimum) as half floats, then the weights. A 4-bit
//! block stores element j in the low half of byte j and element j + 16 in the high half; MLX packs consecutive elements
//! from the low bits of 32-bit words. All three formats convert exactly.

use std::fmt;

use crate::weights::{Biases, Float, MatrixFormat, QuantizedMatrix};

/// Weights per block, in every supported quantized format.
const GROUP: usize = 32;

/// The storage format of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
    /// A type of unknown size; such a tensor can be skipped but not loaded.
    Other(u32),
}

impl BlockType {
    pub(super) fn from_ggml(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    pub(super) fn elements(self) -> u64 {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => GROUP as u64,
            _ => 1,
        }
    }

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Other(_) => 0,
        }
    }

    pub(super) fn float(self) -> Option<Float> {
        match self {
            Self::F32 => Some(Float::F32),
            Self::F16 => Some(Float::F16),
            Self::Bf16 => Some(Float::Bf16),
            _ => None,
        }
    }

    /// The format that a matrix of it becomes; `None` if it is not supported.
    pub(super) fn format(self) -> Option<MatrixFormat> {
        let affine =
            |multiple| MatrixFormat::Quantized { bits: self.bits(), group: GROUP, float: Float::F16, multiple };
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => self.float().map(MatrixFormat::Float),
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => Some(affine(self.multiple())),
            Self::Other(_) => None,
        }
    }

    /// Bits of a quantized weight.
    fn bits(self) -> usize {
        if self == Self::Q8_0 { 8 } else { 4 }
    }

    /// These count from the middle of their range, so the smallest weight is this multiple of the scale. A power of two
    /// keeps the product exact.
    fn multiple(self) -> Option<f32> {
        match self {
            Self::Q4_0 => Some(-8.0),
            Self::Q8_0 => Some(-128.0),
            _ => None,
        }
    }

    /// Converts a matrix of `Q4_0`, `Q4_1` or `Q8_0` blocks to an affine one with groups of 32.
    pub(super) fn to_affine(self, blocks: &[u8], rows: usize, columns: usize) -> QuantizedMatrix {
        let (bits, groups) = (self.bits(), rows * columns / GROUP);
        let mut words = Vec::with_capacity(groups * GROUP * bits / 8);
        let mut scales = Vec::with_capacity(groups * 2);
        let mut biases = Vec::with_capacity(if self == Self::Q4_1 { groups * 2 } else { 0 });
        for block in blocks.chunks_exact(self.bytes() as usize) {
            scales.extend_from_slice(&block[..2]);
            match self {
                Self::Q8_0 => words.extend(block[2..].iter().map(|q| q ^ 0x80)),
                _ => pack_nibbles(&block[block.len() - 16..], &mut words),
            }
            if self == Self::Q4_1 {
                biases.extend_from_slice(&block[2..4]);
            }
        }
        let biases = self.multiple().map_or(Biases::Stored(biases), Biases::Multiple);
        QuantizedMatrix { rows, columns, bits, group: GROUP, words, float: Float::F16, scales, biases }
    }
}

/// Reorders elements j and j + 16 of each byte into consecutive elements.
fn pack_nibbles(quants: &[u8], words: &mut Vec<u8>) {
    words.extend(quants.chunks_exact(2).map(|pair| (pair[0] & 15) | (pair[1] << 4)));
    words.extend(quants.chunks_exact(2).map(|pair| (pair[0] >> 4) | (pair[1] & 0xf0)));
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: &[(u32, &str)] = &[
            (6, "Q5_0"),
            (7, "Q5_1"),
            (9, "Q8_1"),
            (10, "Q2_K"),
            (11, "Q3_K"),
            (12, "Q4_K"),
            (13, "Q5_K"),
            (14, "Q6_K"),
            (15, "Q8_K"),
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (20, "IQ4_NL"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
            (23, "IQ4_XS"),
            (24, "I8"),
            (25, "I16"),
            (26, "I32"),
            (27, "I64"),
            (28, "F64"),
            (29, "IQ1_M"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (39, "MXFP4"),
        ];
        match self {
            Self::Other(number) => match NAMES.iter().find(|(known, _)| known == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "ggml type {number}"),
            },
            known => write!(f, "{}", format!("{known:?}").to_uppercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    /// Unpacks an affine matrix as MLX would.
    fn values(matrix: &QuantizedMatrix) -> Vec<f32> {
        let scales = crate::weights::to_f32(matrix.float, &matrix.scales);
        let biases = matrix.biases.of(&matrix.scales, matrix.float, Into::into);
        let biases = crate::weights::to_f32(matrix.float, &biases);
        (0..matrix.rows * matrix.columns)
            .map(|i| {
                let byte = matrix.words[i * matrix.bits / 8];
                let q = if matrix.bits == 8 { byte } else { (byte >> (4 * (i % 2))) & 15 };
                scales[i / GROUP] * f32::from(q) + biases[i / GROUP]
            })
            .collect()
    }

    #[test]
    fn every_format_keeps_its_values_and_their_order() {
        let d = f16::from_f32(0.5);
        let nibble = |i: usize| (i * 7 % 16) as u8;
        let packed: Vec<u8> = (0..16).map(|j| nibble(j) | (nibble(j + 16) << 4)).collect();

        let q4_0: Vec<u8> = [&d.to_le_bytes()[..], &packed].concat();
        let expected: Vec<f32> = (0..32).map(|i| 0.5 * (f32::from(nibble(i)) - 8.0)).collect();
        assert_eq!(values(&BlockType::Q4_0.to_affine(&q4_0, 1, 32)), expected);

        let q4_1: Vec<u8> = [&d.to_le_bytes()[..], &f16::from_f32(-3.0).to_le_bytes(), &packed].concat();
        let expected: Vec<f32> = (0..32).map(|i| 0.5 * f32::from(nibble(i)) - 3.0).collect();
        assert_eq!(values(&BlockType::Q4_1.to_affine(&q4_1, 1, 32)), expected);

        let bytes: Vec<i8> = (0..32).map(|i| (i * 17 % 255) as i8).collect();
        let q8_0: Vec<u8> = d.to_le_bytes().into_iter().chain(bytes.iter().map(|&b| b as u8)).collect();
        let expected: Vec<f32> = bytes.iter().map(|&b| 0.5 * f32::from(b)).collect();
        assert_eq!(values(&BlockType::Q8_0.to_affine(&q8_0, 1, 32)), expected);
    }
}
