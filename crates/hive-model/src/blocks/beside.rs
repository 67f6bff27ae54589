//! A gated network and experts side by side, each with norms of its own.

use hive_weights::config::{DenseSpec, ExpertsSpec, ModelConfig, NORMS_OF_BOTH};
use hive_weights::weights::{TensorError, Weights};
use mlx_rs::Array;

use super::dense::Dense;
use super::experts::Experts;
use super::norm::Norm;
use crate::adapter::LayerAdapter;
use crate::error::{ComputeError, LoadError};
use crate::linear::Arithmetic;

pub(super) struct Beside {
    dense: Dense,
    experts: Experts,
    after_dense: Norm,
    before_experts: Norm,
    after_experts: Norm,
}

impl Beside {
    /// Loads those of the layer `prefix`.
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        (dense, experts): (&DenseSpec, &ExpertsSpec),
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let [after_dense, before_experts, after_experts] = NORMS_OF_BOTH
            .map(|name| Norm::load(weights, &format!("{prefix}.{name}"), config.hidden, config, arithmetic));
        Ok(Self {
            dense: Dense::load(weights, &format!("{prefix}.mlp"), config.hidden, dense, arithmetic)?,
            experts: Experts::load(weights, prefix, config, experts, arithmetic)?,
            after_dense: after_dense?,
            before_experts: before_experts?,
            after_experts: after_experts?,
        })
    }

    /// The size of such networks in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        hidden: usize,
        (dense, experts): (&DenseSpec, &ExpertsSpec),
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        Ok(Dense::bytes_of(weights, &format!("{prefix}.mlp"), hidden, dense, arithmetic)?
            + Experts::bytes_of(weights, prefix, hidden, experts, arithmetic)?
            + NORMS_OF_BOTH.len() as u64 * Norm::bytes_of(hidden, arithmetic))
    }

    /// Their size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let norms = [&self.after_dense, &self.before_experts, &self.after_experts];
        self.dense.bytes() + self.experts.bytes() + norms.into_iter().map(Norm::bytes).sum::<usize>()
    }

    /// The residual, and what the layer's norm makes of it for the network, to the sum of both.
    pub(super) fn forward(
        &self,
        residual: &Array,
        normed: &Array,
        adapter: Option<&LayerAdapter>,
    ) -> Result<Array, ComputeError> {
        let dense = self.after_dense.forward(&self.dense.forward(normed, adapter)?)?;
        let experts = self.experts.forward_routed(&self.before_experts.forward(residual)?, residual)?;
        Ok(dense.add(self.after_experts.forward(&experts)?)?)
    }
}
