//! From tokens to hidden states.
//!
//! The table stays as it is stored, whichever kernels compute: rows are picked on the host and dequantized by MLX, so
//! that both ways begin with the same numbers.

use hive_kernels::array_from_bytes;
use mlx_rs::{Array, Dtype};

use crate::hidden::ActivationType;
use crate::linear::{ComputeError, mlx_type};
use crate::weights::Matrix;

/// The embedding table of the first stage.
#[derive(Debug)]
pub(crate) struct Embedding {
    table: Matrix,
}

impl Embedding {
    pub(crate) fn new(table: Matrix) -> Self {
        Self { table }
    }

    /// The hidden states of tokens, `[n, hidden]`. Every token is below the vocabulary's size; the caller has checked.
    pub(crate) fn forward(&self, tokens: &[u32], activation: ActivationType) -> Result<Array, ComputeError> {
        let count = tokens.len() as i32;
        let rows = match &self.table {
            Matrix::Float(t) => {
                let bytes = pick(&t.bytes, t.shape[0], tokens);
                array_from_bytes(&bytes, &[count, t.shape[1] as i32], mlx_type(t.float))?
            }
            Matrix::Quantized(m) => {
                let words = pick(&m.words, m.rows, tokens);
                let affine = |bytes: &[u8]| {
                    let shape = [count, (m.columns / m.group) as i32];
                    array_from_bytes(&pick(bytes, m.rows, tokens), &shape, mlx_type(m.float))
                };
                let words = array_from_bytes(&words, &[count, (m.columns * m.bits / 32) as i32], Dtype::Uint32)?;
                let (scales, biases) = (affine(&m.scales)?, affine(&m.biases)?);
                mlx_rs::ops::dequantize(&words, &scales, &biases, m.group as i32, m.bits as i32)?
            }
        };
        Ok(rows.as_dtype(activation.mlx())?)
    }
}

fn pick(bytes: &[u8], rows: usize, tokens: &[u32]) -> Vec<u8> {
    let width = bytes.len() / rows;
    tokens.iter().flat_map(|&token| &bytes[token as usize * width..(token as usize + 1) * width]).copied().collect()
}
