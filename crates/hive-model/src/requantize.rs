//! Requantization, for MLX's kernels: they have groups of 32, 64 and 128 columns, and some GGUF types have groups of 16.
//!
//! Two groups of 16 become one of 32, whose numbers divide the range of its values evenly. With `n` bits the worst
//! error is half of the range over `2^n - 1`: 1/510 of it with 8 bits, 1/126 with 6. The weights were rounded far more
//! coarsely when they were quantized: by up to 1/126 with 6 bits per weight, 1/14 with 3, and 1/6 with 2.
//!
//! MLX 0.32.2 for CUDA multiplies quantized matrices of 64 columns wrongly (`mx.quantized_matmul` is off by 100 % where
//! there are several rows), and wider ones rightly. Narrow ones are held as plain numbers there.

use hive_weights::weights::packing::pack;
use hive_weights::weights::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix};

use crate::device::is_gpu;

/// The groups of MLX's kernels.
const GROUPS: [usize; 3] = [32, 64, 128];
/// Columns per scale of a requantized matrix.
const GROUP: usize = 32;
/// The fewest columns of a quantized matrix that MLX's kernels for CUDA multiply rightly.
const LEAST_COLUMNS_ON_CUDA: usize = 128;

/// The format in which MLX's kernels hold such a matrix: the stored one, if they have it.
pub(crate) fn format_for_mlx(format: MatrixFormat, columns: usize) -> MatrixFormat {
    held_by_mlx(format, columns, is_gpu() && !cfg!(target_os = "macos"))
}

fn held_by_mlx(format: MatrixFormat, columns: usize, is_cuda: bool) -> MatrixFormat {
    match format {
        MatrixFormat::Quantized { .. } if is_cuda && columns < LEAST_COLUMNS_ON_CUDA => MatrixFormat::Float(Float::F32),
        MatrixFormat::Quantized { bits, group, .. } if !GROUPS.contains(&group) && columns.is_multiple_of(GROUP) => {
            let bits = if bits > 4 { 8 } else { 6 };
            MatrixFormat::Quantized { bits, group: GROUP, float: Float::F32, multiple: None }
        }
        as_stored => as_stored,
    }
}

/// Converts rows of a matrix to the format that [`format_for_mlx`] chose.
pub(crate) fn requantized(matrix: Matrix, format: MatrixFormat) -> Matrix {
    match (matrix, format) {
        (Matrix::Quantized(matrix), MatrixFormat::Quantized { bits, group, .. }) if group != matrix.group => {
            Matrix::Quantized(affine(&matrix, bits, group))
        }
        (Matrix::Quantized(matrix), MatrixFormat::Float(_)) => Matrix::Float(numbers(&matrix)),
        (matrix, _) => matrix,
    }
}

fn numbers(matrix: &QuantizedMatrix) -> FloatTensor {
    let rows = (0..matrix.rows).flat_map(|row| matrix.row(row));
    let bytes = rows.flat_map(f32::to_le_bytes).collect();
    FloatTensor { shape: vec![matrix.rows, matrix.columns], float: Float::F32, bytes }
}

fn affine(matrix: &QuantizedMatrix, bits: usize, group: usize) -> QuantizedMatrix {
    let &QuantizedMatrix { rows, columns, .. } = matrix;
    let most = ((1usize << bits) - 1) as f32;
    let (mut words, mut scales, mut biases) = (Vec::with_capacity(rows * columns * bits / 8), Vec::new(), Vec::new());
    let mut numbers = Vec::with_capacity(group);
    for row in 0..rows {
        for values in matrix.row(row).chunks_exact(group) {
            let (low, high) = values
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
            let scale = (high - low) / most;
            // A range of nothing needs no number but zero.
            let per_step = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            numbers.clear();
            numbers.extend(values.iter().map(|value| ((value - low) * per_step).round().min(most) as u8));
            pack(&numbers, bits, &mut words);
            scales.extend_from_slice(&scale.to_le_bytes());
            biases.extend_from_slice(&low.to_le_bytes());
        }
    }
    QuantizedMatrix { rows, columns, bits, group, words, float: Float::F32, scales, biases: Biases::Stored(biases) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR_BIT: MatrixFormat = MatrixFormat::Quantized { bits: 4, group: 64, float: Float::F16, multiple: None };

    #[test]
    fn what_cuda_multiplies_wrongly_is_held_as_numbers_there() {
        for (columns, is_cuda, is_number) in [(64, true, true), (128, true, false), (64, false, false)] {
            let is_float = matches!(held_by_mlx(FOUR_BIT, columns, is_cuda), MatrixFormat::Float(_));
            assert_eq!(is_float, is_number, "{columns} columns");
        }
    }

    #[test]
    fn a_matrix_held_as_numbers_has_the_same_ones() {
        let mut words = Vec::new();
        let codes: Vec<u8> = (0..128).map(|code| code % 16).collect();
        pack(&codes, 4, &mut words);
        let scale = |number: f32| [number, 2.0 * number].iter().flat_map(|number| number.to_le_bytes()).collect();
        let biases = Biases::Stored(scale(-1.0));
        let matrix = QuantizedMatrix {
            rows: 2,
            columns: 64,
            bits: 4,
            group: 64,
            words,
            float: Float::F32,
            scales: scale(0.5),
            biases,
        };
        let Matrix::Float(held) = requantized(Matrix::Quantized(matrix), MatrixFormat::Float(Float::F32)) else {
            panic!("numbers were asked for")
        };
        assert_eq!(held.shape, [2, 64]);
        let number = |index: usize| f32::from_le_bytes(held.bytes[4 * index..][..4].try_into().unwrap());
        for (index, code) in codes.iter().enumerate() {
            let times = if index < 64 { 1.0 } else { 2.0 };
            assert_eq!(number(index), times * (0.5 * f32::from(*code) - 1.0), "{index}");
        }
    }
}
