//! A model's tensors as mlx-lm has them: under its names, with the experts of a layer as one tensor, and with norms and
//! convolutions as it computes with them.
//!
//! Files of authors have them otherwise: each expert by itself, keys and values of latent attention in one matrix. What
//! mlx-lm does with these when it converts a model (`sanitize` of each family) is done here as they are read, so that a
//! folder that is written from these tensors loads in mlx-lm, and here, like one of its own. Tensors that no computation
//! uses are left out. Nothing is read but headers, until parts of a tensor are asked for.

use std::collections::BTreeMap;

use crate::config::{ExpertsSpec, LatentSpec, LayerSpec, Mixer, ModelConfig, NetworkSpec, Router, SHARED_GATE};
use crate::files::ModelFiles;
use crate::weights::safetensors::fp8;
use crate::weights::{FileMatrix, Float, FloatTensor, Matrix, MatrixFormat, StoredTensor, TensorError, Weights, names};

/// A tensor of a model in mlx-lm's form.
#[derive(Debug)]
pub struct MlxTensor<'a> {
    /// mlx-lm's name of the module, which the tensor is the `.weight` of, or of a tensor that is no matrix.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The type of its numbers as they are read.
    pub float: Float,
    source: Source<'a>,
}

/// What a tensor is for, as far as that says how exactly it has to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A linear layer's matrix, or those of all experts or heads.
    Linear,
    /// An embedding.
    Embedding,
    /// The matrix of the output.
    Head,
    /// A matrix that mlx-lm keeps in 8 bits and groups of 64 whatever the others have: most routers.
    Sensitive,
    /// A matrix that mlx-lm does not quantize: other routers.
    Kept,
    /// Norms, biases and the like, which are no matrices.
    Vector {
        /// Whether it is stored as the difference from one, which mlx-lm adds.
        is_from_one: bool,
        /// Whether mlx-lm leaves its type as it is when it converts the others.
        keeps_type: bool,
    },
}

/// The norms that Qwen's own checkpoints store as the difference from one; these also have their convolutions otherwise.
const FROM_ONE: [&str; 5] = ["input_layernorm", "post_attention_layernorm", "model.norm", "q_norm", "k_norm"];

