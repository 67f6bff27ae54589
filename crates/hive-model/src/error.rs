//! Why a model cannot be loaded, or not be computed with.

use hive_kernels::{KernelError, PackError};

use crate::weights::TensorError;

/// A failure of MLX or of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// MLX refused or failed.
    #[error("MLX failed: {0}")]
    Mlx(String),
    /// A fast kernel refused.
    #[error("a kernel failed: {0}")]
    Kernel(#[from] KernelError),
    /// A matrix could not be brought into the fast kernels' layout.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl From<mlx_rs::error::Exception> for ComputeError {
    fn from(error: mlx_rs::error::Exception) -> Self {
        Self::Mlx(error.what().to_owned())
    }
}

/// Why a shard cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No layer at all.
    #[error("a shard needs at least one layer")]
    EmptyRange,
    /// Layers the model does not have.
    #[error("layers {start} to {end} were asked for, but the model has {layers}")]
    OutOfRange {
        /// First layer asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// The model's layers.
        layers: usize,
    },
    /// A tensor is missing or not as it should be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// MLX failed, most likely for want of memory.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}
