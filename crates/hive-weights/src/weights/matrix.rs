//! A weight matrix in a file: its format is known before it is read, and it is read a few rows at a time.
//!
//! So its memory can be planned, and loading it takes no more than that: there is never a second copy of a matrix in
//! memory.

use std::ops::Range;

use super::at_load::in_format;
use super::block_floats::BlockFloat;
use super::{Biases, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, TensorError, Weights};

/// Bytes read at a time. Smaller reads need more calls; larger ones take more memory beside the destination.
const PART_BYTES: usize = 1 << 20;

/// A matrix `[rows, columns]` in a file.
#[derive(Debug)]
pub struct FileMatrix<'a> {
    weights: &'a Weights,
    name: String,
    rows: usize,
    columns: usize,
    /// As it is read; another than in the file if it is quantized at load.
    format: MatrixFormat,
    stored: MatrixFormat,
    /// How many matrices the file's tensor holds, if several, and this one's first row in it.
    stacked: Option<usize>,
    first: usize,
    /// If the file has another order: the number of rows that are read together.
    together: usize,
}

impl Weights {
    /// Reads the matrix `name` (without `.weight`), which must have this shape.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, TensorError> {
        self.file_matrix(name, rows, columns)?.whole()
    }

    /// Finds a matrix, to be read later.
    ///
    /// # Errors
    /// It is missing, or has another shape or an unsupported format.
    pub fn file_matrix(&self, name: &str, rows: usize, columns: usize) -> Result<FileMatrix<'_>, TensorError> {
        let (format, together) = match self {
            Self::Gguf(file) => file.matrix_format(name, None, rows, columns)?,
            Self::Safetensors(folder) => (folder.matrix_format(name, None, rows, columns)?, 1),
        };
        Ok(FileMatrix {
            weights: self,
            name: name.to_owned(),
            rows,
            columns,
            format: self.format_at_load(name, format, columns),
            stored: format,
            stacked: None,
            first: 0,
            together,
        })
    }

    /// Finds `count` matrices `[rows, columns]` in one tensor, to be read later.
    ///
    /// # Errors
    /// It is missing, or has another shape or an unsupported format.
    pub fn stacked_matrices(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<FileMatrix<'_>>, TensorError> {
        let format = match self {
            Self::Gguf(file) => file.matrix_format(name, Some(count), rows, columns)?.0,
            Self::Safetensors(folder) => folder.matrix_format(name, Some(count), rows, columns)?,
        };
        let (stored, format) = (format, self.format_at_load(name, format, columns));
        let one = |n: usize| {
            let first = n * rows;
            let name = name.to_owned();
            FileMatrix { weights: self, name, rows, columns, format, stored, stacked: Some(count), first, together: 1 }
        };
        Ok((0..count).map(one).collect())
    }

    fn block_float(&self, name: &str) -> Option<BlockFloat> {
        match self {
            Self::Gguf(file) => file.block_float(name),
            Self::Safetensors(folder) => folder.block_float(name),
        }
    }

    fn format_at_load(&self, name: &str, stored: MatrixFormat, columns: usize) -> MatrixFormat {
        match self.at_load().filter(|_| self.block_float(name).is_none()) {
            Some(at_load) => at_load.format_of(name, stored, columns),
            None => stored,
        }
    }
}

impl FileMatrix<'_> {
    /// Output rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The storage format.
    pub fn format(&self) -> MatrixFormat {
        self.format
    }

    /// The kind of small floating-point numbers that it is stored as, if it is.
    pub fn block_float(&self) -> Option<BlockFloat> {
        self.weights.block_float(&self.name)
    }

    /// All of its codes and scales, row after row, as stored ([`BlockFloat::row_bytes`] each). `kind` is what
    /// [`Self::block_float`] said.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn codes_and_scales(&self, kind: BlockFloat) -> Result<[Vec<u8>; 2], TensorError> {
        let rows = self.first..self.first + self.rows;
        match self.weights {
            Weights::Gguf(file) => file.block_rows(&self.name, self.columns, rows),
            Weights::Safetensors(folder) => folder.block_rows(&self.name, kind, self.columns, &rows),
        }
    }

    /// Whether the file has a bias for its outputs.
    pub fn has_bias(&self) -> bool {
        self.weights.contains(&self.bias_name())
    }

    /// Its bias, one number per output row, if the file has one.
    ///
    /// # Errors
    /// It has another shape, or the file cannot be read.
    pub fn bias(&self) -> Result<Option<Vec<f32>>, TensorError> {
        if !self.has_bias() {
            return Ok(None);
        }
        let (name, rows) = (self.bias_name(), self.rows);
        let vector = match self.stacked {
            Some(count) => self.weights.stacked_vector(&name, count, rows, self.first / rows)?,
            None => self.weights.vector(&name, rows)?,
        };
        Ok(Some(vector.to_f32()))
    }

    fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// Its rows in order, in parts that are small beside any matrix of a large model.
    pub fn parts(&self) -> impl Iterator<Item = Result<Matrix, TensorError>> {
        let row_bytes: usize = self.stored.row_bytes(self.columns).iter().sum();
        let at_once = (PART_BYTES / row_bytes.max(1)).max(1).next_multiple_of(self.together);
        let end = self.first + self.rows;
        (self.first..end).step_by(at_once).map(move |start| self.read(start..(start + at_once).min(end)))
    }

    /// Reads these rows, counted from the first of the tensor.
    pub(crate) fn read(&self, rows: Range<usize>) -> Result<Matrix, TensorError> {
        let stored = match self.weights {
            Weights::Gguf(file) => file.matrix_rows(&self.name, self.columns, rows)?,
            Weights::Safetensors(folder) => folder.matrix_rows(&self.name, self.columns, self.stored, rows)?,
        };
        Ok(in_format(stored, self.format))
    }

    /// Reads the whole matrix.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn whole(&self) -> Result<Matrix, TensorError> {
        whole(std::slice::from_ref(self))
    }
}

/// Several matrices with the same format and number of columns, stacked.
pub(crate) fn whole(matrices: &[FileMatrix<'_>]) -> Result<Matrix, TensorError> {
    stacked(matrices, matrices[0].format, |part| part)
}

/// Stacks matrices `[rows, columns]`, of which there is at least one, to `[sum of rows, columns]`. Their parts are
/// converted to another format as they are read.
///
/// # Errors
/// A file cannot be read.
pub fn stacked(
    matrices: &[FileMatrix<'_>],
    format: MatrixFormat,
    converted: impl Fn(Matrix) -> Matrix,
) -> Result<Matrix, TensorError> {
    let rows = matrices.iter().map(FileMatrix::rows).sum();
    let mut all = Matrix::with_room(format, rows, matrices[0].columns);
    for part in matrices.iter().flat_map(FileMatrix::parts) {
        all.append(converted(part?));
    }
    Ok(all)
}

impl Matrix {
    /// An empty matrix with room for this many rows.
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

    /// Appends the rows of another matrix of the same format.
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
