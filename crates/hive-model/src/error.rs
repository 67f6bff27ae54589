//! Errors of loading a model and of computing with it.

use hive_kernels::{KernelError, PackError};
use hive_weights::weights::TensorError;

/// A failure of MLX or of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// MLX refused or failed.
    #[error("MLX failed: {0}")]
    Mlx(String),
    /// A fast kernel refused its arguments.
    #[error("a kernel failed: {0}")]
    Kernel(#[from] KernelError),
    /// A matrix could not be converted to the fast kernels' layout.
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
    /// The range is empty.
    #[error("a shard needs at least one layer")]
    EmptyRange,
    /// The model does not have these layers.
    #[error("layers {start} to {end} were asked for, but the model has {layers}")]
    OutOfRange {
        /// The first layer requested.
        start: usize,
        /// One past the last layer requested.
        end: usize,
        /// The number of the model's layers.
        layers: usize,
    },
    /// Layers after the cut attend to keys and values of layers before it.
    #[error(
        "the model cannot be cut before layer {at}: layers after the cut attend to keys and values of layers before it"
    )]
    Uncut {
        /// The first layer after the cut.
        at: usize,
    },
    /// A tensor is missing or invalid.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// MLX failed, most likely because memory ran out.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}
