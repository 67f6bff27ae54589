//! What a token brings to every layer besides its hidden state: computed where tokens are embedded, and from there on
//! its way with the hidden states.

use hive_weights::config::{LayerInputsSpec, ModelConfig};
use hive_weights::weights::names::{LAYER_NORM, LAYER_PROJECTION, LAYER_TABLE};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::Array;

use super::norm::Norm;
use crate::embedding::{Embedding, scaled};
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear};

/// Makes the sum of two terms as large as each of them.
const OF_TWO: f32 = std::f32::consts::FRAC_1_SQRT_2;

pub(crate) struct LayerInputs {
    /// All layers' inputs side by side.
    pub(crate) table: Embedding,
    projection: Linear,
    norm: Norm,
    width: usize,
}

/// The table, and the projection of the embedding.
fn matrices<'a>(
    weights: &'a Weights,
    config: &ModelConfig,
    spec: LayerInputsSpec,
) -> Result<[FileMatrix<'a>; 2], TensorError> {
    let columns = config.layers * spec.width;
    Ok([
        weights.file_matrix(LAYER_TABLE, spec.vocabulary, columns)?,
        weights.file_matrix(LAYER_PROJECTION, columns, config.hidden)?,
    ])
}

impl LayerInputs {
    pub(crate) fn load(
        weights: &Weights,
        config: &ModelConfig,
        spec: LayerInputsSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let [table, projection] = matrices(weights, config, spec)?;
        Ok(Self {
            table: Embedding::new(table.whole()?, arithmetic)?,
            projection: Linear::load(&[projection], arithmetic)?,
            norm: Norm::load(weights, LAYER_NORM, spec.width, config, arithmetic)?,
            width: spec.width,
        })
    }

    /// The size of such inputs in memory, in bytes.
    pub(crate) fn bytes_of(
        weights: &Weights,
        config: &ModelConfig,
        spec: LayerInputsSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let [table, projection] = matrices(weights, config, spec)?;
        Ok(Embedding::bytes_of(table.format(), table.rows(), table.columns())
            + Linear::bytes_of(&[projection], arithmetic)
            + Norm::bytes_of(spec.width, arithmetic))
    }

    /// Their size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.projection.bytes() + self.norm.bytes()
    }

    /// From the embedding `[n, hidden]` and the tokens' rows of the table: `[n, layers width]`.
    pub(crate) fn forward(&self, embedded: &Array, rows: Array) -> Result<Array, ComputeError> {
        let projected = self.projection.forward(embedded)?;
        let projected = scaled(projected, (embedded.dim(1) as f32).powf(-0.5))?;
        let by_layer = projected.reshape(&[projected.dim(0), -1, self.width as i32])?;
        let projected = self.norm.forward(&by_layer)?.reshape(projected.shape())?;
        scaled(projected.add(scaled(rows, (self.width as f32).sqrt())?)?, OF_TWO)
    }
}