/// Where the numbers are.
#[derive(Debug)]
enum Source<'a> {
    /// One below the other.
    Matrices(Vec<FileMatrix<'a>>),
    /// Of each head: the rows of keys, with rows and columns exchanged.
    Keys(FileMatrix<'a>, LatentSpec),
    /// Of each head: the rows of values.
    Values(FileMatrix<'a>, LatentSpec),
    /// As stored, one after the other.
    Stored(&'a Weights, Vec<StoredTensor>),
}

impl MlxTensor<'_> {
    /// How many numbers it has.
    pub fn numbers(&self) -> u64 {
        self.shape.iter().fold(1, |product, width| product.saturating_mul(*width as u64))
    }

    /// Its rows in order, in parts `[rows, columns]` of about a megabyte; or, for what is no matrix, all of it at once.
    ///
    /// # Errors
    /// The file cannot be read, or holds codes that stand for no number.
    pub fn parts(&self) -> Box<dyn Iterator<Item = Result<FloatTensor, TensorError>> + '_> {
        match &self.source {
            Source::Matrices(matrices) => {
                Box::new(matrices.iter().flat_map(FileMatrix::parts).map(|part| part.and_then(|part| self.plain(part))))
            }
            Source::Keys(matrix, spec) => Box::new((0..spec.heads).map(move |head| {
                let first = head * (spec.unrotated + spec.value_dim);
                let rows = self.plain(matrix.read(first..first + spec.unrotated)?)?;
                Ok(turned(&rows))
            })),
            Source::Values(matrix, spec) => Box::new((0..spec.heads).map(move |head| {
                let first = head * (spec.unrotated + spec.value_dim) + spec.unrotated;
                self.plain(matrix.read(first..first + spec.value_dim)?)
            })),
            Source::Stored(weights, tensors) => Box::new(std::iter::once_with(move || {
                let mut bytes = Vec::new();
                for tensor in tensors {
                    bytes.extend(weights.read(tensor, 0, tensor.bytes)?);
                }
                Ok(FloatTensor { float: self.float, shape: self.shape.clone(), bytes })
            })),
        }
    }

    fn plain(&self, part: Matrix) -> Result<FloatTensor, TensorError> {
        match part {
            Matrix::Float(tensor) => Ok(tensor),
            Matrix::Quantized(_) => Err(quantized(&self.name)),
        }
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn turned(matrix: &FloatTensor) -> FloatTensor {
    let (rows, columns, width) = (matrix.shape[0], matrix.shape[1], matrix.float.bytes());
    let mut bytes = Vec::with_capacity(matrix.bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * width;
            bytes.extend_from_slice(&matrix.bytes[at..at + width]);
        }
    }
    FloatTensor { float: matrix.float, shape: vec![columns, rows], bytes }
}

fn quantized(name: &str) -> TensorError {
    let supported = "numbers that are not quantized";
    TensorError::Type { name: name.to_owned(), found: "quantized numbers".to_owned(), supported }
}

impl ModelFiles {
    /// Whether weights are quantized as MLX does it. Those in FP8 are not.
    pub fn is_quantized(&self) -> bool {
        self.weights().computed(self.config()).iter().any(|tensor| tensor.name.ends_with(".scales"))
    }

    /// The model's tensors as mlx-lm has them, layer after layer. Its files hold plain numbers or FP8.
    ///
    /// # Errors
    /// A tensor is missing or quantized, or has another shape than the configuration says.
    pub fn in_mlx_form(&self) -> Result<Vec<MlxTensor<'_>>, TensorError> {
        let config = self.config();
        let is_original = match self.weights() {
            Weights::Safetensors(folder) => folder.has_original_convolutions(),
            Weights::Gguf(_) => false,
        };
        let mut form = Form { files: self, is_original, stored: BTreeMap::new(), tensors: Vec::new() };
        for tensor in self.weights().computed(config) {
            form.stored.insert(tensor.name.clone(), tensor);
        }
        let all: Vec<StoredTensor> = form.stored.values().cloned().collect();
        for tensor in &all {
            form.add(tensor)?;
        }
        let outer =
            if config.unused.senses || config.architecture.starts_with("qwen3_5") { "language_model." } else { "" };
        let mut tensors = form.tensors;
        // "layers.10" sorts before "layers.2" by name.
        tensors.sort_by_key(|tensor| names::layer_of(&tensor.name).map_or(0, |layer| layer + 1));
        for tensor in &mut tensors {
            tensor.name.insert_str(0, outer);
        }
        Ok(tensors)
    }
}

struct Form<'a> {
    files: &'a ModelFiles,
    /// Whether norms and convolutions are as Qwen's own checkpoints have them.
    is_original: bool,
    stored: BTreeMap<String, StoredTensor>,
    tensors: Vec<MlxTensor<'a>>,
}

/// A tensor's name, taken apart.
struct Place<'n> {
    /// `model.layers.7.`, or nothing.
    prefix: &'n str,
    /// The rest, without the last part.
    base: &'n str,
    /// The last part: `weight`, `bias` or another.
    kind: &'n str,
}

