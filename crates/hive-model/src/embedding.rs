//! Embeds tokens: from token ids to hidden states.
//!
//! The table stays as stored for all kernels. For the plain kernels, MLX holds it and picks the rows, so that a token
//! that was sampled on the device need not leave it. For the fast kernels, rows are picked on the host, where a plain
//! loop gives the same numbers and avoids about twenty small operations. Rows are computed in the activation type: what
//! half-precision scales hold exactly is not rounded to half precision again.

use hive_kernels::array_from_bytes;
use hive_weights::weights::{Biases, Matrix, MatrixFormat};
use mlx_rs::{Array, Dtype};

use crate::error::ComputeError;
use crate::linear::{Arithmetic, evaluated, mlx_type};

/// The smallest group that MLX dequantizes.
const UNPACKED_GROUP: i32 = 32;

/// The embedding table of the first stage.
#[derive(Debug)]
pub(crate) struct Embedding {
    table: Table,
}

#[derive(Debug)]
enum Table {
    Host(Matrix),
    Float(Array),
    Quantized { words: Array, scales: Array, biases: DeviceBiases, group: i32, bits: i32 },
}

#[derive(Debug)]
enum DeviceBiases {
    Stored(Array),
    /// Each is this multiple of its scale.
    Multiple(Array),
}

impl Table {
    fn on_device(matrix: Matrix, activation: Dtype) -> Result<Self, ComputeError> {
        match matrix {
            Matrix::Float(t) => {
                Ok(Self::Float(array_from_bytes(&t.bytes, &[t.shape[0] as i32, t.shape[1] as i32], mlx_type(t.float))?))
            }
            Matrix::Quantized(m) => {
                let (rows, groups, float) = (m.rows as i32, (m.columns / m.group) as i32, mlx_type(m.float));
                let words = array_from_bytes(&m.words, &[rows, (m.columns * m.bits / 32) as i32], Dtype::Uint32)?;
                let scales = array_from_bytes(&m.scales, &[rows, groups], float)?;
                let biases = match &m.biases {
                    Biases::Stored(bytes) => DeviceBiases::Stored(array_from_bytes(bytes, &[rows, groups], float)?),
                    Biases::Multiple(multiple) => {
                        DeviceBiases::Multiple(evaluated(&Array::from_f32(*multiple), activation)?)
                    }
                };
                Ok(Self::Quantized { words, scales, biases, group: m.group as i32, bits: m.bits as i32 })
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Host(matrix) => matrix.bytes(),
            Self::Float(table) => table.nbytes(),
            Self::Quantized { words, scales, biases, .. } => {
                let biases = match biases {
                    DeviceBiases::Stored(biases) => biases.nbytes(),
                    DeviceBiases::Multiple(_) => 0,
                };
                words.nbytes() + scales.nbytes() + biases
            }
        }
    }
}

impl Embedding {
    pub(crate) fn new(table: Matrix, arithmetic: Arithmetic) -> Result<Self, ComputeError> {
        let on_device = |table| Table::on_device(table, arithmetic.activation.mlx());
        Ok(Self { table: if arithmetic.fast { Table::Host(table) } else { on_device(table)? } })
    }

