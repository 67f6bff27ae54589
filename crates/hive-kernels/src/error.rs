//! The error of building an operation.

/// Why an operation could not be built.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KernelError(pub(crate) String);

pub(crate) fn from_mlx(error: mlx_rs::error::Exception) -> KernelError {
    KernelError(error.what().to_owned())
}