impl<'a> Form<'a> {
    fn add(&mut self, tensor: &StoredTensor) -> Result<(), TensorError> {
        let config = self.files.config();
        let name = tensor.name.as_str();
        let layer = names::layer_of(name).and_then(|layer| config.specs.get(layer));
        let rest = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let part = if layer.is_some() { rest.map_or(name, |(_, part)| part) } else { name };
        let (base, kind) = part.rsplit_once('.').unwrap_or((part, ""));
        let place = Place { prefix: &name[..name.len() - part.len()], base, kind };
        // An output matrix beside a shared embedding is not computed with.
        if kind == fp8::SCALES || base == "lm_head" && config.tied_embeddings {
            return Ok(());
        }
        if let Some(layer) = layer
            && let Some(experts) = experts_of(layer)
            && let Some(of_one) = base.strip_prefix(experts.module).and_then(|rest| rest.strip_prefix(".experts."))
            && let Some((number, matrix)) = of_one.split_once('.')
            && experts.parts().contains(&matrix)
        {
            // All of them at the first.
            return if number == "0" { self.add_experts(&place, experts, matrix, tensor) } else { Ok(()) };
        }
        let is_matrix = kind == "weight" && layer.map_or(tensor.shape.len() > 1, |layer| layer.has_matrix(base));
        if !is_matrix {
            return self.add_vector(&place, tensor);
        }
        if let Some(LayerSpec { mixer: Mixer::Latent(spec), .. }) = layer
            && base == "self_attn.kv_b_proj"
        {
            return self.add_heads(&place, spec);
        }
        let role = layer.map_or_else(|| role_of_end(base, config), |layer| role_in_layer(base, layer, config));
        let full = format!("{}{base}", place.prefix);
        let matrices = match tensor.shape[..] {
            [rows, columns] => vec![self.files.weights().file_matrix(&full, rows, columns)?],
            [count, rows, columns] => self.files.weights().stacked_matrices(&full, count, rows, columns)?,
            _ => return Err(no_matrix(tensor)),
        };
        self.push(full, role, tensor.shape.clone(), matrices)
    }

    fn push(
        &mut self,
        name: String,
        role: Role,
        shape: Vec<usize>,
        matrices: Vec<FileMatrix<'a>>,
    ) -> Result<(), TensorError> {
        let floats = matrices.iter().map(|matrix| float_of(&name, matrix)).collect::<Result<Vec<_>, _>>()?;
        let Some(float) = floats.first().copied().filter(|first| floats.iter().all(|float| float == first)) else {
            let found = "several types in one layer".to_owned();
            return Err(TensorError::Type { name, found, supported: "experts of one type" });
        };
        self.tensors.push(MlxTensor { name, role, shape, float, source: Source::Matrices(matrices) });
        Ok(())
    }

    /// Adds the matrices, or the biases, of all experts as one tensor.
    fn add_experts(
        &mut self,
        place: &Place<'_>,
        experts: &ExpertsSpec,
        matrix: &str,
        first: &StoredTensor,
    ) -> Result<(), TensorError> {
        let Place { prefix, kind, .. } = place;
        let at = experts.parts().iter().position(|part| *part == matrix).unwrap_or_default();
        let called = ["gate_proj", "up_proj", "down_proj"][at];
        let name = format!("{prefix}{}.{}.{called}", experts.module, experts.stacked);
        let of = |expert: usize| format!("{prefix}{}.experts.{expert}.{matrix}", experts.module);
        let shape = || [&[experts.count], first.shape.as_slice()].concat();
        if *kind == "weight" {
            let [rows, columns] = first.shape[..] else { return Err(no_matrix(first)) };
            let one = |expert| self.files.weights().file_matrix(&of(expert), rows, columns);
            let matrices = (0..experts.count).map(one).collect::<Result<_, _>>()?;
            return self.push(name, Role::Linear, shape(), matrices);
        }
        let one = |expert| {
            let name = format!("{}.{kind}", of(expert));
            let missing = || TensorError::Missing { file: self.files.path().to_owned(), name: name.clone() };
            let tensor = self.stored.get(&name).ok_or_else(missing)?;
            if tensor.shape == first.shape && tensor.kind == first.kind {
                Ok(tensor.clone())
            } else {
                Err(no_matrix(tensor))
            }
        };
        let biases = (0..experts.count).map(one).collect::<Result<Vec<_>, _>>()?;
        self.push_stored(format!("{name}.{kind}"), shape(), biases, [false; 2])
    }

    /// Adds the matrix of keys and values of all heads as mlx-lm has it: from queries to the latent row, and from there to
    /// values.
    fn add_heads(&mut self, place: &Place<'_>, spec: &LatentSpec) -> Result<(), TensorError> {
        let LatentSpec { heads, latent, unrotated, value_dim, .. } = *spec;
        let full = format!("{}{}", place.prefix, place.base);
        for (name, shape, is_keys) in
            [("embed_q", [heads, latent, unrotated], true), ("unembed_out", [heads, value_dim, latent], false)]
        {
            let matrix = self.files.weights().file_matrix(&full, heads * (unrotated + value_dim), latent)?;
            let float = float_of(&full, &matrix)?;
            let source =
                if is_keys { Source::Keys(matrix, spec.clone()) } else { Source::Values(matrix, spec.clone()) };
            let name = format!("{}self_attn.{name}", place.prefix);
            self.tensors.push(MlxTensor { name, role: Role::Linear, shape: shape.to_vec(), float, source });
        }
        Ok(())
    }

