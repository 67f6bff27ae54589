//! What is computed: MLX's own quantization, and its conversion between types, on this machine's device.

use hive_kernels::{array_bytes, array_from_bytes};
use hive_weights::weights::{Float, FloatTensor};
use mlx_rs::{Array, Dtype};

use crate::error::QuantizeError;
use crate::recipe::Quantization;

fn mlx_type(float: Float) -> Dtype {
    match float {
        Float::F32 => Dtype::Float32,
        Float::F16 => Dtype::Float16,
        Float::Bf16 => Dtype::Bfloat16,
    }
}

/// Rows of a matrix, quantized: words, scales and biases, little-endian. Scales and biases are of type `to`, to which the
/// numbers are converted first.
pub(crate) fn quantized(rows: &FloatTensor, to: Float, how: Quantization) -> Result<[Vec<u8>; 3], QuantizeError> {
    let rows = loaded(rows, to)?;
    let (words, scales, biases) = mlx_rs::ops::quantize(&rows, how.group as i32, how.bits as i32)?;
    Ok([bytes(&words)?, bytes(&scales)?, bytes(&biases)?])
}

/// Numbers in another type, little-endian; with one added before, if they are stored as the difference from it.
pub(crate) fn converted(numbers: FloatTensor, to: Float, is_from_one: bool) -> Result<Vec<u8>, QuantizeError> {
    if numbers.float == to && !is_from_one {
        return Ok(numbers.bytes);
    }
    let mut array = loaded(&numbers, numbers.float)?;
    if is_from_one {
        array = array.add(Array::from_f32(1.0).as_dtype(array.dtype())?)?;
    }
    bytes(&array.as_dtype(mlx_type(to))?)
}

fn loaded(numbers: &FloatTensor, to: Float) -> Result<Array, QuantizeError> {
    let shape: Vec<i32> = numbers.shape.iter().map(|width| *width as i32).collect();
    let array = array_from_bytes(&numbers.bytes, &shape, mlx_type(numbers.float))?;
    Ok(if numbers.float == to { array } else { array.as_dtype(mlx_type(to))? })
}

/// Little-endian, as files are: so is every machine that MLX runs on.
fn bytes(array: &Array) -> Result<Vec<u8>, QuantizeError> {
    Ok(array_bytes(&array.contiguous()?)?)
}
