//! Embeds tokens: from token ids to hidden states.
//!
//! The table stays as stored for all kernels. For the plain kernels, MLX holds it and picks the rows, so that a token
//! that was sampled on the device need not leave it. For the fast kernels, rows are picked on the host, where a plain
//! loop gives the same numbers and avoids about twenty small operations.

use hive_kernels::array_from_bytes;
use mlx_rs::{Array, Dtype};

use crate::error::ComputeError;
use crate::linear::{Arithmetic, evaluated, mlx_type};
use crate::weights::{Biases, Float, Matrix, MatrixFormat, QuantizedMatrix, to_f32};

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
    /// Each is this multiple of its scale; the number has the scales' type.
    Multiple(Array),
}

impl Table {
    fn on_device(matrix: Matrix) -> Result<Self, ComputeError> {
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
                        DeviceBiases::Multiple(evaluated(&Array::from_f32(*multiple), float)?)
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
        Ok(Self { table: if arithmetic.fast { Table::Host(table) } else { Table::on_device(table)? } })
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
                let (words, scales) = (words.take_axis(tokens, 0)?, scales.take_axis(tokens, 0)?);
                let biases = match biases {
                    DeviceBiases::Stored(biases) => biases.take_axis(tokens, 0)?,
                    DeviceBiases::Multiple(multiple) => scales.multiply(multiple)?,
                };
                mlx_rs::ops::dequantize(&words, &scales, &biases, *group, *bits)?
            }
        };
        in_type(rows, arithmetic)
    }
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
        Matrix::Quantized(m) if matches!(m.bits, 4 | 8) => {
            let rows: Vec<f32> = tokens.iter().flat_map(|&token| dequantized(m, token as usize)).collect();
            Ok(Array::from_slice(&rows, &[count, m.columns as i32]))
        }
        Matrix::Quantized(m) => by_mlx(m, tokens),
    }
}

fn by_mlx(m: &QuantizedMatrix, tokens: &[u32]) -> Result<Array, ComputeError> {
    let count = tokens.len() as i32;
    let affine = |bytes: &[u8]| array_from_bytes(bytes, &[count, (m.columns / m.group) as i32], mlx_type(m.float));
    let words = pick(&m.words, m.rows, tokens);
    let words = array_from_bytes(&words, &[count, (m.columns * m.bits / 32) as i32], Dtype::Uint32)?;
    let scales = pick(&m.scales, m.rows, tokens);
    let biases = m.biases.of(&scales, m.float, |stored| pick(stored, m.rows, tokens).into());
    let (scales, biases) = (affine(&scales)?, affine(&biases)?);
    Ok(mlx_rs::ops::dequantize(&words, &scales, &biases, m.group as i32, m.bits as i32)?)
}

/// One row of a 4- or 8-bit matrix. MLX multiplies and adds in the type of the scales, so each step rounds to it.
fn dequantized(m: &QuantizedMatrix, row: usize) -> impl Iterator<Item = f32> {
    let (bytes, groups) = (m.columns * m.bits / 8, m.columns / m.group);
    let width = groups * m.float.bytes();
    let scales = &m.scales[row * width..(row + 1) * width];
    let biases = m.biases.of(scales, m.float, |stored| stored[row * width..(row + 1) * width].into());
    let (scales, biases) = (to_f32(m.float, scales), to_f32(m.float, &biases));
    let stored = &m.words[row * bytes..(row + 1) * bytes];
    (0..m.columns).map(move |column| {
        let weight = if m.bits == 8 { stored[column] } else { stored[column / 2] >> (column % 2 * 4) & 15 };
        let group = column / m.group;
        rounded(m.float, rounded(m.float, f32::from(weight) * scales[group]) + biases[group])
    })
}

fn rounded(float: Float, value: f32) -> f32 {
    match float {
        Float::F32 => value,
        Float::F16 => half::f16::from_f32(value).to_f32(),
        Float::Bf16 => half::bf16::from_f32(value).to_f32(),
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

    #[test]
    fn the_fast_kernels_begin_with_the_numbers_of_mlx() {
        let (rows, columns, group) = (3, 128, 32);
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for (bits, float) in
            [4, 8].into_iter().flat_map(|bits| [Float::F32, Float::F16, Float::Bf16].map(|f| (bits, f)))
        {
            let words: Vec<u8> = (0..rows * columns * bits / 8).map(|_| next() as u8).collect();
            let mut affine = || -> Vec<u8> {
                let values = (0..rows * columns / group).map(|_| (next() as f32 / (1 << 24) as f32 - 0.5) * 0.37);
                let bytes = |value: f32| match float {
                    Float::F32 => value.to_le_bytes().to_vec(),
                    Float::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
                    Float::Bf16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
                };
                values.flat_map(bytes).collect()
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
            let stored = || Biases::Stored(biases.clone());
            assert_eq!(of(true, stored()), of(false, stored()), "{bits} bits, {float:?}");
            let multiple = || Biases::Multiple(-8.0);
            let written = || Biases::Stored(multiple().of(&scales, float, Into::into).into_owned());
            assert_eq!(of(true, multiple()), of(true, written()), "{bits} bits, {float:?}");
            assert_eq!(of(false, multiple()), of(true, written()), "{bits} bits, {float:?}");
        }
    }
}
