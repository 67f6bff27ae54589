//! Matrix products with hidden states, on MLX's kernels or on ours.

use hive_kernels::{Format, Layout, PackedMatrix, Packing, Scaling};
use mlx_rs::{Array, Dtype};

use crate::error::{ComputeError, LoadError};
use crate::hidden::ActivationType;
use crate::weights::{Biases, FileMatrix, Float, Matrix, MatrixFormat, QuantizedMatrix, matrix};

/// The kernels that multiply, and the number format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arithmetic {
    /// The fast kernels; the activation type is then `F32`.
    pub(crate) fast: bool,
    pub(crate) activation: ActivationType,
}

pub(crate) fn mlx_type(float: Float) -> Dtype {
    ActivationType::from(float).mlx()
}

/// `y = x · Wᵀ (+ bias)`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Array>,
    /// Several of them, of which each row takes its own; one otherwise.
    count: i32,
}

#[derive(Debug)]
enum Weights {
    Quantized { words: Array, scales: Array, biases: Array, group: i32, bits: i32 },
    Float(Array),
    Packed(PackedMatrix),
}

impl Linear {
    /// Loads several matrices with the same input as one, with their outputs side by side, and their biases.
    ///
    /// Fewer, larger products are faster and give the same numbers. Matrices in different formats cannot be joined.
    /// Rows are copied a few at a time from the file to their final place.
    pub(crate) fn load(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let weights = match packed_layout(matrices).filter(|_| arithmetic.fast) {
            Some(layout) => Weights::Packed(pack(matrices, layout)?),
            None => Weights::for_mlx(matrix::whole(matrices)?, arithmetic.activation.mlx())?,
        };
        Ok(Self { weights, bias: biases(matrices, arithmetic)?, count: 1 })
    }