    fn add_vector(&mut self, place: &Place<'_>, tensor: &StoredTensor) -> Result<(), TensorError> {
        let Place { base, kind, .. } = place;
        let mut shape = tensor.shape.clone();
        if base.ends_with("conv1d") && self.is_original && shape.len() == 3 {
            shape.swap(1, 2);
        }
        let is_from_one = self.is_original && *kind == "weight" && FROM_ONE.iter().any(|norm| base.ends_with(norm));
        let is_recurrence = *kind == "A_log" && self.files.config().architecture.starts_with("qwen3_5");
        let keeps_type = *kind == "e_score_correction_bias" || is_recurrence;
        self.push_stored(tensor.name.clone(), shape, vec![tensor.clone()], [is_from_one, keeps_type])
    }

    fn push_stored(
        &mut self,
        name: String,
        shape: Vec<usize>,
        tensors: Vec<StoredTensor>,
        [is_from_one, keeps_type]: [bool; 2],
    ) -> Result<(), TensorError> {
        let kind = tensors[0].kind.as_str();
        let float = match kind {
            "F32" => Float::F32,
            "F16" => Float::F16,
            "BF16" => Float::Bf16,
            _ => return Err(TensorError::Type { name, found: kind.to_owned(), supported: "F32, F16 and BF16" }),
        };
        let source = Source::Stored(self.files.weights(), tensors);
        let role = Role::Vector { is_from_one, keeps_type };
        self.tensors.push(MlxTensor { name, role, shape, float, source });
        Ok(())
    }
}

/// The type of a matrix's numbers.
fn float_of(name: &str, matrix: &FileMatrix<'_>) -> Result<Float, TensorError> {
    match matrix.format() {
        MatrixFormat::Float(float) => Ok(float),
        MatrixFormat::Quantized { .. } => Err(quantized(name)),
    }
}

fn no_matrix(tensor: &StoredTensor) -> TensorError {
    let (name, found) = (tensor.name.clone(), format!("{} of shape {:?}", tensor.kind, tensor.shape));
    TensorError::Type { name, found, supported: "matrices, and as many numbers for every expert" }
}

fn experts_of(layer: &LayerSpec) -> Option<&ExpertsSpec> {
    match &layer.network {
        NetworkSpec::Experts(experts) | NetworkSpec::Both(_, experts) => Some(experts),
        NetworkSpec::Dense(_) => None,
    }
}

/// The role of a matrix that belongs to no layer.
fn role_of_end(base: &str, config: &ModelConfig) -> Role {
    match base {
        "lm_head" if config.architecture == "granite" => Role::Sensitive,
        "lm_head" => Role::Head,
        "model.embed_tokens" | names::LAYER_TABLE => Role::Embedding,
        _ => Role::Linear,
    }
}

/// The role of a layer's matrix: `quant_predicate` of mlx-lm's families.
fn role_in_layer(base: &str, layer: &LayerSpec, config: &ModelConfig) -> Role {
    if let Some(experts) = experts_of(layer) {
        let is_router = base.strip_prefix(experts.router_module()).and_then(|rest| rest.strip_prefix('.'))
            == Some(experts.router_name);
        if is_router {
            return match experts.router {
                // There it is no linear layer.
                Router::Sigmoid { .. } => Role::Kept,
                Router::Softmax { .. } if config.architecture == "mixtral" => Role::Linear,
                Router::Softmax { .. } | Router::Normed => Role::Sensitive,
            };
        }
        if base.ends_with(SHARED_GATE) {
            return Role::Sensitive;
        }
    }
    let is_small = config.architecture == "granite" && ["self_attn.o_proj", "mlp.down_proj"].contains(&base);
    if is_small { Role::Sensitive } else { Role::Linear }
}
