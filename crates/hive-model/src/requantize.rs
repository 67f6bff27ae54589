//! Requantization, for MLX's kernels: they have groups of 32, 64 and 128 columns, and some GGUF types have groups of 16.
//!
//! Two groups of 16 become one of 32, whose numbers divide the range of its values evenly. With `n` bits the worst
//! error is half of the range over `2^n - 1`: 1/510 of it with 8 bits, 1/126 with 6. The weights were rounded far more
//! coarsely when they were quantized: by up to 1/126 with 6 bits per weight, 1/14 with 3, and 1/6 with 2.

use hive_weights::weights::packing::pack;
use hive_weights::weights::{Biases, Float, Matrix, MatrixFormat, QuantizedMatrix};

/// The groups of MLX's kernels.
const GROUPS: [usize; 3] = [32, 64, 128];
/// Columns per scale of a requantized matrix.
const GROUP: usize = 32;

/// The format in which MLX's kernels hold such a matrix: the stored one, if they have it.
pub(crate) fn format_for_mlx(format: MatrixFormat, columns: usize) -> MatrixFormat {
    match format {
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
        (matrix, _) => matrix,
    }
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
