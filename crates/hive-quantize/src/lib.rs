//! Makes a smaller model: an MLX folder with quantized weights, from a folder with plain numbers or FP8.
//!
//! [`quantize`] does what mlx-lm's `convert -q` does, with MLX's own operation on this machine's device, so the numbers are
//! MLX's to the bit: linear layers and embeddings are quantized, most routers in 8 bits, and norms, biases and other
//! routers stay as they are ([`Recipe`]). What the tensors of a family are called, and which belong together, says
//! `hive-weights`.
//!
//! Invariants:
//! - A folder has its final name only once it is whole: until then it is called `NAME.partial`, and has no `config.json`
//!   until all its weights are on the disk.
//! - A matrix passes through memory in parts of [`PART_BYTES`], however large it is; norms and biases are read whole.
//! - Everything that can be known from headers is checked before anything is written.
//!
//! `examples/quantize.rs` quantizes a folder.

mod arithmetic;
mod beside;
mod destination;
mod error;
mod plan;
mod recipe;
mod settings;
mod work;

pub use error::QuantizeError;
pub use recipe::{BITS, GROUPS, Recipe};
#[doc(hidden)]
pub use work::quantize_in_files_of;
pub use work::{PART_BYTES, Progress, Quantized, quantize};
