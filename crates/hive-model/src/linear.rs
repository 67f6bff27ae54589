//! Matrix products with hidden states, on MLX's kernels or on ours.

use hive_kernels::{BlockFloats, Format, Layout, PackedMatrix, Packing, Scaling};
use hive_weights::weights::block_floats::BlockFloat;
use hive_weights::weights::packing::widen;
use hive_weights::weights::{Biases, FileMatrix, Float, Matrix, MatrixFormat, QuantizedMatrix, matrix};
use mlx_rs::{Array, Dtype};

use crate::error::{ComputeError, LoadError};
use crate::hidden::ActivationType;
use crate::requantize::{format_for_mlx, requantized};

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
    Quantized {
        words: Array,
        scales: Array,
        biases: Array,
        group: i32,
        bits: i32,
    },
    /// Small floating-point numbers, on MLX's kernels as they are stored.
    BlockFloats {
        words: Array,
        scales: Array,
        kind: BlockFloat,
    },
    Float(Array),
    Packed(PackedMatrix),
}

impl Linear {
    /// Loads several matrices with the same input as one, with their outputs side by side, and their biases.
    ///
    /// Fewer, larger products are faster and give the same numbers. Matrices in different formats cannot be joined.
    /// Rows are copied a few at a time from the file to their final place.
    pub(crate) fn load(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let weights = match (packed_layout(matrices).filter(|_| arithmetic.fast), block_float(matrices)) {
            (Some(layout), _) => Weights::Packed(pack(matrices, layout)?),
            (None, Some(kind)) => Weights::of_block_floats(matrices, kind)?,
            (None, None) => Weights::for_mlx(for_mlx(matrices)?, arithmetic.activation.mlx())?,
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
        let linear = Self::load(matrices, arithmetic)?;
        Ok(Self { count: count as i32, ..linear })
    }

    /// `count` matrices of this shape, from numbers.
    pub(crate) fn of_numbers(
        numbers: &[f32],
        count: usize,
        [rows, columns]: [usize; 2],
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let rows = count * rows;
        let weights = if let Some(layout) = numbers_layout(rows, columns).filter(|_| arithmetic.fast) {
            let mut packing = Packing::new(layout).map_err(ComputeError::from)?;
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            packing.push(&bytes, &[], &[]).map_err(ComputeError::from)?;
            Weights::Packed(packing.finish().map_err(ComputeError::from)?)
        } else {
            let array = Array::from_slice(numbers, &[rows as i32, columns as i32]);
            Weights::Float(evaluated(&array, arithmetic.activation.mlx()).map_err(ComputeError::from)?)
        };
        Ok(Self { weights, bias: None, count: count as i32 })
    }

    /// The size of one such matrix in memory, in bytes.
    pub(crate) fn bytes_of_numbers([rows, columns]: [usize; 2], arithmetic: Arithmetic) -> u64 {
        let packed = numbers_layout(rows, columns).filter(|_| arithmetic.fast);
        packed.map_or(rows * columns * arithmetic.activation.bytes(), |layout| layout.bytes()) as u64
    }

    /// Multiplies `x [count, n, columns]` with each of the matrices: `[count, n, rows]`.
    pub(crate) fn each(&self, x: &Array) -> Result<Array, ComputeError> {
        let each = |all: &Array| all.reshape(&[self.count, all.dim(0) / self.count, all.dim(1)]);
        Ok(match &self.weights {
            Weights::Quantized { words, scales, biases, group, bits } => {
                let (words, scales, biases) = (each(words)?, each(scales)?, each(biases)?);
                mlx_rs::ops::quantized_matmul(x, words, scales, &biases, true, *group, *bits)?
            }
            Weights::BlockFloats { words, scales, kind } => {
                hive_kernels::block_matmul(x, &blocks(&each(words)?, &each(scales)?, *kind))?
            }
            Weights::Float(weights) => mlx_rs::ops::matmul(x, each(weights)?.swap_axes(-1, -2)?)?,
            Weights::Packed(_) => {
                return Err(ComputeError::Mlx("packed matrices are multiplied one by one".to_owned()));
            }
        })
    }

    /// Whether the fast kernels have a format for them.
    pub(crate) fn can_be_packed(matrices: &[FileMatrix<'_>]) -> bool {
        packed_layout(matrices).is_some()
    }

    /// The size of such a matrix in memory, in bytes.
    pub(crate) fn bytes_of(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> u64 {
        let (rows, columns) = (rows(matrices), matrices[0].columns());
        let activation = arithmetic.activation.bytes();
        let format = format_for_mlx(matrices[0].format(), columns);
        let packed = packed_layout(matrices).filter(|_| arithmetic.fast);
        let weights = match (packed, block_float(matrices), format) {
            (Some(layout), ..) => layout.bytes(),
            (None, Some(kind), _) => rows * kind.row_bytes(columns).iter().sum::<usize>(),
            (None, None, MatrixFormat::Float(_)) => rows * columns * activation,
            (None, None, MatrixFormat::Quantized { bits, group, .. }) => {
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
            Weights::BlockFloats { words, scales, .. } => words.nbytes() + scales.nbytes(),
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
            Weights::BlockFloats { words, scales, kind } => {
                hive_kernels::block_matmul(x, &blocks(words, scales, *kind))?
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
            Weights::BlockFloats { words, scales, kind } => {
                hive_kernels::block_gather(x, &blocks(&each(words)?, &each(scales)?, *kind), indices, sorted)?
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

/// Such matrices for MLX.
fn blocks<'a>(words: &'a Array, scales: &'a Array, kind: BlockFloat) -> BlockFloats<'a> {
    BlockFloats { words, scales, group: kind.group() as i32, bits: kind.bits() as i32, mode: kind.mode() }
}

/// The kind of small floating-point numbers that all these matrices are stored as, if they are.
fn block_float(matrices: &[FileMatrix<'_>]) -> Option<BlockFloat> {
    let kind = matrices[0].block_float()?;
    matrices.iter().all(|matrix| matrix.block_float() == Some(kind)).then_some(kind)
}

impl Weights {
    /// Codes and scales as they are stored, all rows after each other.
    fn of_block_floats(matrices: &[FileMatrix<'_>], kind: BlockFloat) -> Result<Self, LoadError> {
        let (rows, columns) = (rows(matrices), matrices[0].columns());
        let [code_bytes, scale_bytes] = kind.row_bytes(columns);
        let (mut codes, mut scales) = (Vec::with_capacity(rows * code_bytes), Vec::with_capacity(rows * scale_bytes));
        for matrix in matrices {
            let [more_codes, more_scales] = matrix.codes_and_scales(kind)?;
            codes.extend_from_slice(&more_codes);
            scales.extend_from_slice(&more_scales);
        }
        let array = |bytes: &[u8], width: usize, dtype| {
            hive_kernels::array_from_bytes(bytes, &[rows as i32, width as i32], dtype)
        };
        let words = array(&codes, code_bytes / 4, Dtype::Uint32).map_err(ComputeError::from)?;
        let scales = array(&scales, scale_bytes, Dtype::Uint8).map_err(ComputeError::from)?;
        Ok(Self::BlockFloats { words, scales, kind })
    }

    fn for_mlx(matrix: Matrix, activation: Dtype) -> Result<Self, ComputeError> {
        match matrix {
            Matrix::Quantized(m) => {
                // MLX would cast scales to the activation type in every product; casting once rounds the same.
                let affine = |bytes: &[u8]| -> Result<Array, ComputeError> {
                    let shape = [m.rows as i32, (m.columns / m.group) as i32];
                    Ok(evaluated(&hive_kernels::array_from_bytes(bytes, &shape, mlx_type(m.float))?, activation)?)
                };
                let scales = affine(&m.scales)?;
                let biases = match &m.biases {
                    Biases::Stored(bytes) => affine(bytes)?,
                    Biases::Multiple(multiple) => {
                        let multiple = Array::from_f32(*multiple).as_dtype(activation)?;
                        evaluated(&scales.multiply(multiple)?, activation)?
                    }
                };
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

/// Matrices stacked, in a format that MLX's kernels have.
fn for_mlx(matrices: &[FileMatrix<'_>]) -> Result<Matrix, LoadError> {
    let format = format_for_mlx(matrices[0].format(), matrices[0].columns());
    Ok(matrix::stacked(matrices, format, |part| requantized(part, format))?)
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

/// The fast kernels' format for weights of this many bits: the next wider one, which holds the same numbers.
fn packed_format(bits: usize) -> Option<(Format, usize)> {
    match bits {
        2..=4 => Some((Format::Q4, 4)),
        5 | 6 | 8 => Some((Format::Q8, 8)),
        _ => None,
    }
}

/// The kernels' layout for a matrix of numbers.
fn numbers_layout(rows: usize, columns: usize) -> Option<Layout> {
    Layout::new(Format::F32, rows, columns, None).ok()
}

/// The kernels' layout for these matrices stacked; `None` if there is none for their format.
fn packed_layout(matrices: &[FileMatrix<'_>]) -> Option<Layout> {
    let (format, scales) = match matrices[0].format() {
        MatrixFormat::Float(Float::F32) => (Format::F32, None),
        MatrixFormat::Float(Float::F16) => (Format::F16, None),
        MatrixFormat::Float(Float::Bf16) => (Format::Bf16, None),
        MatrixFormat::Quantized { bits, group, float, multiple } => {
            let (format, _) = packed_format(bits)?;
            let scaling = match (float, multiple) {
                (Float::F32, None) => Scaling::F32,
                (Float::F16, None) => Scaling::F16,
                (Float::Bf16, None) => Scaling::Bf16,
                (Float::F16, Some(multiple)) => Scaling::F16Multiple(multiple),
                (Float::F32, Some(multiple)) => Scaling::F32Multiple(multiple),
                (Float::Bf16, Some(_)) => return None,
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
            Matrix::Quantized(QuantizedMatrix { words, bits, scales, biases, .. }) => {
                let words = widen(words, bits, packed_format(bits).map_or(bits, |(_, wide)| wide));
                let biases = if let Biases::Stored(biases) = &biases { biases.as_slice() } else { &[] };
                packing.push(&words, &scales, biases)
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    /// The weights as the kernels have them: the products of unit vectors.
    fn held(linear: &Linear, rows: usize, columns: usize) -> Vec<f32> {
        let units = Array::eye::<f32>(columns as i32, None, None).unwrap();
        let products = linear.forward(&units).unwrap();
        let products = products.t().contiguous().unwrap();
        products.eval().unwrap();
        assert_eq!(products.shape(), [rows as i32, columns as i32]);
        products.as_slice::<f32>().to_vec()
    }

    #[test]
    fn both_kinds_of_kernels_have_every_gguf_type_exactly_or_within_what_the_documents_say() {
        let samples = oracle::samples();
        let weights = oracle::file(&samples);
        let [rows, columns] = oracle::SHAPE;
        for (index, sample) in samples.iter().enumerate() {
            for fast in [true, false] {
                let arithmetic = Arithmetic { fast, activation: ActivationType::F32 };
                let matrix = [weights.file_matrix(&oracle::matrix(index), rows, columns).unwrap()];
                let linear = Linear::load(&matrix, arithmetic).unwrap();
                assert_eq!(linear.packed().is_some(), fast, "{}", sample.name);
                assert_eq!(Linear::bytes_of(&matrix, arithmetic), linear.bytes() as u64, "{}, {fast}", sample.name);
                let values = held(&linear, rows, columns);
                // Of the largest value in 32: of docs/formats.md, or a rounding of single precision.
                let worst = match sample.name.as_str() {
                    "Q6_K" if !fast => 1.0 / 255.0 + 3e-7,
                    "Q2_K" | "Q3_K" if !fast => 1.0 / 63.0 + 3e-7,
                    _ => 3e-7,
                };
                for (values, expected) in values.chunks_exact(32).zip(sample.values.chunks_exact(32)) {
                    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                    let off = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= worst * largest, "{}, fast {fast}: off by {}", sample.name, off / largest);
                }
            }
        }
    }
}
