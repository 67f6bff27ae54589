//! RMS norms.

use hive_weights::config::ModelConfig;
use hive_weights::weights::Weights;
use mlx_rs::Array;

use crate::error::{ComputeError, LoadError};
use crate::hidden::ActivationType;
use crate::linear::{Arithmetic, evaluated};

/// An RMS norm over the last axis.
pub(crate) struct Norm {
    pub(crate) weight: Array,
    pub(crate) eps: f32,
    pub(crate) fast: bool,
}

impl Norm {
    /// Loads the norm `name` (without `.weight`) of this width.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        width: usize,
        config: &ModelConfig,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let mut weight = vector(weights, &format!("{name}.weight"), width, arithmetic)?;
        // GGUF stores the sum.
        if config.ends.norms_from_one && !weights.is_gguf() {
            let one = Array::from_f32(1.0).as_dtype(weight.dtype()).map_err(ComputeError::from)?;
            let sum = weight.add(one).map_err(ComputeError::from)?;
            weight = evaluated(&sum, weight.dtype()).map_err(ComputeError::from)?;
        }
        Ok(Self { weight, eps: config.rms_eps, fast: arithmetic.fast })
    }

    /// The size of a norm in memory, in bytes.
    pub(crate) fn bytes_of(width: usize, arithmetic: Arithmetic) -> u64 {
        (width * arithmetic.activation.bytes()) as u64
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.weight.nbytes()
    }

    pub(crate) fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        if self.fast {
            return Ok(hive_kernels::rms_norm(x, &self.weight, self.eps)?);
        }
        Ok(mlx_rs::fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}

/// Loads a vector in the type of the computation.
pub(crate) fn vector(weights: &Weights, name: &str, length: usize, arithmetic: Arithmetic) -> Result<Array, LoadError> {
    let tensor = weights.vector(name, length)?;
    let dtype = ActivationType::from(tensor.float).mlx();
    let array = hive_kernels::array_from_bytes(&tensor.bytes, &[length as i32], dtype).map_err(ComputeError::from)?;
    Ok(evaluated(&array, arithmetic.activation.mlx()).map_err(ComputeError::from)?)
}
