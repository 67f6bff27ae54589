//! How a shard will compute, and how much memory it will take, before it is loaded.

use hive_weights::ModelFiles;
use hive_weights::config::{LayerSpec, Mixer};
use hive_weights::weights::TensorError;

use crate::device::Compute;
use crate::footprint::Footprint;
use crate::hidden::ActivationType;
use crate::linear::Arithmetic;
use crate::stage::Stage;

/// Whether the fast kernels compute such a layer.
fn has_fast_kernels(spec: &LayerSpec) -> bool {
    let fits = |width: usize| width.is_multiple_of(hive_kernels::LANES) && width <= 1024;
    match &spec.mixer {
        Mixer::Attention(attention) => fits(attention.head_dim),
        Mixer::Latent(latent) => fits(latent.latent + latent.rotated),
        Mixer::Delta(delta) => fits(delta.key_dim) && fits(delta.value_dim),
    }
}

/// The arithmetic of a model, with or without the fast kernels.
pub(super) fn arithmetic(files: &ModelFiles, wants_fast: bool) -> Result<Arithmetic, TensorError> {
    let fast = wants_fast && files.config().specs.iter().all(has_fast_kernels);
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
