//! A weight matrix in a file: its format is known before it is read, and it is read a few rows at a time.
//!
//! So what it will take in memory can be planned, and loading it takes no more than that: no second copy of a matrix is ever
//! in memory.

use std::borrow::Cow;
use std::ops::Range;

use super::{Float, FloatTensor, Matrix, QuantizedMatrix, TensorError, Weights, to_f32};

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MatrixFormat {
    /// Plain numbers.
    Float(Float),
    /// Affine-quantized.
    Quantized {
        /// Bits per weight.
        bits: usize,
        /// Columns per scale.
        group: usize,
        /// Number format of scales and biases.
        float: Float,
        /// Where biases are not stored: each is so many times its scale.
        multiple: Option<f32>,
    },
}

impl MatrixFormat {
    /// Bytes of a row: of its weights, of its scales, and of its biases.
    pub(crate) fn row_bytes(self, columns: usize) -> [usize; 3] {
        match self {
            Self::Float(float) => [columns * float.bytes(), 0, 0],
            Self::Quantized { bits, group, float, multiple } => {
                let scales = columns / group * float.bytes();
                [columns * bits / 8, scales, if multiple.is_some() { 0 } else { scales }]
            }
        }
    }
}

/// The biases of a quantized matrix.
#[derive(Debug, Clone, PartialEq)]
pub enum Biases {
    /// As many as there are scales, in the same number format.
    Stored(Vec<u8>),
    /// Each is so many times its scale, a power of two.
    Multiple(f32),
}

impl Biases {
    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Stored(bytes) => bytes.len(),
            Self::Multiple(_) => 0,
        }
    }

    /// Those of some scales in the number format given; `stored` picks them from the bytes where they are stored.
    pub(crate) fn of<'a>(
        &'a self,
        scales: &[u8],
        float: Float,
        stored: impl FnOnce(&'a [u8]) -> Cow<'a, [u8]>,
    ) -> Cow<'a, [u8]> {
        let multiple = match self {
            Self::Stored(bytes) => return stored(bytes),
            Self::Multiple(multiple) => *multiple,
        };
        let products = to_f32(float, scales).into_iter().map(|scale| scale * multiple);
        Cow::Owned(match float {
            Float::F32 => products.flat_map(f32::to_le_bytes).collect(),
            Float::F16 => products.flat_map(|product| half::f16::from_f32(product).to_le_bytes()).collect(),
            Float::Bf16 => products.flat_map(|product| half::bf16::from_f32(product).to_le_bytes()).collect(),
        })
    }
}

/// Read at a time. Less takes more calls; more is held beside what is filled with it.
const PART_BYTES: usize = 1 << 20;

/// A matrix `[rows, columns]` in a file.
#[derive(Debug)]
pub struct FileMatrix<'a> {
    weights: &'a Weights,
    name: String,
    rows: usize,
    columns: usize,
    format: MatrixFormat,
    /// Rows whose order in the file is another, which are read together.
    together: usize,
}

impl<'a> FileMatrix<'a> {
    pub(super) fn find(weights: &'a Weights, name: &str, rows: usize, columns: usize) -> Result<Self, TensorError> {
        let (format, together) = match weights {
            Weights::Gguf(file) => file.matrix_format(name, rows, columns)?,
            Weights::Safetensors(folder) => (folder.matrix_format(name, rows, columns)?, 1),
        };
        Ok(Self { weights, name: name.to_owned(), rows, columns, format, together })
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How it is stored.
    pub fn format(&self) -> MatrixFormat {
        self.format
    }

    /// The file's bias of its outputs, if it has one.
    pub(crate) fn has_bias(&self) -> bool {
        self.weights.contains(&self.bias_name())
    }

    pub(crate) fn bias(&self) -> Result<Option<Vec<f32>>, TensorError> {
        if !self.has_bias() {
            return Ok(None);
        }
        Ok(Some(self.weights.vector(&self.bias_name(), self.rows)?.to_f32()))
    }

    fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// Its rows from first to last, in parts that are small beside any matrix of a large model.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Result<Matrix, TensorError>> {
        let row_bytes: usize = self.format.row_bytes(self.columns).iter().sum();
        let at_once = (PART_BYTES / row_bytes.max(1)).max(1).next_multiple_of(self.together);
        (0..self.rows).step_by(at_once).map(move |start| self.read(start..(start + at_once).min(self.rows)))
    }

    fn read(&self, rows: Range<usize>) -> Result<Matrix, TensorError> {
        match self.weights {
            Weights::Gguf(file) => file.matrix_rows(&self.name, self.columns, rows, self.together),
            Weights::Safetensors(folder) => folder.matrix_rows(&self.name, self.columns, self.format, rows),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn whole(&self) -> Result<Matrix, TensorError> {
        whole(std::slice::from_ref(self))
    }
}

/// Several matrices of one format and as many columns, one below the other.
pub(crate) fn whole(matrices: &[FileMatrix<'_>]) -> Result<Matrix, TensorError> {
    let rows = matrices.iter().map(FileMatrix::rows).sum();
    let mut all = Matrix::with_room(matrices[0].format, rows, matrices[0].columns);
    for part in matrices.iter().flat_map(FileMatrix::parts) {
        all.append(part?);
    }
    Ok(all)
}

impl Matrix {
    /// One without rows, and room for so many.
    fn with_room(format: MatrixFormat, rows: usize, columns: usize) -> Self {
        let [weights, scales, biases] = format.row_bytes(columns).map(|bytes| Vec::with_capacity(rows * bytes));
        match format {
            MatrixFormat::Float(float) => Self::Float(FloatTensor { float, shape: vec![0, columns], bytes: weights }),
            MatrixFormat::Quantized { bits, group, float, multiple } => Self::Quantized(QuantizedMatrix {
                rows: 0,
                columns,
                bits,
                group,
                words: weights,
                float,
                scales,
                biases: multiple.map_or(Biases::Stored(biases), Biases::Multiple),
            }),
        }
    }

    /// Adds the rows of another of the same format.
    fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Quantized(all), Self::Quantized(more)) => {
                all.rows += more.rows;
                all.words.extend_from_slice(&more.words);
                all.scales.extend_from_slice(&more.scales);
                if let (Biases::Stored(all), Biases::Stored(more)) = (&mut all.biases, more.biases) {
                    all.extend_from_slice(&more);
                }
            }
            (Self::Float(all), Self::Float(more)) => {
                all.shape[0] += more.shape[0];
                all.bytes.extend_from_slice(&more.bytes);
            }
            _ => debug_assert!(false, "parts of one format"),
        }
    }
}
