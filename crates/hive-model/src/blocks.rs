//! What layers are made of: attention, gated delta nets, gated networks, experts and norms, on MLX's kernels or on the fast ones.
//!
//! A batch is the tokens of all its sessions in sequence, `[tokens, hidden]`; only attention and delta nets handle
//! sessions one by one. On MLX's kernels the operations and their order are those of mlx-lm, and thus the tokens.

pub(crate) mod ahead;
mod attention;
mod beside;
mod delta;
mod dense;
mod experts;
mod heads;
mod input_gate;
mod latent;

pub(crate) mod layer;
pub(crate) mod layer_inputs;
pub(crate) mod norm;
