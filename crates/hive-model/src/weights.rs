//! Weight files as tables of named tensors, read one tensor at a time.
//!
//! Two formats, one view: names and layouts are those of Hugging Face's Llama checkpoints, whatever the file calls
//! them. Files are read by position rather than mapped, so that a file truncated under our feet is an error and not a
//! signal, and pages of the file do not count as our memory.

pub(crate) mod family;
pub mod gguf;
pub(crate) mod matrix;
pub mod safetensors;

use std::path::PathBuf;

pub use gguf::Gguf;
pub use matrix::{Biases, FileMatrix, MatrixFormat};
pub use safetensors::SafetensorsFolder;

/// The number format of a tensor that is not quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Float {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// A tensor's values in memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatTensor {
    /// Number format.
    pub float: Float,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Little-endian values.
    pub bytes: Vec<u8>,
}

impl FloatTensor {
    /// The values as single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        to_f32(self.float, &self.bytes)
    }
}

/// An affine-quantized matrix as MLX packs it: `w = scale · q + bias` per group of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedMatrix {
    /// Output rows.
    pub rows: usize,
    /// Input columns.
    pub columns: usize,
    /// Bits per weight.
    pub bits: usize,
    /// Columns per scale.
    pub group: usize,
    /// Little-endian 32-bit words, weights from the low bits up.
    pub words: Vec<u8>,
    /// Number format of scales and biases.
    pub float: Float,
    /// `rows × columns / group` scales.
    pub scales: Vec<u8>,
    /// As many biases.
    pub biases: Biases,
}

/// A weight matrix `[rows, columns]`, quantized or not.
#[derive(Debug, Clone, PartialEq)]
pub enum Matrix {
    /// Affine-quantized.
    Quantized(QuantizedMatrix),
    /// Plain numbers; the shape has two dimensions.
    Float(FloatTensor),
}

impl Matrix {
    /// Output rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.rows,
            Self::Float(tensor) => tensor.shape[0],
        }
    }

    /// Input columns.
    pub fn columns(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.columns,
            Self::Float(tensor) => tensor.shape[1],
        }
    }

    /// The number format its products take: that of the scales, or of the weights.
    pub fn float(&self) -> Float {
        match self {
            Self::Quantized(matrix) => matrix.float,
            Self::Float(tensor) => tensor.float,
        }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Quantized(m) => m.words.len() + m.scales.len() + m.biases.bytes(),
            Self::Float(tensor) => tensor.bytes.len(),
        }
    }
}

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file has no such tensor.
    #[error("{file} has no tensor {name}; the file is incomplete or of another architecture")]
    Missing {
        /// The file or folder.
        file: PathBuf,
        /// The tensor, as the file would name it.
        name: String,
    },
    /// A shape other than the configuration asks for.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The configuration's shape.
        expected: Vec<usize>,
    },
    /// A number format that is not read here.
    #[error("tensor {name} has type {found}, which is not supported; supported are {supported}")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// What could be read.
        supported: &'static str,
    },
    /// The file could not be read.
    #[error("cannot read tensor {name} from {file}: {source}")]
    Read {
        /// The tensor.
        name: String,
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// A tensor as it lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    /// By its Hugging Face name.
    pub(crate) name: String,
    /// Its type, as its format calls it.
    pub(crate) kind: String,
    /// Outermost first.
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: u64,
}

/// Where a model's tensors come from.
#[derive(Debug)]
pub enum Weights {
    /// One GGUF file.
    Gguf(Gguf),
    /// A folder of safetensors files.
    Safetensors(SafetensorsFolder),
}

impl Weights {
    /// The matrix `name` (without `.weight`) of the shape given.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, TensorError> {
        self.file_matrix(name, rows, columns)?.whole()
    }

    /// The same, to be read later.
    ///
    /// # Errors
    /// There is none, or it is of another shape, or stored in a way that is not read here.
    pub fn file_matrix(&self, name: &str, rows: usize, columns: usize) -> Result<FileMatrix<'_>, TensorError> {
        FileMatrix::find(self, name, rows, columns)
    }

    /// The vector `name` (with `.weight` or `.bias`), of the length given.
    pub fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        match self {
            Self::Gguf(file) => file.vector(name, length),
            Self::Safetensors(folder) => folder.vector(name, length),
        }
    }

    /// Whether the file has the tensor `name` (with `.weight` or `.bias`).
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Gguf(file) => file.contains(name),
            Self::Safetensors(folder) => folder.contains(name),
        }
    }

    /// A tensor that a model of this family with so many layers does not have, if there is one, as the file calls it.
    pub(crate) fn unknown(&self, layers: usize) -> Option<String> {
        match self {
            Self::Gguf(file) => file.unknown(layers),
            Self::Safetensors(folder) => folder.unknown(layers),
        }
    }

    /// The tensors that a model of this family with so many layers computes with, by their Hugging Face names.
    pub(crate) fn computed(&self, layers: usize) -> Vec<StoredTensor> {
        let all = match self {
            Self::Gguf(file) => file.stored(),
            Self::Safetensors(folder) => folder.stored(),
        };
        all.into_iter().filter(|tensor| family::is_computed(&tensor.name, layers)).collect()
    }

    /// Bytes of a tensor as they are stored, from an offset on.
    pub(crate) fn read(&self, tensor: &StoredTensor, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        match self {
            Self::Gguf(file) => file.read_stored(&tensor.name, offset, length),
            Self::Safetensors(folder) => folder.read_stored(&tensor.name, offset, length),
        }
    }

    /// Bytes on disk of all tensors whose Hugging Face name satisfies `wanted`.
    pub fn stored_bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        match self {
            Self::Gguf(file) => file.stored_bytes(wanted),
            Self::Safetensors(folder) => folder.stored_bytes(wanted),
        }
    }
}

/// Little-endian numbers of a format as single precision.
pub fn to_f32(float: Float, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match float {
        Float::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Float::F16 => pairs().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        Float::Bf16 => pairs().map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
    }
}
