//! Tensors, plain and quantized, in memory and in files; and why one cannot be read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::packing::unpack;

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
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Little-endian values.
    pub bytes: Vec<u8>,
}

impl FloatTensor {
    /// Converts the values to single precision.
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
    /// Little-endian 32-bit words, with weights from the low bits up.
    pub words: Vec<u8>,
    /// Number format of scales and biases.
    pub float: Float,
    /// `rows × columns / group` scales.
    pub scales: Vec<u8>,
    /// As many biases as scales.
    pub biases: Biases,
}

impl QuantizedMatrix {
    /// The values of one row. Nothing is rounded on the way but the sum of product and bias, to single precision.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let part = |width: usize| row * width..(row + 1) * width;
        let width = self.columns / self.group * self.float.bytes();
        let scales = to_f32(self.float, &self.scales[part(width)]);
        let biases = match &self.biases {
            Biases::Stored(bytes) => to_f32(self.float, &bytes[part(width)]),
            Biases::Multiple(multiple) => scales.iter().map(|scale| scale * multiple).collect(),
        };
        let numbers = unpack(&self.words[part(self.columns * self.bits / 8)], self.bits);
        let groups = numbers.chunks_exact(self.group).zip(scales.iter().zip(&biases));
        groups.flat_map(|(group, (scale, bias))| group.iter().map(move |q| scale * f32::from(*q) + bias)).collect()
    }
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

    /// The values of one row, in single precision.
    pub fn row(&self, row: usize) -> Vec<f32> {
        match self {
            Self::Quantized(matrix) => matrix.row(row),
            Self::Float(tensor) => {
                let width = tensor.shape[1] * tensor.float.bytes();
                to_f32(tensor.float, &tensor.bytes[row * width..(row + 1) * width])
            }
        }
    }

    /// Changes its numbers, scales and biases, each a row after the other.
    pub(super) fn each_part(&mut self, mut change: impl FnMut(&mut Vec<u8>)) {
        match self {
            Self::Float(tensor) => change(&mut tensor.bytes),
            Self::Quantized(matrix) => {
                change(&mut matrix.words);
                change(&mut matrix.scales);
                if let Biases::Stored(biases) = &mut matrix.biases {
                    change(biases);
                }
            }
        }
    }

    /// Its size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Quantized(m) => m.words.len() + m.scales.len() + m.biases.bytes(),
            Self::Float(tensor) => tensor.bytes.len(),
        }
    }
}

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file has no such tensor.
    #[error("{file} has no tensor {name}; the file is incomplete or of another architecture")]
    Missing {
        /// The file or folder.
        file: PathBuf,
        /// The tensor, by its name in the file.
        name: String,
    },
    /// The shape differs from the configuration.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
    },
    /// The number format is not supported.
    #[error("tensor {name} has type {found}, which is not supported; supported are {supported}")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// The supported formats.
        supported: &'static str,
    },
    /// A number of it is none.
    #[error("tensor {name} or its scales hold codes that stand for no number (NaN); the file is corrupt")]
    NotANumber {
        /// The tensor.
        name: String,
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

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    /// Its Hugging Face name.
    pub(crate) name: String,
    /// Its type, by the format's name for it.
    pub(crate) kind: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: u64,
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorPlace<'a> {
    /// Its Hugging Face name.
    pub(crate) name: String,
    pub(crate) file: &'a Path,
    /// Offsets in the file.
    pub(crate) bytes: Range<u64>,
}

/// Reads bytes of a tensor, which lies at this place in a file, from an offset in it on.
///
/// # Errors
/// Reading failed, or the tensor has fewer bytes: what follows it is another's.
pub(crate) fn read_within(file: &File, place: Range<u64>, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let bytes = place.end - place.start;
    if offset.checked_add(length).is_none_or(|end| end > bytes) {
        let why = format!("{length} bytes are wanted from {offset} on, and the tensor has only {bytes} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why));
    }
    let mut read = vec![0; length as usize];
    file.read_exact_at(&mut read, place.start + offset)?;
    Ok(read)
}

/// The storage format of a matrix.
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
        /// If biases are not stored: the multiple of its scale that each one is.
        multiple: Option<f32>,
    },
}

impl MatrixFormat {
    /// Bytes per row of this many columns: of its weights, of its scales, and of its biases.
    pub fn row_bytes(self, columns: usize) -> [usize; 3] {
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
    /// Each is this multiple of its scale, a power of two.
    Multiple(f32),
}

impl Biases {
    /// Their size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Stored(bytes) => bytes.len(),
            Self::Multiple(_) => 0,
        }
    }
}

/// Converts little-endian numbers of this format to single precision.
pub fn to_f32(float: Float, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    match float {
        Float::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Float::F16 => pairs().map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
        Float::Bf16 => pairs().map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
    }
}
