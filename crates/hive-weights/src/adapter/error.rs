//! Why an adapter cannot be used.

/// The file that says what an adapter is.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Limit on a rank. Larger ones are no longer low.
pub(super) const MAX_RANK: usize = 1 << 12;

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// `adapter_config.json` is not JSON, or lacks what is needed.
    #[error("{CONFIG_FILE} cannot be read: {0}")]
    Config(String),
    /// The factor on what is added is no number.
    #[error("{CONFIG_FILE} gives {module} a scale of {scale}")]
    Scale {
        /// The module.
        module: String,
        /// The scale.
        scale: f32,
    },
    /// The adapter changes a model in a way that is not supported.
    #[error("the adapter uses {0}; only LoRA in the forms of mlx-lm and PEFT is supported")]
    Unsupported(String),
    /// The file with the matrices is not valid.
    #[error("the adapter's safetensors file is not valid: {0}")]
    Tensors(String),
    /// A tensor is not part of a pair of matrices.
    #[error("the adapter's tensor {0} belongs to no pair of LoRA matrices")]
    Stray(String),
    /// A matrix is there without the other one.
    #[error("the adapter has only one of the two matrices for {0}")]
    Half(String),
    /// The ranks of a pair differ, or are out of range.
    #[error(
        "the adapter's matrices for {module} have ranks {down} and {up}; both must be the same, from 1 to {MAX_RANK}"
    )]
    Rank {
        /// The module.
        module: String,
        /// Rank of the first matrix.
        down: usize,
        /// Rank of the second matrix.
        up: usize,
    },
    /// The model has no such module, or none that an adapter can change.
    #[error("the adapter changes {0}, which this model does not have or which adapters cannot change here")]
    Module(String),
    /// The model's matrix has another shape.
    #[error(
        "the adapter was made for another model: its {module} has {}, this model's has {}",
        shape(*found),
        shape(*expected)
    )]
    Shape {
        /// The module.
        module: String,
        /// Rows and columns that the adapter takes.
        found: [usize; 2],
        /// Rows and columns of the model's matrix.
        expected: [usize; 2],
    },
    /// A number is NaN or infinite.
    #[error("the adapter's matrices for {0} hold numbers that are not finite")]
    NotFinite(String),
}

fn shape([rows, columns]: [usize; 2]) -> String {
    format!("{columns} inputs and {rows} outputs")
}