    /// Loads `count` of them with the same shape, one after the other, for [`Self::gather`].
    pub(crate) fn load_stacked(
        matrices: &[FileMatrix<'_>],
        count: usize,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        if !joinable(matrices) {
            return Err(ComputeError::Mlx("the experts of a layer are stored in different formats".to_owned()).into());
        }
        let linear = Self::load(matrices, stacked(matrices, count, arithmetic))?;
        Ok(Self { count: count as i32, ..linear })
    }

    /// The size of such matrices in memory, in bytes.
    pub(crate) fn bytes_of_stacked(matrices: &[FileMatrix<'_>], count: usize, arithmetic: Arithmetic) -> u64 {
        Self::bytes_of(matrices, stacked(matrices, count, arithmetic))
    }

    /// The size of such a matrix in memory, in bytes.
    pub(crate) fn bytes_of(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> u64 {
        let (rows, columns) = (rows(matrices), matrices[0].columns());
        let activation = arithmetic.activation.bytes();
        let weights = match (packed_layout(matrices).filter(|_| arithmetic.fast), matrices[0].format()) {
            (Some(layout), _) => layout.bytes(),
            (None, MatrixFormat::Float(_)) => rows * columns * activation,
            (None, MatrixFormat::Quantized { bits, group, .. }) => {
                rows * (columns * bits / 8 + 2 * (columns / group) * activation)
            }
        };
        let has_bias = matrices.iter().any(FileMatrix::has_bias);
        (weights + if has_bias { rows * activation } else { 0 }) as u64
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::Quantized { words, scales, biases, .. } => words.nbytes() + scales.nbytes() + biases.nbytes(),
            Weights::Float(weights) => weights.nbytes(),
            Weights::Packed(matrix) => matrix.bytes(),
        };
        weights + self.bias.as_ref().map_or(0, Array::nbytes)
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

    /// Multiplies rows `x [.., 1, columns]` with the matrices of these indices, which have the shape of the rest:
    /// `[.., 1, rows]`. `sorted`: the indices ascend.
    pub(crate) fn gather(&self, x: &Array, indices: &Array, sorted: bool) -> Result<Array, ComputeError> {
        let each = |all: &Array| all.reshape(&[self.count, all.dim(0) / self.count, all.dim(1)]);
        let y = match &self.weights {
            Weights::Quantized { words, scales, biases, group, bits } => {
                let (words, scales, biases) = (each(words)?, each(scales)?, each(biases)?);
                mlx_rs::ops::gather_qmm(x, words, scales, &biases, None, indices, true, *group, *bits, sorted)?
            }
            Weights::Float(weights) => {
                mlx_rs::ops::gather_mm(x, each(weights)?.swap_axes(-1, -2)?, None, indices, sorted)?
            }
            Weights::Packed(_) => return Err(ComputeError::Mlx("packed matrices are not gathered".to_owned())),
        };
        match &self.bias {
            Some(bias) => {
                let bias = bias.reshape(&[self.count, 1, -1])?;
                Ok(y.add(bias.take_axis(indices, 0)?)?)
            }
            None => Ok(y),
        }
    }

    /// The packed matrix, if there is nothing else.
    pub(crate) fn packed(&self) -> Option<&PackedMatrix> {
        match (&self.weights, &self.bias) {
            (Weights::Packed(matrix), None) => Some(matrix),
            _ => None,
        }
    }

    /// The packed matrix and its bias.
    pub(crate) fn packed_with_bias(&self) -> Option<(&PackedMatrix, Option<&Array>)> {
        match &self.weights {
            Weights::Packed(matrix) => Some((matrix, self.bias.as_ref())),
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

impl Weights {
    fn for_mlx(matrix: Matrix, activation: Dtype) -> Result<Self, ComputeError> {
        match matrix {
            Matrix::Quantized(m) => {
                // MLX would cast scales to the activation type in every product; casting once rounds the same.
                let affine = |bytes: &[u8]| -> Result<Array, ComputeError> {
                    let shape = [m.rows as i32, (m.columns / m.group) as i32];
                    Ok(evaluated(&hive_kernels::array_from_bytes(bytes, &shape, mlx_type(m.float))?, activation)?)
                };
                let scales = affine(&m.scales)?;
                let biases = affine(&m.biases.of(&m.scales, m.float, Into::into))?;
                let shape = [m.rows as i32, (m.columns * m.bits / 32) as i32];
                let words = hive_kernels::array_from_bytes(&m.words, &shape, Dtype::Uint32)?;
                Ok(Self::Quantized { words, scales, biases, group: m.group as i32, bits: m.bits as i32 })
            }
            Matrix::Float(t) => {
                let shape = [t.shape[0] as i32, t.shape[1] as i32];
                let array = hive_kernels::array_from_bytes(&t.bytes, &shape, mlx_type(t.float))?;
                drop(t);
                Ok(Self::Float(evaluated(&array, activation)?))
            }
        }
    }
}

/// The arithmetic of stacked matrices: the fast kernels want each to fill its blocks of rows.
fn stacked(matrices: &[FileMatrix<'_>], count: usize, arithmetic: Arithmetic) -> Arithmetic {
    let fills = (rows(matrices) / count).is_multiple_of(hive_kernels::LANES);
    Arithmetic { fast: arithmetic.fast && fills, ..arithmetic }
}

/// Whether several matrices can be joined.
fn joinable(matrices: &[FileMatrix<'_>]) -> bool {
    let format = |matrix: &FileMatrix<'_>| (matrix.format(), matrix.columns());
    matrices.windows(2).all(|pair| format(&pair[0]) == format(&pair[1]))
}

fn rows(matrices: &[FileMatrix<'_>]) -> usize {
    matrices.iter().map(FileMatrix::rows).sum()
}

/// The biases of all rows, if there are any.
fn biases(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> Result<Option<Array>, LoadError> {
    if !matrices.iter().any(FileMatrix::has_bias) {
        return Ok(None);
    }
    let mut all = Vec::with_capacity(rows(matrices));
    for matrix in matrices {
        all.extend(matrix.bias()?.unwrap_or_else(|| vec![0.0; matrix.rows()]));
    }
    let array = Array::from_slice(&all, &[all.len() as i32]);
    Ok(Some(evaluated(&array, arithmetic.activation.mlx()).map_err(ComputeError::from)?))
}

/// The kernels' layout for these matrices stacked; `None` if there is none for their format.
fn packed_layout(matrices: &[FileMatrix<'_>]) -> Option<Layout> {
    let (format, scales) = match matrices[0].format() {
        MatrixFormat::Float(Float::F32) => (Format::F32, None),
        MatrixFormat::Float(Float::F16) => (Format::F16, None),
        MatrixFormat::Float(Float::Bf16) => (Format::Bf16, None),
        MatrixFormat::Quantized { bits, group, float, multiple } => {
            let format = match bits {
                4 => Format::Q4,
                8 => Format::Q8,
                _ => return None,
            };
            let scaling = match (float, multiple) {
                (Float::F32, None) => Scaling::F32,
                (Float::F16, None) => Scaling::F16,
                (Float::Bf16, None) => Scaling::Bf16,
                (Float::F16, Some(multiple)) => Scaling::F16Multiple(multiple),
                (_, Some(_)) => return None,
            };
            (format, Some((group, scaling)))
        }
    };
    Layout::new(format, rows(matrices), matrices[0].columns(), scales).ok()
}

fn pack(matrices: &[FileMatrix<'_>], layout: Layout) -> Result<PackedMatrix, LoadError> {
    let mut packing = Packing::new(layout).map_err(ComputeError::from)?;
    for part in matrices.iter().flat_map(FileMatrix::parts) {
        let pushed = match part? {
            Matrix::Quantized(QuantizedMatrix { words, scales, biases: Biases::Stored(biases), .. }) => {
                packing.push(&words, &scales, &biases)
            }
            Matrix::Quantized(QuantizedMatrix { words, scales, .. }) => packing.push(&words, &scales, &[]),
            Matrix::Float(tensor) => packing.push(&tensor.bytes, &[], &[]),
        };
        pushed.map_err(ComputeError::from)?;
    }
    Ok(packing.finish().map_err(ComputeError::from)?)
}

/// Converts an array to another type and evaluates it, so that the source can be freed.
pub(crate) fn evaluated(array: &Array, dtype: Dtype) -> Result<Array, mlx_rs::error::Exception> {
    let array = if array.dtype() == dtype { array.clone() } else { array.as_dtype(dtype)? };
    array.eval()?;
    Ok(array)
}

/// One or several products of the same input, with their outputs side by side.
#[derive(Debug)]
pub(crate) struct Projection {
    parts: Vec<Linear>,
}

impl Projection {
    pub(crate) fn load(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let parts = joined(matrices).map(|part| Linear::load(part, arithmetic));
        Ok(Self { parts: parts.collect::<Result<_, _>>()? })
    }

    /// The size of such a projection in memory, in bytes.
    pub(crate) fn bytes_of(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> u64 {
        joined(matrices).map(|part| Linear::bytes_of(part, arithmetic)).sum()
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(Linear::bytes).sum()
    }

    /// The packed matrix, if there is nothing else.
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

/// The groups of matrices that are stored as one: all of them if they can be joined, otherwise each alone.
fn joined<'a, 'f>(matrices: &'a [FileMatrix<'f>]) -> std::slice::Chunks<'a, FileMatrix<'f>> {
    matrices.chunks(if joinable(matrices) { matrices.len() } else { 1 })
}
