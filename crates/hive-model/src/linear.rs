//! Matrices that multiply hidden states, on MLX's kernels or on ours.

use hive_kernels::{Affine, Format, KernelError, PackedMatrix};
use mlx_rs::{Array, Dtype};

use crate::hidden::ActivationType;
use crate::weights::{Float, Matrix, QuantizedMatrix};

/// Whose kernels multiply, and in which number format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arithmetic {
    /// The fast kernels; the activation type is then `F32`.
    pub(crate) fast: bool,
    pub(crate) activation: ActivationType,
}

/// A failure of MLX or of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// MLX refused or failed.
    #[error("MLX failed: {0}")]
    Mlx(String),
    /// A fast kernel refused.
    #[error("a kernel failed: {0}")]
    Kernel(#[from] KernelError),
}

impl From<mlx_rs::error::Exception> for ComputeError {
    fn from(error: mlx_rs::error::Exception) -> Self {
        Self::Mlx(error.what().to_owned())
    }
}

pub(crate) fn mlx_type(float: Float) -> Dtype {
    ActivationType::from(float).mlx()
}

/// `y = x · Wᵀ (+ bias)`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Array>,
}

#[derive(Debug)]
enum Weights {
    Quantized { words: Array, scales: Array, biases: Array, group: i32, bits: i32 },
    Float(Array),
    Packed(PackedMatrix),
}

impl Linear {
    /// Several matrices with the same input as one, their outputs side by side; `biases` belong to their rows.
    ///
    /// Fewer, larger products are faster, and each output is the same number either way. Matrices stored in different
    /// formats do not join.
    pub(crate) fn new(
        matrices: &[Matrix],
        bias: Option<Vec<f32>>,
        arithmetic: Arithmetic,
    ) -> Result<Self, ComputeError> {
        let joined;
        let matrix = match matrices {
            [one] => one,
            several => {
                joined = join(several);
                &joined
            }
        };
        let activation = arithmetic.activation.mlx();
        let bias = bias.map(|bias| Array::from_slice(&bias, &[bias.len() as i32]).as_dtype(activation)).transpose()?;
        if arithmetic.fast
            && let Some(packed) = pack(matrix)
        {
            return Ok(Self { weights: Weights::Packed(packed), bias });
        }
        let weights = match matrix {
            Matrix::Quantized(m) => {
                // MLX would cast scales to the activation type on every product; once is enough, and rounds the same.
                let affine = |bytes: &[u8]| -> Result<Array, ComputeError> {
                    let shape = [m.rows as i32, (m.columns / m.group) as i32];
                    Ok(evaluated(&hive_kernels::array_from_bytes(bytes, &shape, mlx_type(m.float))?, activation)?)
                };
                let shape = [m.rows as i32, (m.columns * m.bits / 32) as i32];
                Weights::Quantized {
                    words: hive_kernels::array_from_bytes(&m.words, &shape, Dtype::Uint32)?,
                    scales: affine(&m.scales)?,
                    biases: affine(&m.biases)?,
                    group: m.group as i32,
                    bits: m.bits as i32,
                }
            }
            Matrix::Float(t) => {
                let shape = [t.shape[0] as i32, t.shape[1] as i32];
                let array = hive_kernels::array_from_bytes(&t.bytes, &shape, mlx_type(t.float))?;
                Weights::Float(evaluated(&array, activation)?)
            }
        };
        Ok(Self { weights, bias })
    }

    /// `x [n, columns] -> [n, rows]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        let y = match &self.weights {
            Weights::Quantized { words, scales, biases, group, bits } => {
                mlx_rs::ops::quantized_matmul(x, words, scales, biases, true, *group, *bits)?
            }
            Weights::Float(weights) => mlx_rs::ops::matmul(x, weights.t())?,
            Weights::Packed(matrix) => matrix.matmul(x, None)?,
        };
        match &self.bias {
            Some(bias) => Ok(y.add(bias)?),
            None => Ok(y),
        }
    }

    /// The packed matrix, where that is all there is.
    pub(crate) fn packed(&self) -> Option<&PackedMatrix> {
        match (&self.weights, &self.bias) {
            (Weights::Packed(matrix), None) => Some(matrix),
            _ => None,
        }
    }

    /// `residual + x · Wᵀ`.
    pub(crate) fn forward_onto(&self, residual: &Array, x: &Array) -> Result<Array, ComputeError> {
        match self.packed() {
            Some(matrix) if matrix.rows().is_multiple_of(hive_kernels::LANES) => Ok(matrix.matmul(x, Some(residual))?),
            _ => Ok(residual.add(self.forward(x)?)?),
        }
    }
}