    /// The size of such a table in memory, in bytes.
    pub(crate) fn bytes_of(format: MatrixFormat, rows: usize, columns: usize) -> u64 {
        (rows * format.row_bytes(columns).iter().sum::<usize>()) as u64
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// The hidden states of tokens, `[n, hidden]`. The caller has checked that every token is in the vocabulary.
    pub(crate) fn forward(&self, tokens: &[u32], arithmetic: Arithmetic) -> Result<Array, ComputeError> {
        match &self.table {
            Table::Host(matrix) => in_type(from_host(matrix, tokens)?, arithmetic),
            _ => self.of_sampled(&Array::from_slice(tokens, &[tokens.len() as i32]), arithmetic),
        }
    }

    /// The hidden states of tokens `[n]` that may still be on their way to the device's memory, where the table is.
    pub(crate) fn of_sampled(&self, tokens: &Array, arithmetic: Arithmetic) -> Result<Array, ComputeError> {
        let rows = match &self.table {
            Table::Host(_) => return Err(ComputeError::Mlx("the embedding is not on the device".to_owned())),
            Table::Float(table) => table.take_axis(tokens, 0)?,
            Table::Quantized { words, scales, biases, group, bits } => {
                let words = words.take_axis(tokens, 0)?;
                let scales = in_type(scales.take_axis(tokens, 0)?, arithmetic)?;
                let biases = match biases {
                    DeviceBiases::Stored(biases) => in_type(biases.take_axis(tokens, 0)?, arithmetic)?,
                    DeviceBiases::Multiple(multiple) => scales.multiply(multiple)?,
                };
                dequantize(&words, &scales, &biases, *group, *bits)?
            }
        };
        in_type(rows, arithmetic)
    }
}

/// MLX dequantizes groups of 32 columns and more. With smaller ones, it unpacks the numbers only.
fn dequantize(words: &Array, scales: &Array, biases: &Array, group: i32, bits: i32) -> Result<Array, ComputeError> {
    if group >= UNPACKED_GROUP {
        return Ok(mlx_rs::ops::dequantize(words, scales, biases, group, bits)?);
    }
    let (rows, groups) = (scales.dim(0), scales.dim(1));
    let columns = groups * group;
    let one = Array::from_f32(1.0).as_dtype(scales.dtype())?;
    let ones = mlx_rs::ops::broadcast_to(&one, &[rows, columns / UNPACKED_GROUP])?;
    let zeros = mlx_rs::ops::zeros_like(&ones)?;
    let numbers = mlx_rs::ops::dequantize(words, &ones, &zeros, UNPACKED_GROUP, bits)?;
    let of_group = |affine: &Array| affine.reshape(&[rows, groups, 1]);
    let values = numbers.reshape(&[rows, groups, group])?.multiply(of_group(scales)?)?.add(of_group(biases)?)?;
    Ok(values.reshape(&[rows, columns])?)
}

/// Multiplied by a factor, which rounds to the array's type.
pub(crate) fn scaled(x: Array, factor: f32) -> Result<Array, ComputeError> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = Array::from_f32(factor).as_dtype(x.dtype())?;
    Ok(x.multiply(factor)?)
}

fn in_type(rows: Array, arithmetic: Arithmetic) -> Result<Array, ComputeError> {
    let wanted = arithmetic.activation.mlx();
    Ok(if rows.dtype() == wanted { rows } else { rows.as_dtype(wanted)? })
}

fn from_host(table: &Matrix, tokens: &[u32]) -> Result<Array, ComputeError> {
    let count = tokens.len() as i32;
    match table {
        Matrix::Float(t) => {
            let bytes = pick(&t.bytes, t.shape[0], tokens);
            Ok(array_from_bytes(&bytes, &[count, t.shape[1] as i32], mlx_type(t.float))?)
        }
        Matrix::Quantized(m) => {
            let rows: Vec<f32> = tokens.iter().flat_map(|&token| m.row(token as usize)).collect();
            Ok(Array::from_slice(&rows, &[count, m.columns as i32]))
        }
    }
}

fn pick(bytes: &[u8], rows: usize, tokens: &[u32]) -> Vec<u8> {
    let width = bytes.len() / rows;
    tokens.iter().flat_map(|&token| &bytes[token as usize * width..(token as usize + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::ActivationType;
    use crate::oracle;
    use hive_weights::weights::{Float, QuantizedMatrix, to_f32};

    #[test]
    fn tokens_of_every_gguf_type_have_the_values_that_ggml_computes_bit_for_bit() {
        let samples = oracle::samples();
        let weights = oracle::file(&samples);
        let [rows, columns] = oracle::SHAPE;
        for (index, sample) in samples.iter().enumerate() {
            for fast in [true, false] {
                let arithmetic = Arithmetic { fast, activation: ActivationType::F32 };
                let table = weights.file_matrix(&oracle::matrix(index), rows, columns).unwrap();
                let embedding = Embedding::new(table.whole().unwrap(), arithmetic).unwrap();
                let planned = Embedding::bytes_of(table.format(), rows, columns);
                assert_eq!(embedding.bytes() as u64, planned, "{}, fast {fast}", sample.name);
                let values = embedding.forward(&[1, 0, 1], arithmetic).unwrap();
                values.eval().unwrap();
                let (first, second) = sample.values.split_at(columns);
                assert_eq!(values.as_slice::<f32>(), [second, first, second].concat(), "{}, fast {fast}", sample.name);
            }
        }
    }

    #[test]
    fn the_fast_kernels_begin_with_the_numbers_of_mlx() {
        let (rows, columns, group) = (3, 128, 32);
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for (bits, float) in
            [2, 3, 4, 5, 6, 8].into_iter().flat_map(|bits| [Float::F32, Float::F16, Float::Bf16].map(|f| (bits, f)))
        {
            let words: Vec<u8> = (0..rows * columns * bits / 8).map(|_| next() as u8).collect();
            let stored = |value: f32| match float {
                Float::F32 => value.to_le_bytes().to_vec(),
                Float::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
                Float::Bf16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            };
            let mut affine = || -> Vec<u8> {
                let values = (0..rows * columns / group).map(|_| (next() as f32 / (1 << 24) as f32 - 0.5) * 0.37);
                values.flat_map(stored).collect()
            };
            let (scales, biases) = (affine(), affine());
            let of = |fast: bool, biases: Biases| {
                let (words, scales): (Vec<u8>, Vec<u8>) = (words.clone(), scales.clone());
                let table = QuantizedMatrix { rows, columns, bits, group, words, float, scales, biases };
                let arithmetic = Arithmetic { fast, activation: ActivationType::F32 };
                let embedding = Embedding::new(Matrix::Quantized(table), arithmetic).unwrap();
                let rows = embedding.forward(&[2, 0], arithmetic).unwrap();
                rows.eval().unwrap();
                (rows.shape().to_vec(), rows.try_as_slice::<f32>().unwrap().to_vec())
            };
            let others = || Biases::Stored(biases.clone());
            assert_eq!(of(true, others()), of(false, others()), "{bits} bits, {float:?}");
            let multiples = to_f32(float, &scales).into_iter().flat_map(|scale| stored(scale * -8.0));
            let multiples: Vec<u8> = multiples.collect();
            let (multiple, written) = (|| Biases::Multiple(-8.0), || Biases::Stored(multiples.clone()));
            assert_eq!(of(true, multiple()), of(true, written()), "{bits} bits, {float:?}");
            assert_eq!(of(false, multiple()), of(true, written()), "{bits} bits, {float:?}");
        }
    }
}
