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

#[cfg(test)]
mod tests {
    use hive_weights::weights::{AtLoad, Biases, Matrix};

    use super::*;

    /// Rows of numbers of several sizes, with groups of zeros, of one number, of one sign, and with halves.
    fn rows(float: Float) -> FloatTensor {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut numbers = Vec::new();
        for group in 0..64 {
            let size = 10f32.powi(group % 9 - 6);
            numbers.extend((0..64).map(|at| match group % 8 {
                0 => 0.0,
                1 => size,
                2 => -random().abs() * size,
                3 => (at as f32 - 20.0) / 2.0,
                _ => random() * size,
            }));
        }
        let bytes: Vec<u8> = numbers.iter().flat_map(|number: &f32| number.to_le_bytes()).collect();
        let single = FloatTensor { float: Float::F32, shape: vec![8, 512], bytes };
        FloatTensor { bytes: converted(single.clone(), float, false).unwrap(), float, ..single }
    }

    #[test]
    fn what_is_quantized_at_load_has_mlxs_numbers() {
        for float in [Float::F32, Float::F16, Float::Bf16] {
            for at_load in AtLoad::all() {
                let how = Quantization { bits: at_load.bits().into(), group: 64 };
                let expected = quantized(&rows(float), float, how).unwrap();
                let Matrix::Quantized(found) = at_load.quantized("model.layers.0.mlp.up_proj", rows(float)) else {
                    panic!("it stays as it is")
                };
                let Biases::Stored(biases) = found.biases else { panic!("no biases") };
                assert!([found.scales, biases] == expected[1..], "{float:?} in {} bits: scales", how.bits);
                assert!(found.words == expected[0], "{float:?} in {} bits", how.bits);
            }
        }
    }
}
