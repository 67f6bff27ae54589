//! Conversion of ggml's blocks to MLX's affine quantization: `w = scale · q + bias`.
//!
//! Every type converts exactly. The simple types have a scale (and a minimum) per 32 weights. A K type has blocks of 256
//! weights in groups of 32 or 16; the scale of a group is a small integer times the block's, and single precision holds
//! the product. IQ4 and MXFP4 weights are indices into a table of small integers, so the integers are stored instead.
//! The fields of each block, in its order, are in ggml's source (ggml-common.h).

use super::blocks::BlockType;
use crate::weights::block_floats::{self, BlockFloat};
use crate::weights::packing::pack;
use crate::weights::{Biases, Float, MatrixFormat, QuantizedMatrix};

/// Weights per block of a K type.
const LONG: usize = 256;

/// What the indices of IQ4 types stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl BlockType {
    /// The format that a matrix of it becomes; `None` if it is not supported.
    pub(super) fn format(self) -> Option<MatrixFormat> {
        let affine = |bits, group, float, multiple| Some(MatrixFormat::Quantized { bits, group, float, multiple });
        // Where weights count from the middle of their range, the bias is a multiple of the scale. A power of two keeps
        // the product exact.
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => self.float().map(MatrixFormat::Float),
            Self::Q4_0 => affine(4, 32, Float::F16, Some(-8.0)),
            Self::Q4_1 => affine(4, 32, Float::F16, None),
            Self::Q5_0 => affine(5, 32, Float::F16, Some(-16.0)),
            Self::Q5_1 => affine(5, 32, Float::F16, None),
            Self::Q8_0 | Self::Iq4Nl => affine(8, 32, Float::F16, Some(-128.0)),
            Self::Q2K => affine(2, 16, Float::F32, None),
            Self::Q3K => affine(3, 16, Float::F32, Some(-4.0)),
            Self::Q4K => affine(4, 32, Float::F32, None),
            Self::Q5K => affine(5, 32, Float::F32, None),
            Self::Q6K => affine(6, 16, Float::F32, Some(-32.0)),
            Self::Iq4Xs => affine(8, 32, Float::F32, Some(-128.0)),
            Self::Mxfp4 => Some(BlockFloat::Mxfp4.format()),
            Self::Other(_) => None,
        }
    }

    /// The kind of small floating-point numbers that it is, if it is one.
    pub(super) fn block_float(self) -> Option<BlockFloat> {
        (self == Self::Mxfp4).then_some(BlockFloat::Mxfp4)
    }

    /// The codes of whole rows of blocks of such numbers, two to a byte in order, and their scales.
    pub(super) fn codes_and_scales(self, blocks: &[u8]) -> [Vec<u8>; 2] {
        let blocks = blocks.chunks_exact(self.bytes() as usize);
        let mut numbers = [0; 32];
        let (mut codes, mut scales) = (Vec::with_capacity(blocks.len() * 16), Vec::with_capacity(blocks.len()));
        for block in blocks {
            scales.push(block[0]);
            nibbles(&block[1..], &mut numbers);
            codes.extend(numbers.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4));
        }
        [codes, scales]
    }

    /// Converts whole rows of blocks; `None` if this type is not quantized or not supported.
    pub(super) fn to_affine(self, blocks: &[u8], rows: usize, columns: usize) -> Option<QuantizedMatrix> {
        let Some(MatrixFormat::Quantized { bits, group, float, multiple }) = self.format() else { return None };
        let groups = rows * columns / group * float.bytes();
        let (mut words, mut scales) = (Vec::with_capacity(rows * columns * bits / 8), Vec::with_capacity(groups));
        let mut biases = Vec::with_capacity(if multiple.is_none() { groups } else { 0 });
        let mut numbers = [0; LONG];
        let numbers = &mut numbers[..self.elements() as usize];
        for block in blocks.chunks_exact(self.bytes() as usize) {
            self.affine(block, &mut scales, &mut biases);
            self.unpack(block, numbers);
            pack(numbers, bits, &mut words);
        }
        let biases = multiple.map_or(Biases::Stored(biases), Biases::Multiple);
        Some(QuantizedMatrix { rows, columns, bits, group, words, float, scales, biases })
    }

    /// Reads the scales and biases of a block's groups.
    #[inline]
    fn affine(self, block: &[u8], scales: &mut Vec<u8>, biases: &mut Vec<u8>) {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 | Self::Iq4Nl => scales.extend_from_slice(&block[..2]),
            Self::Q4_1 | Self::Q5_1 => {
                scales.extend_from_slice(&block[..2]);
                biases.extend_from_slice(&block[2..4]);
            }
            Self::Q2K => {
                let (scale, minimum) = (half(&block[80..]), half(&block[82..]));
                for packed in &block[..16] {
                    put(scales, scale * f32::from(packed & 15));
                    put(biases, -(minimum * f32::from(packed >> 4)));
                }
            }
            Self::Q3K => {
                let scale = half(&block[108..]);
                for group in 0..16 {
                    let low = block[96 + group % 8] >> (4 * (group / 8)) & 15;
                    let high = block[104 + group % 4] >> (2 * (group / 4)) & 3;
                    put(scales, scale * (f32::from(low | high << 4) - 32.0));
                }
            }
            Self::Q4K | Self::Q5K => {
                let (scale, minimum) = (half(block), half(&block[2..]));
                for group in 0..8 {
                    let (of_scale, of_minimum) = six_bits(&block[4..16], group);
                    put(scales, scale * f32::from(of_scale));
                    put(biases, -(minimum * f32::from(of_minimum)));
                }
            }
            Self::Q6K => {
                let scale = half(&block[208..]);
                block[192..208].iter().for_each(|factor| put(scales, scale * f32::from(*factor as i8)));
            }
            Self::Iq4Xs => {
                let (scale, high) = (half(block), u16::from_le_bytes([block[2], block[3]]));
                for group in 0..8 {
                    let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
                    let factor = low | ((high >> (2 * group) & 3) as u8) << 4;
                    put(scales, scale * (f32::from(factor) - 32.0));
                }
            }
            Self::Mxfp4 => put(scales, block_floats::half_power_of_two(block[0])),
            Self::F32 | Self::F16 | Self::Bf16 | Self::Other(_) => (),
        }
    }

    /// Reads the weights of a block, in order.
    #[inline]
    fn unpack(self, block: &[u8], numbers: &mut [u8]) {
        match self {
            Self::Q4_0 => nibbles(&block[2..], numbers),
            Self::Q4_1 => nibbles(&block[4..], numbers),
            Self::Q5_0 | Self::Q5_1 => {
                let high = if self == Self::Q5_0 { &block[2..] } else { &block[4..] };
                nibbles(&high[4..], numbers);
                let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
                numbers.iter_mut().enumerate().for_each(|(n, number)| *number |= ((high >> n & 1) as u8) << 4);
            }
            Self::Q8_0 => numbers.iter_mut().zip(&block[2..]).for_each(|(number, signed)| *number = signed ^ 0x80),
            Self::Q2K => two_bits(&block[16..80], numbers),
            Self::Q3K => {
                two_bits(&block[32..96], numbers);
                or_bits(numbers, &block[..32], 2);
            }
            Self::Q4K => long_nibbles(&block[16..], numbers),
            Self::Q5K => {
                long_nibbles(&block[48..], numbers);
                or_bits(numbers, &block[16..48], 4);
            }
            Self::Q6K => {
                // Each half of the block: 64 bytes with the low bits of 128 weights, and 32 with the high bits.
                for (half, numbers) in numbers.chunks_exact_mut(128).enumerate() {
                    let (low, high) = (&block[half * 64..half * 64 + 64], &block[128 + half * 32..]);
                    for (quarter, numbers) in numbers.chunks_exact_mut(32).enumerate() {
                        let (low, of_low, of_high) = (&low[quarter % 2 * 32..], quarter / 2 * 4, quarter * 2);
                        for ((number, low), high) in numbers.iter_mut().zip(low).zip(high) {
                            *number = (low >> of_low & 15) | (high >> of_high & 3) << 4;
                        }
                    }
                }
            }
            Self::Iq4Nl => {
                nibbles(&block[2..], numbers);
                look_up(&IQ4, 128, numbers);
            }
            Self::Iq4Xs => {
                for (packed, numbers) in block[8..].chunks_exact(16).zip(numbers.chunks_exact_mut(32)) {
                    nibbles(packed, numbers);
                }
                look_up(&IQ4, 128, numbers);
            }
            Self::Mxfp4 => {
                nibbles(&block[1..], numbers);
                look_up(&block_floats::DOUBLED, block_floats::OFFSET, numbers);
            }
            Self::F32 | Self::F16 | Self::Bf16 | Self::Other(_) => (),
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

fn put(to: &mut Vec<u8>, number: f32) {
    to.extend_from_slice(&number.to_le_bytes());
}

/// Byte n holds element n in its low half, and element n plus half the elements in its high half.
fn nibbles(packed: &[u8], numbers: &mut [u8]) {
    let (low, high) = numbers.split_at_mut(numbers.len() / 2);
    for ((byte, low), high) in packed.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Nibbles as above, 64 elements at a time.
fn long_nibbles(packed: &[u8], numbers: &mut [u8]) {
    for (packed, numbers) in packed.chunks_exact(32).zip(numbers.chunks_exact_mut(64)) {
        nibbles(packed, numbers);
    }
}

/// Of 128 elements, each of 32 bytes holds those that are 32 apart, from its low bits up.
fn two_bits(packed: &[u8], numbers: &mut [u8]) {
    for (packed, numbers) in packed.chunks_exact(32).zip(numbers.chunks_exact_mut(128)) {
        for (shift, numbers) in numbers.chunks_exact_mut(32).enumerate() {
            numbers.iter_mut().zip(packed).for_each(|(number, byte)| *number = byte >> (2 * shift) & 3);
        }
    }
}

/// Adds one bit per element at this place: each of 32 bytes holds those of elements that are 32 apart.
fn or_bits(numbers: &mut [u8], bits: &[u8], place: usize) {
    for (shift, numbers) in numbers.chunks_exact_mut(32).enumerate() {
        numbers.iter_mut().zip(bits).for_each(|(number, byte)| *number |= (byte >> shift & 1) << place);
    }
}

/// Replaces indices into a table by its entries, with `middle` added so that none is negative.
fn look_up(table: &[i8; 16], middle: u8, numbers: &mut [u8]) {
    for number in numbers {
        *number = middle.wrapping_add_signed(table[usize::from(*number & 15)]);
    }
}

/// The 6-bit factors of a group's scale and minimum. Those of the last four groups are in two pieces.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let low = packed[group + 4];
    (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;
    use crate::weights::Matrix;

    #[test]
    fn every_type_has_the_values_that_ggml_computes_bit_for_bit() {
        let samples = oracle::samples();
        let weights = oracle::file(&samples);
        let [rows, columns] = oracle::SHAPE;
        for (index, sample) in samples.iter().enumerate() {
            let Matrix::Quantized(matrix) = weights.matrix(&oracle::matrix(index), rows, columns).unwrap() else {
                panic!("{} is quantized", sample.name)
            };
            let block = BlockType::from_ggml(sample.number);
            assert_eq!(block.to_string(), sample.name);
            let values: Vec<f32> = (0..rows).flat_map(|row| matrix.row(row)).collect();
            assert_eq!(values, sample.values, "{}", sample.name);
        }
    }

    #[test]
    fn the_samples_have_every_quantized_type() {
        let quantized = (0..64).map(BlockType::from_ggml).filter(|block| block.elements() > 1);
        assert_eq!(quantized.count(), oracle::samples().len());
    }
}