/// Whether several matrices can be one.
pub(crate) fn joinable(matrices: &[Matrix]) -> bool {
    let format = |matrix: &Matrix| match matrix {
        Matrix::Quantized(m) => (Some((m.bits, m.group)), m.float, m.columns),
        Matrix::Float(t) => (None, t.float, t.shape[1]),
    };
    matrices.windows(2).all(|pair| format(&pair[0]) == format(&pair[1]))
}

fn join(matrices: &[Matrix]) -> Matrix {
    let mut joined = matrices[0].clone();
    for matrix in &matrices[1..] {
        match (&mut joined, matrix) {
            (Matrix::Quantized(all), Matrix::Quantized(more)) => {
                all.rows += more.rows;
                all.words.extend_from_slice(&more.words);
                all.scales.extend_from_slice(&more.scales);
                all.biases.extend_from_slice(&more.biases);
            }
            (Matrix::Float(all), Matrix::Float(more)) => {
                all.shape[0] += more.shape[0];
                all.bytes.extend_from_slice(&more.bytes);
            }
            _ => debug_assert!(false, "callers ask `joinable` first"),
        }
    }
    joined
}

/// In the kernels' layout, where they have one for the format.
fn pack(matrix: &Matrix) -> Option<PackedMatrix> {
    match matrix {
        Matrix::Quantized(m) => pack_quantized(m),
        Matrix::Float(t) => {
            let format = match t.float {
                Float::F32 => Format::F32,
                Float::F16 => Format::F16,
                Float::Bf16 => Format::Bf16,
            };
            PackedMatrix::pack(format, t.shape[0], t.shape[1], &t.bytes, None).ok()
        }
    }
}

fn pack_quantized(m: &QuantizedMatrix) -> Option<PackedMatrix> {
    let format = match m.bits {
        4 => Format::Q4,
        8 => Format::Q8,
        _ => return None,
    };
    let scales = crate::weights::to_f32(m.float, &m.scales);
    let biases = crate::weights::to_f32(m.float, &m.biases);
    let affine = Affine { group: m.group, scales: &scales, biases: &biases };
    PackedMatrix::pack(format, m.rows, m.columns, &m.words, Some(affine)).ok()
}

/// The array in another type, computed now, so that what it came from can be freed.
pub(crate) fn evaluated(array: &Array, dtype: Dtype) -> Result<Array, mlx_rs::error::Exception> {
    let array = if array.dtype() == dtype { array.clone() } else { array.as_dtype(dtype)? };
    array.eval()?;
    Ok(array)
}

/// One or several products of the same input, outputs side by side.
#[derive(Debug)]
pub(crate) struct Projection {
    parts: Vec<Linear>,
}

impl Projection {
    pub(crate) fn new(matrices: Vec<(Matrix, Option<Vec<f32>>)>, arithmetic: Arithmetic) -> Result<Self, ComputeError> {
        let has_bias = matrices.iter().any(|(_, bias)| bias.is_some());
        let (matrices, biases): (Vec<_>, Vec<_>) = matrices.into_iter().unzip();
        let parts = if joinable(&matrices) {
            let rows = matrices.iter().map(Matrix::rows);
            let bias = has_bias.then(|| {
                biases.into_iter().zip(rows).flat_map(|(bias, rows)| bias.unwrap_or_else(|| vec![0.0; rows])).collect()
            });
            vec![Linear::new(&matrices, bias, arithmetic)?]
        } else {
            let each = matrices.into_iter().zip(biases);
            each.map(|(matrix, bias)| Linear::new(&[matrix], bias, arithmetic)).collect::<Result<_, _>>()?
        };
        Ok(Self { parts })
    }

    /// The packed matrix, where that is all there is.
    pub(crate) fn packed(&self) -> Option<&PackedMatrix> {
        match self.parts.as_slice() {
            [one] => one.packed(),
            _ => None,
        }
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        if let [one] = self.parts.as_slice() {
            return one.forward(x);
        }
        let outputs = self.parts.iter().map(|part| part.forward(x)).collect::<Result<Vec<_>, _>>()?;
        Ok(mlx_rs::ops::concatenate(&outputs, -1)?)
    }
}
