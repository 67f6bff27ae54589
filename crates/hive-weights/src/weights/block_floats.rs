//! Floating-point numbers of 4 or 8 bits in groups, with a scale of one byte for each: OCP's MXFP4 and MXFP8, NVIDIA's
//! NVFP4.
//!
//! MLX's kernels compute with them as they are. All others get the same numbers in a format that they have: the doubled
//! numbers of 4 bits are whole and at most 12, so they convert exactly to 5-bit affine quantization; those of 8 bits, with
//! a power of two for a scale, to bfloat16.

use super::packing::pack;
use super::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix};

/// What the codes of 4 bits stand for, doubled.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// What is added to the doubled numbers so that none is negative. A power of two keeps the bias exact.
pub(crate) const OFFSET: u8 = 16;

/// A kind of them, as MLX has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFloat {
    /// 4 bits in groups of 32, each with a power of two.
    Mxfp4,
    /// 4 bits in groups of 16, each with a scale of 8 bits (E4M3).
    Nvfp4,
    /// 8 bits (E4M3) in groups of 32, each with a power of two.
    Mxfp8,
}

impl BlockFloat {
    /// Numbers per scale.
    pub fn group(self) -> usize {
        if self == Self::Nvfp4 { 16 } else { 32 }
    }

    /// Bits per number.
    pub fn bits(self) -> usize {
        if self == Self::Mxfp8 { 8 } else { 4 }
    }

    /// MLX's name for it.
    pub fn mode(self) -> &'static std::ffi::CStr {
        match self {
            Self::Mxfp4 => c"mxfp4",
            Self::Nvfp4 => c"nvfp4",
            Self::Mxfp8 => c"mxfp8",
        }
    }

    /// Bytes per row of this many columns: of the codes, and of the scales.
    pub fn row_bytes(self, columns: usize) -> [usize; 2] {
        [columns * self.bits() / 8, columns / self.group()]
    }

    /// The format that holds the same numbers for kernels that do not have them.
    pub(crate) fn format(self) -> MatrixFormat {
        match self {
            Self::Mxfp4 | Self::Nvfp4 => MatrixFormat::Quantized {
                bits: 5,
                group: self.group(),
                float: Float::F32,
                multiple: Some(-f32::from(OFFSET)),
            },
            Self::Mxfp8 => MatrixFormat::Float(Float::Bf16),
        }
    }

    /// Converts rows of codes and their scales to that format. Codes of 4 bits lie two to a byte, the first in the low half.
    pub(crate) fn converted(self, codes: &[u8], scales: &[u8], rows: usize, columns: usize) -> Matrix {
        if self == Self::Mxfp8 {
            let groups = codes.chunks_exact(self.group()).zip(scales);
            let number = |code: u8, power: f32| half::bf16::from_f32(e4m3(code) * power).to_le_bytes();
            let bytes = groups.flat_map(|(group, scale)| {
                let power = 2.0 * half_power_of_two(*scale);
                group.iter().flat_map(move |code| number(*code, power))
            });
            return Matrix::Float(FloatTensor {
                float: Float::Bf16,
                shape: vec![rows, columns],
                bytes: bytes.collect(),
            });
        }
        let number = |code: u8| OFFSET.wrapping_add_signed(DOUBLED[usize::from(code)]);
        let numbers: Vec<u8> = codes.iter().flat_map(|byte| [number(byte & 15), number(byte >> 4)]).collect();
        let mut words = Vec::with_capacity(numbers.len() * 5 / 8);
        pack(&numbers, 5, &mut words);
        let scale = |byte: u8| if self == Self::Nvfp4 { e4m3(byte) / 2.0 } else { half_power_of_two(byte) };
        Matrix::Quantized(QuantizedMatrix {
            rows,
            columns,
            bits: 5,
            group: self.group(),
            words,
            float: Float::F32,
            scales: scales.iter().flat_map(|byte| scale(*byte).to_le_bytes()).collect(),
            biases: Biases::Multiple(-f32::from(OFFSET)),
        })
    }
}

/// The scale of a group, for doubled numbers: half the power of two with this biased exponent. The largest stands for no
/// number.
pub(crate) fn half_power_of_two(exponent: u8) -> f32 {
    if exponent == u8::MAX { f32::NAN } else { 2f32.powi(i32::from(exponent) - 128) }
}

/// A number of 8 bits with four of exponent and three of mantissa, without infinities.
pub(crate) fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ONE: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

    fn row(kind: BlockFloat, codes: &[u8], scales: &[u8]) -> Vec<f32> {
        let columns = codes.len() * 8 / kind.bits();
        let matrix = kind.converted(codes, scales, 1, columns);
        assert_eq!(matrix.bytes(), kind.format().row_bytes(columns).iter().sum::<usize>());
        match matrix {
            Matrix::Quantized(matrix) => matrix.row(0),
            Matrix::Float(tensor) => tensor.to_f32(),
        }
    }

    #[test]
    fn every_code_of_four_bits_has_its_value() {
        // All sixteen codes twice.
        let codes: Vec<u8> = (0..8u8).map(|n| (2 * n) | ((2 * n + 1) << 4)).cycle().take(16).collect();
        let expected = |scale: f32| -> Vec<f32> {
            OF_ONE.iter().copied().chain(OF_ONE.map(|value| -value)).map(|value| scale * value).collect()
        };
        // The power of two for 2.
        let values = row(BlockFloat::Mxfp4, &codes, &[128]);
        assert_eq!((&values[..16], &values[16..]), (&expected(2.0)[..], &expected(2.0)[..]));
        // 1.125 and -0.4375: an odd mantissa, and a negative scale.
        let values = row(BlockFloat::Nvfp4, &codes, &[0x39, 0xae]);
        assert_eq!((&values[..16], &values[16..]), (&expected(1.125)[..], &expected(-0.4375)[..]));
    }

    #[test]
    fn every_code_of_eight_bits_has_its_value() {
        let known = [(0x00, 0.0), (0x01, 0.001_953_125), (0x08, 0.015_625), (0x38, 1.0), (0x39, 1.125), (0x7e, 448.0)];
        for (code, value) in known {
            assert_eq!((e4m3(code), e4m3(code | 0x80)), (value, -value));
        }
        assert!(e4m3(0x7f).is_nan());
        // Exactly, also with the smallest and largest of powers that models have.
        for (exponent, power) in [(127u8, 1.0f32), (100, 2f32.powi(-27)), (150, 2f32.powi(23))] {
            let codes: Vec<u8> = (0..32).map(|n| n * 7 % 127).collect();
            let expected: Vec<f32> = codes.iter().map(|code| e4m3(*code) * power).collect();
            assert_eq!(row(BlockFloat::Mxfp8, &codes, &[exponent]), expected);
        }
    }
}
