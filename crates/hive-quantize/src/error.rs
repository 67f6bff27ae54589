//! Why a model was not quantized, worded for the person who asked for it.

use std::path::PathBuf;

use hive_weights::OpenError;
use hive_weights::weights::TensorError;

/// Why a model was not quantized. Nothing is left where it would have been, but for what a kill or a lost disk leaves.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The model cannot be opened: there is none, or it is of an unknown family, without weights or damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is a GGUF file.
    #[error(
        "{0} is a GGUF file; only folders of safetensors files can be quantized, so take the original model's folder"
    )]
    Gguf(PathBuf),
    /// It is quantized already.
    #[error(
        "{0} is quantized already; quantizing it once more would only lose more, so take the original model's folder"
    )]
    Quantized(PathBuf),
    /// No tensor would become smaller.
    #[error("no matrix in {model} has a column count divisible by {group}; choose a smaller group size")]
    Nothing {
        /// The model.
        model: PathBuf,
        /// Columns per scale.
        group: usize,
    },
    /// There is something where the folder would be.
    #[error("{0} exists already; remove it, or name another folder")]
    Exists(PathBuf),
    /// There is a folder where the unfinished one would be, and it is not one.
    #[error("{0} already exists and was not created by HiveMind; rename or remove it")]
    InTheWay(PathBuf),
    /// Another process writes it.
    #[error("another process is writing {0}")]
    Busy(PathBuf),
    /// The disk has too little room.
    #[error("{folder} has {free:.1} GB free, and {needed:.1} GB are needed", free = *free_bytes as f64 / 1e9, needed = *needed_bytes as f64 / 1e9)]
    NoRoom {
        /// The folder in which it would be.
        folder: PathBuf,
        /// What it would take.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// A tensor is missing, of an unsupported type or damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The configuration cannot be read once more.
    #[error("{0} has changed meanwhile")]
    Changed(PathBuf),
    /// MLX failed.
    #[error("MLX failed: {0}")]
    Mlx(String),
    /// Reading a file beside the weights failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Writing failed.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Cancelled by the caller.
    #[error("the model was not quantized: it was stopped")]
    Stopped,
}

impl From<mlx_rs::error::Exception> for QuantizeError {
    fn from(error: mlx_rs::error::Exception) -> Self {
        Self::Mlx(error.what().to_owned())
    }
}

impl From<hive_kernels::KernelError> for QuantizeError {
    fn from(error: hive_kernels::KernelError) -> Self {
        Self::Mlx(error.to_string())
    }
}
