//! How a shard will compute, and how much memory it will take, before it is loaded.

use crate::device::Compute;
use crate::files::ModelFiles;
use crate::footprint::Footprint;
use crate::hidden::ActivationType;
use crate::linear::Arithmetic;
use crate::stage::Stage;
use crate::weights::TensorError;

/// The arithmetic of a model, with or without the fast kernels.
pub(super) fn arithmetic(files: &ModelFiles, wants_fast: bool) -> Result<Arithmetic, TensorError> {
    let head_dim = files.config().head_dim;
    let fast = wants_fast && head_dim.is_multiple_of(hive_kernels::LANES) && head_dim <= 1024;
    let activation = if fast { ActivationType::F32 } else { ActivationType::from(files.natural_activation()?) };
    Ok(Arithmetic { fast, activation })
}

impl Footprint {
    /// The footprint of a model with these kernels, plain or fast.
    ///
    /// # Errors
    /// The model lacks a tensor, or has an unsupported one.
    pub fn of(files: &ModelFiles, kernels: Compute) -> Result<Self, TensorError> {
        Stage::footprint(files, arithmetic(files, kernels == Compute::Fast)?)
    }
}
