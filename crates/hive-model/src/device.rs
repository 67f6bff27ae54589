//! The device and the kernels with which a shard computes.

use mlx_rs::{Device, DeviceType};
use serde::{Deserialize, Serialize};

/// The kernels to compute with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// MLX's own kernels.
    Plain,
    /// `hive-kernels`, on the CPU only.
    Fast,
    /// Fast kernels on a CPU, plain ones on a GPU.
    #[default]
    Auto,
}

impl Compute {
    /// Resolves `Auto` on this machine. `Fast` becomes plain if there is a GPU, which is faster still.
    #[must_use]
    pub(crate) fn resolve(self) -> Self {
        match self {
            Self::Plain => Self::Plain,
            Self::Fast | Self::Auto if is_gpu() => Self::Plain,
            Self::Fast | Self::Auto => Self::Fast,
        }
    }
}

impl std::str::FromStr for Compute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "fast" => Ok(Self::Fast),
            "auto" => Ok(Self::Auto),
            other => Err(format!("\"{other}\" is not one of plain, fast, auto")),
        }
    }
}

/// Whether MLX computes on a GPU (Metal or CUDA).
pub fn is_gpu() -> bool {
    Device::try_default().and_then(|device| device.get_type()).is_ok_and(|kind| matches!(kind, DeviceType::Gpu))
}

/// Whether MLX computes on an NVIDIA card.
pub(crate) fn is_cuda() -> bool {
    cfg!(target_os = "linux") && is_gpu()
}

/// The device and the kernels, as shown to people: `cpu, avx512` or `gpu`.
pub fn describe() -> String {
    if is_gpu() {
        return if cfg!(target_os = "macos") { "gpu (Metal)".to_owned() } else { "gpu (CUDA)".to_owned() };
    }
    let instructions = match hive_kernels::instruction_set().as_str() {
        "baseline" if cfg!(target_arch = "aarch64") => "NEON".to_owned(),
        "baseline" => "no AVX2".to_owned(),
        other => other.to_uppercase(),
    };
    format!("cpu ({instructions})")
}

/// Sets the number of threads for the fast kernels.
pub fn set_threads(count: usize) {
    hive_kernels::set_threads(count);
}

/// The version of MLX that is linked.
pub const MLX_VERSION: &str = mlx_sys::MLX_VERSION;

/// Caps the freed buffers that MLX keeps for reuse.
pub fn limit_buffer_cache(bytes: usize) {
    // MLX returns the previous limit; a failure can be ignored.
    let _ = mlx_rs::memory::set_cache_limit(bytes);
}
