//! How far building a batch's operations runs ahead of computing them.

use mlx_rs::Array;

use crate::error::ComputeError;

/// On a CPU, building a layer's operations takes a tenth as long as computing them. After this many layers, those built
/// so far start to compute while building continues.
const LAYERS_AHEAD: usize = 4;

/// Intermediate results take memory from the start of their computation. With many tokens that is tens of megabytes, so
/// above this size at most half a layer is started while another computes.
const BETWEEN_BYTES: usize = 1 << 20;
/// Above this size, nothing is started ahead: the computation takes so long that the wait does not matter.
const BETWEEN_BYTES_ALONE: usize = 16 << 20;

/// How far building runs ahead of computing.
pub(crate) enum Ahead {
    /// Without limit.
    Free,
    /// After every few layers, what is built starts to compute; nothing waits.
    Layers,
    /// Each half of a layer starts when the one before the last is done; holds the last.
    Halves(Option<Array>),
    /// Each half of a layer is done before the next is built.
    Nothing,
}

impl Ahead {
    /// For intermediate results of this size on a CPU.
    pub(crate) fn of(between_bytes: usize) -> Self {
        match between_bytes {
            ..=BETWEEN_BYTES => Self::Layers,
            bytes if bytes <= BETWEEN_BYTES_ALONE => Self::Halves(None),
            _ => Self::Nothing,
        }
    }

    /// Called when half a layer has been built.
    pub(crate) fn built_half(&mut self, x: &Array) -> Result<(), ComputeError> {
        match self {
            Self::Free | Self::Layers => {}
            Self::Halves(last) => {
                mlx_rs::transforms::async_eval([x])?;
                if let Some(last) = last.replace(x.clone()) {
                    last.eval()?;
                }
            }
            Self::Nothing => x.eval()?,
        }
        Ok(())
    }

    /// Called when a layer has been built.
    pub(crate) fn built_layer(&self, layer: usize, x: &Array) -> Result<(), ComputeError> {
        if matches!(self, Self::Layers) && layer.is_multiple_of(LAYERS_AHEAD) {
            mlx_rs::transforms::async_eval([x])?;
        }
        Ok(())
    }
}
