//! MXFP4: 4-bit floating-point numbers in groups of 32 with a power of two for each.
//!
//! The doubled numbers are whole and at most 12, so the format converts exactly to 5-bit affine quantization.

use super::packing::pack;
use super::{Biases, Float, MatrixFormat, QuantizedMatrix};

/// Columns per power of two.
pub(crate) const GROUP: usize = 32;

/// What the codes stand for, doubled.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// What is added to the doubled numbers so that none is negative. A power of two keeps the bias exact.
pub(crate) const OFFSET: u8 = 16;

/// The format that a matrix of it becomes.
pub(crate) const AFFINE: MatrixFormat =
    MatrixFormat::Quantized { bits: 5, group: GROUP, float: Float::F32, multiple: Some(-(OFFSET as f32)) };

/// The scale of a group, for the doubled numbers: half the power of two with this biased exponent. The largest stands
/// for no number.
pub(crate) fn half_power_of_two(exponent: u8) -> f32 {
    if exponent == u8::MAX { f32::NAN } else { 2f32.powi(i32::from(exponent) - 128) }
}

/// Converts rows of codes, two to a byte with the first in the low half, and their exponents.
pub(crate) fn to_affine(codes: &[u8], exponents: &[u8], rows: usize, columns: usize) -> QuantizedMatrix {
    let number = |code: u8| OFFSET.wrapping_add_signed(DOUBLED[usize::from(code)]);
    let numbers: Vec<u8> = codes.iter().flat_map(|byte| [number(byte & 15), number(byte >> 4)]).collect();
    let mut words = Vec::with_capacity(numbers.len() * 5 / 8);
    pack(&numbers, 5, &mut words);
    QuantizedMatrix {
        rows,
        columns,
        bits: 5,
        group: GROUP,
        words,
        float: Float::F32,
        scales: exponents.iter().flat_map(|exponent| half_power_of_two(*exponent).to_le_bytes()).collect(),
        biases: Biases::Multiple(-f32::from(OFFSET)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_value() {
        // All sixteen codes twice, with the power of two for 2.
        let codes: Vec<u8> = (0..8u8).map(|n| (2 * n) | ((2 * n + 1) << 4)).cycle().take(16).collect();
        let values = to_affine(&codes, &[128], 1, 32).row(0);
        let of_one = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let expected: Vec<f32> =
            of_one.iter().copied().chain(of_one.map(|value| -value)).map(|value| 2.0 * value).collect();
        assert_eq!((&values[..16], &values[16..]), (&expected[..], &expected[..]));
    }
}
