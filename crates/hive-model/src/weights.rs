//! Weight files as tables of named tensors, read one tensor at a time.
//!
//! Both formats are presented alike: names and layouts are those of Hugging Face's Llama checkpoints, whatever the file
//! uses. Files are read by position rather than mapped, so a file that is truncated meanwhile causes an error and not a
//! signal, and pages of the file do not count as this process's memory.

pub(crate) mod family;
pub mod gguf;
pub(crate) mod matrix;
pub(crate) mod packing;
pub(crate) mod requantize;
pub mod safetensors;
mod tensor;

pub use gguf::Gguf;
pub use matrix::FileMatrix;
pub use safetensors::SafetensorsFolder;
pub(crate) use tensor::StoredTensor;
pub use tensor::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, TensorError, to_f32};

/// The source of a model's tensors.
#[derive(Debug)]
pub enum Weights {
    /// One GGUF file.
    Gguf(Gguf),
    /// A folder of safetensors files.
    Safetensors(SafetensorsFolder),
}

impl Weights {
    /// Reads the vector `name` (with `.weight` or `.bias`), which must have this length.
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

    /// A tensor that a model of this family with this many layers does not have, if there is one, by its name in the
    /// file.
    pub(crate) fn unknown(&self, layers: usize) -> Option<String> {
        match self {
            Self::Gguf(file) => file.unknown(layers),
            Self::Safetensors(folder) => folder.unknown(layers),
        }
    }

    /// The tensors that a model of this family with this many layers computes with, by their Hugging Face names.
    pub(crate) fn computed(&self, layers: usize) -> Vec<StoredTensor> {
        let all = match self {
            Self::Gguf(file) => file.stored(),
            Self::Safetensors(folder) => folder.stored(),
        };
        all.into_iter().filter(|tensor| family::is_computed(&tensor.name, layers)).collect()
    }

    /// Reads bytes of a tensor as stored, from an offset on.
    pub(crate) fn read(&self, tensor: &StoredTensor, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        match self {
            Self::Gguf(file) => file.read_stored(&tensor.name, offset, length),
            Self::Safetensors(folder) => folder.read_stored(&tensor.name, offset, length),
        }
    }
}
