//! Weight files as tables of named tensors, read one tensor at a time.
//!
//! Both formats are presented alike: names and layouts are those of Hugging Face's checkpoints, whatever the file uses. Files are read by position rather than mapped, so a file that is truncated meanwhile causes an error and not a
//! signal, and pages of the file do not count as this process's memory.

mod at_load;
pub mod block_floats;
pub mod gguf;
pub mod matrix;
pub mod names;
pub mod packing;
pub mod safetensors;
mod tensor;

use std::path::Path;

use crate::config::ModelConfig;

pub use at_load::AtLoad;
pub use gguf::Gguf;
pub use matrix::FileMatrix;
pub use safetensors::SafetensorsFolder;
pub use tensor::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, TensorError, to_f32};
pub(crate) use tensor::{StoredTensor, TensorPlace, read_within};

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

    /// Reads one of `count` vectors of this length in one tensor.
    pub(crate) fn stacked_vector(
        &self,
        name: &str,
        count: usize,
        length: usize,
        at: usize,
    ) -> Result<FloatTensor, TensorError> {
        match self {
            Self::Gguf(file) => file.stacked_vector(name, count, length, at),
            Self::Safetensors(folder) => folder.stacked_vector(name, count, length, at),
        }
    }

    /// Reads the weights of a convolution over tokens, each channel alone: `[channels, taps]`.
    ///
    /// # Errors
    /// They are missing, or have another shape or an unsupported type.
    pub fn convolution(&self, name: &str, channels: usize, taps: usize) -> Result<FloatTensor, TensorError> {
        match self {
            Self::Gguf(file) => file.convolution(name, channels, taps),
            Self::Safetensors(folder) => folder.convolution(name, channels, taps),
        }
    }

    /// How its plain matrices are quantized as they are read.
    pub(crate) fn at_load(&self) -> Option<AtLoad> {
        match self {
            Self::Gguf(file) => file.at_load,
            Self::Safetensors(folder) => folder.at_load,
        }
    }

    /// Quantizes plain matrices from now on as they are read.
    pub(crate) fn quantize_at_load(&mut self, at_load: AtLoad) {
        match self {
            Self::Gguf(file) => file.at_load = Some(at_load),
            Self::Safetensors(folder) => folder.at_load = Some(at_load),
        }
    }

    /// Whether this is a GGUF file, in which some tensors are other numbers than elsewhere.
    pub fn is_gguf(&self) -> bool {
        matches!(self, Self::Gguf(_))
    }

    /// Whether the file has the tensor `name` (with `.weight` or `.bias`).
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Gguf(file) => file.contains(name),
            Self::Safetensors(folder) => folder.contains(name),
        }
    }

    /// A tensor that this model does not have, if there is one, by its name in the file.
    pub(crate) fn unknown(&self, config: &ModelConfig) -> Option<String> {
        match self {
            Self::Gguf(file) => file.unknown(config),
            Self::Safetensors(folder) => folder.unknown(config),
        }
    }

    /// The tensors that this model computes with, by their Hugging Face names.
    pub(crate) fn computed(&self, config: &ModelConfig) -> Vec<StoredTensor> {
        let all = match self {
            Self::Gguf(file) => file.stored(),
            Self::Safetensors(folder) => folder.stored(),
        };
        all.into_iter().filter(|tensor| names::is_computed(&tensor.name, config)).collect()
    }

    /// The model's files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Gguf(file) => file.files(),
            Self::Safetensors(folder) => folder.files(),
        }
    }

    /// Where every tensor lies, computed with or not.
    pub(crate) fn places(&self) -> Vec<TensorPlace<'_>> {
        match self {
            Self::Gguf(file) => file.places(),
            Self::Safetensors(folder) => folder.places(),
        }
    }

    /// Reads bytes of a tensor as stored, from an offset on.
    pub(crate) fn read(&self, tensor: &StoredTensor, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        match self {
            Self::Gguf(file) => file.read_stored(&tensor.name, offset, length),
            Self::Safetensors(folder) => folder.read_stored(&tensor.name, offset, length),
        }
    }
}
