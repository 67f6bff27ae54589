//! A shard before it is loaded: how it will be computed, and what that takes in memory.

use crate::device::Compute;
use crate::files::ModelFiles;
use crate::footprint::Footprint;
use crate::hidden::ActivationType;
use crate::linear::Arithmetic;
use crate::llama::Stage;
use crate::weights::TensorError;

/// How a model is computed, where the fast kernels are wished for or not.
pub(super) fn arithmetic(files: &ModelFiles, wants_fast: bool) -> Result<Arithmetic, TensorError> {
    let head_dim = files.config().head_dim;
    let fast = wants_fast && head_dim.is_multiple_of(hive_kernels::LANES) && head_dim <= 1024;
    let activation = if fast { ActivationType::F32 } else { ActivationType::from(files.natural_activation()?) };
    Ok(Arithmetic { fast, activation })
}

impl Footprint {
    /// Of a model with these kernels, which are plain or fast.
    ///
    /// # Errors
    /// The model lacks a tensor, or has one that cannot be computed with.
    pub fn of(files: &ModelFiles, kernels: Compute) -> Result<Self, TensorError> {
        Stage::footprint(files, arithmetic(files, kernels == Compute::Fast)?)
    }
}
