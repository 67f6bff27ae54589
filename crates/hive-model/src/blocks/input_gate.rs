//! How a token's own input comes into a layer: through a gate that the hidden state opens.

use hive_weights::config::{Activation, INPUT_GATE, INPUT_NORM, ModelConfig};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::{Array, ops};

use super::dense::Gate;
use super::norm::Norm;
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear};

pub(super) struct InputGate {
    gate: Linear,
    projection: Linear,
    norm: Norm,
    activation: Gate,
}

/// The way in, to the input's width, and the way back.
fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    width: usize,
) -> Result<[FileMatrix<'a>; 2], TensorError> {
    let [gate, projection] = INPUT_GATE.map(|name| format!("{prefix}.{name}"));
    Ok([weights.file_matrix(&gate, width, hidden)?, weights.file_matrix(&projection, hidden, width)?])
}

impl InputGate {
    /// Loads that of the layer `prefix`, for inputs of this width.
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        width: usize,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let [gate, projection] = matrices(weights, prefix, config.hidden, width)?;
        Ok(Self {
            gate: Linear::load(&[gate], arithmetic)?,
            projection: Linear::load(&[projection], arithmetic)?,
            norm: Norm::load(weights, &format!("{prefix}.{INPUT_NORM}"), config.hidden, config, arithmetic)?,
            activation: Gate::new(Activation::Gelu, width, arithmetic),
        })
    }

    /// The size of such a gate in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        hidden: usize,
        width: usize,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let matrices = matrices(weights, prefix, hidden, width)?;
        let matrices: u64 = matrices.into_iter().map(|matrix| Linear::bytes_of(&[matrix], arithmetic)).sum();
        Ok(matrices + Norm::bytes_of(hidden, arithmetic))
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.gate.bytes() + self.projection.bytes() + self.norm.bytes()
    }

    /// Hidden states `[n, hidden]` with the tokens' inputs `[n, width]` let in.
    pub(super) fn forward(&self, x: &Array, input: &Array) -> Result<Array, ComputeError> {
        let gate = ops::concatenate(&[&self.gate.forward(x)?, input], -1)?;
        let projected = self.projection.forward(&self.activation.forward(&gate)?)?;
        Ok(x.add(self.norm.forward(&projected)?)?)
    }
}
