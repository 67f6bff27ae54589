//! The Llama family: Llama 2 and 3, SmolLM2, Mistral. Read top to bottom: Attention → Mlp → Layer → Stage.
//!
//! A batch is the tokens of all its sessions in sequence, `[tokens, hidden]`; only attention handles sessions one by
//! one. The same layers run on MLX's kernels (with the operations and order of mlx-lm, and thus the same tokens) or on
//! the fast ones.

use std::ops::Range;

use hive_kernels::{AttentionShape, LayerWeights, SessionRows};
use mlx_rs::fast::ScaledDotProductAttentionMask::Causal;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::config::ModelConfig;
use crate::embedding::Embedding;
use crate::error::{ComputeError, LoadError};
use crate::files::ModelFiles;
use crate::footprint::Footprint;
use crate::hidden::ActivationType;
use crate::kv::{KvLayout, LayerCache, PlainCache};
use crate::linear::{Arithmetic, Linear, Projection, evaluated};
use crate::span::Span;
use crate::weights::{FileMatrix, TensorError, Weights};

/// On a CPU, building a layer's operations takes a tenth as long as computing them. After this many layers, those built
/// so far start to compute while building continues.
const LAYERS_AHEAD: usize = 4;

/// Intermediate results take memory from the start of their computation. With many tokens that is tens of megabytes, so
/// above this size at most half a layer is started while another computes.
const BETWEEN_BYTES: usize = 1 << 20;
/// Above this size, nothing is started ahead: the computation takes so long that the wait does not matter.
const BETWEEN_BYTES_ALONE: usize = 16 << 20;

/// Up to this many tokens pass a layer in one call. With more, building seven operations takes negligible time, and the
/// intermediate results of one call would take memory.
const ROWS_AT_ONCE: usize = 8;

struct Attention {
    qkv: Projection,
    output: Linear,
    shape: AttentionShape,
    theta: f32,
    /// Periods that are not plain powers of theta.
    special_periods: Option<Array>,
    /// All periods, for the fast kernel.
    periods: Array,
}

impl Attention {
    /// The projections: queries, keys and values; and the output.
    fn matrices<'a>(
        weights: &'a Weights,
        prefix: &str,
        config: &ModelConfig,
    ) -> Result<([FileMatrix<'a>; 3], FileMatrix<'a>), TensorError> {
        let ModelConfig { hidden, heads, kv_heads, head_dim, .. } = *config;
        let part = |name: &str, rows: usize, columns: usize| {
            weights.file_matrix(&format!("{prefix}.self_attn.{name}"), rows, columns)
        };
        let of = |name: &str, heads: usize| part(name, heads * head_dim, hidden);
        let qkv = [of("q_proj", heads)?, of("k_proj", kv_heads)?, of("v_proj", kv_heads)?];
        Ok((qkv, part("o_proj", hidden, heads * head_dim)?))
    }

    fn shape(config: &ModelConfig) -> AttentionShape {
        let ModelConfig { heads, kv_heads, head_dim, .. } = *config;
        let scale = (head_dim as f32).powf(-0.5);
        AttentionShape { heads, kv_heads, head_dim, scale, rope_scale: config.rope.position_scale() }
    }

    fn load(weights: &Weights, prefix: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let head_dim = config.head_dim;
        let (qkv, output) = Self::matrices(weights, prefix, config)?;
        let array = |periods: &[f32]| Array::from_slice(periods, &[periods.len() as i32]);
        let special = config.rope.periods(head_dim);
        Ok(Self {
            qkv: Projection::load(&qkv, arithmetic)?,
            output: Linear::load(&[output], arithmetic)?,
            shape: Self::shape(config),
            theta: config.rope.theta,
            special_periods: special.as_deref().map(array),
            periods: array(&special.unwrap_or_else(|| config.rope.plain_periods(head_dim))),
        })
    }

    fn forward(
        &self,
        residual: &Array,
        x: &Array,
        layer: usize,
        spans: &mut [Span],
        offsets: Option<&Array>,
    ) -> Result<Array, ComputeError> {
        let qkv = self.qkv.forward(x)?;
        if let Some(offsets) = offsets {
            return self.output.forward_onto(residual, &self.attend_each(&qkv, layer, spans, offsets)?);
        }
        let mut outputs = Vec::with_capacity(spans.len());
        let alone = spans.len() == 1;
        for span in spans {
            let rows = if alone { qkv.clone() } else { qkv.index((span.rows.start as i32..span.rows.end as i32, ..)) };
            outputs.push(match &mut span.caches[layer] {
                LayerCache::Fast(buffers) => {
                    buffers.reserve(&self.shape, span.offset + span.rows.len())?;
                    hive_kernels::attention(&rows, buffers, &self.periods, &self.shape, span.offset)?
                }
                LayerCache::Plain(cache) => self.attend(&rows, span.offset, cache)?,
            });
        }
        let attended = if alone { outputs.remove(0) } else { ops::concatenate(&outputs, 0)? };
        self.output.forward_onto(residual, &attended)
    }

    /// Attention of one session on MLX's kernels, `[n, (heads + 2 kv_heads) head_dim] -> [n, heads head_dim]`.
    fn attend(&self, qkv: &Array, offset: usize, cache: &mut PlainCache) -> Result<Array, ComputeError> {
        let AttentionShape { heads, kv_heads, head_dim, scale, rope_scale } = self.shape;
        let n = qkv.dim(0);
        // Heads before tokens: [1, heads, n, head_dim].
        let split = |from: usize, count: usize| -> Result<Array, ComputeError> {
            let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
            Ok(part.reshape(&[1, n, count as i32, head_dim as i32])?.transpose_axes(&[0, 2, 1, 3])?)
        };
        let rope = |x: Array| {
            mlx_rs::fast::rope(x, head_dim as i32, false, self.base(), rope_scale, offset as i32, &self.special_periods)
        };
        let queries = rope(split(0, heads)?)?;
        let keys = rope(split(heads, kv_heads)?)?;
        let values = split(heads + kv_heads, kv_heads)?;
        let (keys, values) = cache.update(&keys, &values, offset)?;
        let mask = (n > 1).then_some(Causal);
        let attended = mlx_rs::fast::scaled_dot_product_attention(queries, keys, values, scale, mask, None)?;
        Ok(attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[n, (heads * head_dim) as i32])?)
    }

    /// The same for one token of every session, whose positions are also an array. All rows are rotated together; each
    /// session then has attention of its own, since with a mask over all of them, CUDA's is several times slower.
    fn attend_each(
        &self,
        qkv: &Array,
        layer: usize,
        spans: &mut [Span],
        offsets: &Array,
    ) -> Result<Array, ComputeError> {
        let AttentionShape { heads, kv_heads, head_dim, scale, rope_scale } = self.shape;
        let (n, dims) = (qkv.dim(0), head_dim as i32);
        let split = |from: usize, count: usize| {
            let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
            part.reshape(&[n, count as i32, 1, dims])
        };
        let rope = |x: Array| {
            mlx_rs::fast::rope_dynamic(x, dims, false, self.base(), rope_scale, offsets, &self.special_periods)
        };
        let queries = rope(split(0, heads)?)?;
        let keys = rope(split(heads, kv_heads)?)?;
        let values = split(heads + kv_heads, kv_heads)?;
        let mut outputs = Vec::with_capacity(spans.len());
        for (row, span) in (0..n).zip(spans) {
            let LayerCache::Plain(cache) = &mut span.caches[layer] else {
                return Err(ComputeError::Mlx("a cache is of other kernels".to_owned()));
            };
            let of = |all: &Array| all.index((row..row + 1, .., .., ..));
            let (keys, values) = cache.update(&of(&keys), &of(&values), span.offset)?;
            outputs.push(mlx_rs::fast::scaled_dot_product_attention(of(&queries), keys, values, scale, None, None)?);
        }
        Ok(ops::concatenate(&outputs, 0)?.reshape(&[n, (heads * head_dim) as i32])?)
    }

    /// The base of the rotation's periods, if they are its plain powers.
    fn base(&self) -> Option<f32> {
        self.special_periods.is_none().then_some(self.theta)
    }
}

struct Mlp {
    gate_up: Projection,
    down: Linear,
    intermediate: usize,
    fast: bool,
}

impl Mlp {
    /// The projections: gate and up; and down.
    fn matrices<'a>(
        weights: &'a Weights,
        prefix: &str,
        config: &ModelConfig,
    ) -> Result<([FileMatrix<'a>; 2], FileMatrix<'a>), TensorError> {
        let ModelConfig { hidden, intermediate, .. } = *config;
        let part = |name: &str, rows: usize, columns: usize| {
            weights.file_matrix(&format!("{prefix}.mlp.{name}"), rows, columns)
        };
        let gate_up = [part("gate_proj", intermediate, hidden)?, part("up_proj", intermediate, hidden)?];
        Ok((gate_up, part("down_proj", hidden, intermediate)?))
    }

    fn load(weights: &Weights, prefix: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let (gate_up, down) = Self::matrices(weights, prefix, config)?;
        Ok(Self {
            gate_up: Projection::load(&gate_up, arithmetic)?,
            down: Linear::load(&[down], arithmetic)?,
            intermediate: config.intermediate,
            fast: arithmetic.fast && config.intermediate.is_multiple_of(hive_kernels::LANES),
        })
    }

    fn forward(&self, residual: &Array, x: &Array) -> Result<Array, ComputeError> {
        let gate_up = self.gate_up.forward(x)?;
        let activated = if self.fast {
            hive_kernels::swiglu(&gate_up)?
        } else {
            let gate = gate_up.index((.., ..self.intermediate as i32));
            let up = gate_up.index((.., self.intermediate as i32..));
            gate.multiply(ops::sigmoid(&gate)?)?.multiply(up)?
        };
        self.down.forward_onto(residual, &activated)
    }
}

struct Norm {
    weight: Array,
    eps: f32,
    fast: bool,
}

impl Norm {
    fn load(weights: &Weights, name: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let tensor = weights.vector(&format!("{name}.weight"), config.hidden)?;
        let dtype = ActivationType::from(tensor.float).mlx();
        let weight = hive_kernels::array_from_bytes(&tensor.bytes, &[config.hidden as i32], dtype)
            .map_err(ComputeError::from)?;
        let weight = evaluated(&weight, arithmetic.activation.mlx()).map_err(ComputeError::from)?;
        Ok(Self { weight, eps: config.rms_eps, fast: arithmetic.fast })
    }

    /// The size of a norm in memory, in bytes.
    fn bytes_of(config: &ModelConfig, arithmetic: Arithmetic) -> u64 {
        (config.hidden * arithmetic.activation.bytes()) as u64
    }

    fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        if self.fast {
            return Ok(hive_kernels::rms_norm(x, &self.weight, self.eps)?);
        }
        Ok(mlx_rs::fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}

struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

impl Layer {
    fn load(weights: &Weights, index: usize, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let prefix = format!("model.layers.{index}");
        Ok(Self {
            attention_norm: Norm::load(weights, &format!("{prefix}.input_layernorm"), config, arithmetic)?,
            attention: Attention::load(weights, &prefix, config, arithmetic)?,
            mlp_norm: Norm::load(weights, &format!("{prefix}.post_attention_layernorm"), config, arithmetic)?,
            mlp: Mlp::load(weights, &prefix, config, arithmetic)?,
        })
    }

    /// The size of a layer in memory, in bytes.
    fn bytes_of(
        weights: &Weights,
        index: usize,
        config: &ModelConfig,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let prefix = format!("model.layers.{index}");
        let (qkv, output) = Attention::matrices(weights, &prefix, config)?;
        let (gate_up, down) = Mlp::matrices(weights, &prefix, config)?;
        let periods = config.head_dim / 2 * size_of::<f32>();
        let periods = periods * if config.rope.periods(config.head_dim).is_some() { 2 } else { 1 };
        Ok(Projection::bytes_of(&qkv, arithmetic)
            + Linear::bytes_of(&[output], arithmetic)
            + Projection::bytes_of(&gate_up, arithmetic)
            + Linear::bytes_of(&[down], arithmetic)
            + 2 * Norm::bytes_of(config, arithmetic)
            + periods as u64)
    }

    /// Its size in memory, in bytes.
    fn bytes(&self) -> usize {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        let norms = attention_norm.weight.nbytes() + mlp_norm.weight.nbytes();
        let periods = attention.periods.nbytes() + attention.special_periods.as_ref().map_or(0, Array::nbytes);
        let matrices = attention.qkv.bytes() + attention.output.bytes() + mlp.gate_up.bytes() + mlp.down.bytes();
        norms + periods + matrices
    }

    /// The layer for the kernel that computes it in one call, if that kernel supports the formats of its matrices.
    fn whole(&self) -> Option<LayerWeights<'_>> {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        let matrices = (attention.qkv.packed()?, attention.output.packed()?, mlp.gate_up.packed()?, mlp.down.packed()?);
        let all = [matrices.0, matrices.1, matrices.2, matrices.3];
        let in_lanes = all.iter().all(|matrix| matrix.rows().is_multiple_of(hive_kernels::LANES));
        let (qkv, output, gate_up, down) = matrices;
        (mlp.fast && in_lanes).then_some(LayerWeights {
            attention_norm: &attention_norm.weight,
            qkv,
            periods: &attention.periods,
            output,
            mlp_norm: &mlp_norm.weight,
            gate_up,
            down,
            eps: attention_norm.eps,
        })
    }

    /// The size of its intermediate results, per token, in bytes.
    fn between_bytes(&self) -> usize {
        between_bytes(self.attention_norm.weight.size(), &self.attention.shape, self.mlp.intermediate)
    }

    fn forward(
        &self,
        x: &Array,
        layer: usize,
        spans: &mut [Span],
        offsets: Option<&Array>,
        ahead: &mut Ahead,
    ) -> Result<Array, ComputeError> {
        if x.dim(0) as usize <= ROWS_AT_ONCE
            && let Some(whole) = self.whole()
            && let Some(mut sessions) = rows_at_once(&self.attention.shape, layer, spans)?
        {
            return Ok(hive_kernels::layer(x, &whole, &self.attention.shape, &mut sessions)?);
        }
        let x = self.attention.forward(x, &self.attention_norm.forward(x)?, layer, spans, offsets)?;
        ahead.built_half(&x)?;
        let x = self.mlp.forward(&x, &self.mlp_norm.forward(&x)?)?;
        ahead.built_half(&x)?;
        Ok(x)
    }
}

/// The size of a layer's intermediate results, per token, in single precision, in bytes.
fn between_bytes(hidden: usize, shape: &AttentionShape, intermediate: usize) -> usize {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    (4 * hidden + 2 * (heads + kv_heads) * head_dim + 3 * intermediate) * size_of::<f32>()
}

/// How far building runs ahead of computing.
enum Ahead {
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
    /// Called when half a layer has been built.
    fn built_half(&mut self, x: &Array) -> Result<(), ComputeError> {
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
    fn built_layer(&self, layer: usize, x: &Array) -> Result<(), ComputeError> {
        if matches!(self, Self::Layers) && layer.is_multiple_of(LAYERS_AHEAD) {
            mlx_rs::transforms::async_eval([x])?;
        }
        Ok(())
    }
}

/// The sessions' parts of a batch for the one-call kernel, with room reserved in their caches.
fn rows_at_once<'a>(
    shape: &AttentionShape,
    layer: usize,
    spans: &'a mut [Span],
) -> Result<Option<Vec<SessionRows<'a>>>, ComputeError> {
    let mut sessions = Vec::with_capacity(spans.len());
    for Span { rows, offset, caches } in spans {
        let LayerCache::Fast(cache) = &mut caches[layer] else { return Ok(None) };
        cache.reserve(shape, *offset + rows.len())?;
        sessions.push(SessionRows { cache, offset: *offset, tokens: rows.len() });
    }
    Ok(Some(sessions))
}

struct Head {
    norm: Norm,
    output: Linear,
}

fn table<'a>(weights: &'a Weights, config: &ModelConfig) -> Result<FileMatrix<'a>, TensorError> {
    weights.file_matrix("model.embed_tokens", config.vocabulary, config.hidden)
}

/// The output matrix, which may be the embedding.
fn head_matrix<'a>(weights: &'a Weights, config: &ModelConfig) -> Result<FileMatrix<'a>, TensorError> {
    if config.tied_embeddings {
        return table(weights, config);
    }
    weights.file_matrix("lm_head", config.vocabulary, config.hidden)
}

/// A contiguous range of layers; the first stage also embeds, the last also norms and projects.
pub(crate) struct Stage {
    embedding: Option<Embedding>,
    layers: Vec<Layer>,
    head: Option<Head>,
    arithmetic: Arithmetic,
    shape: AttentionShape,
}

impl Stage {
    /// Loads the layers; `progress` is called with the number loaded so far.
    pub(crate) fn load(
        files: &ModelFiles,
        range: Range<usize>,
        arithmetic: Arithmetic,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, LoadError> {
        let (config, weights) = (files.config(), files.weights());
        let mut layers = Vec::with_capacity(range.len());
        for index in range.clone() {
            layers.push(Layer::load(weights, index, config, arithmetic)?);
            progress(layers.len());
        }
        let head = if range.end == config.layers {
            let norm = Norm::load(weights, "model.norm", config, arithmetic)?;
            Some(Head { norm, output: Linear::load(&[head_matrix(weights, config)?], arithmetic)? })
        } else {
            None
        };
        let embedding =
            if range.start == 0 { Some(Embedding::new(table(weights, config)?.whole()?, arithmetic)?) } else { None };
        let shape = layers.first().map(|layer| layer.attention.shape).ok_or(LoadError::EmptyRange)?;
        Ok(Self { embedding, layers, head, arithmetic, shape })
    }

    /// The memory footprint of each part of the model.
    pub(crate) fn footprint(files: &ModelFiles, arithmetic: Arithmetic) -> Result<Footprint, TensorError> {
        let (config, weights) = (files.config(), files.weights());
        let table = table(weights, config)?;
        let head = Linear::bytes_of(&[head_matrix(weights, config)?], arithmetic);
        let layers = 0..config.layers;
        Ok(Footprint {
            layer_bytes: layers
                .map(|index| Layer::bytes_of(weights, index, config, arithmetic))
                .collect::<Result<_, _>>()?,
            embedding_bytes: Embedding::bytes_of(table.format(), table.rows(), table.columns()),
            head_bytes: head + Norm::bytes_of(config, arithmetic),
            kv_bytes_per_token: config.kv_bytes_per_token(arithmetic.activation.bytes()),
            work_bytes_per_token: between_bytes(config.hidden, &Attention::shape(config), config.intermediate) as u64,
        })
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |head| head.norm.weight.nbytes() + head.output.bytes());
        let embedding = self.embedding.as_ref().map_or(0, Embedding::bytes);
        self.layers.iter().map(Layer::bytes).sum::<usize>() + head + embedding
    }

    /// Empty caches for a new session.
    pub(crate) fn caches(&self) -> Result<Vec<LayerCache>, ComputeError> {
        let one = || {
            if self.arithmetic.fast {
                LayerCache::fast(&self.shape)
            } else {
                LayerCache::plain(&self.shape, self.arithmetic.activation.mlx())
            }
        };
        self.layers.iter().map(|_| one()).collect()
    }

    /// The layout of the caches.
    pub(crate) fn kv_layout(&self) -> KvLayout {
        if self.arithmetic.fast { KvLayout::Fast } else { KvLayout::Plain(self.arithmetic.activation) }
    }

    /// Restores caches of this many positions that a stage with the same layers exported.
    pub(crate) fn imported_caches(
        &self,
        positions: usize,
        layers: &[Vec<u8>],
    ) -> Result<Vec<LayerCache>, ComputeError> {
        if layers.len() != self.layers.len() {
            return Err(ComputeError::Mlx(format!("caches of {} layers, not of {}", layers.len(), self.layers.len())));
        }
        layers.iter().map(|bytes| LayerCache::import(&self.shape, self.kv_layout(), positions, bytes)).collect()
    }

    /// Whether the stage takes tokens as its input.
    pub(crate) fn embeds(&self) -> bool {
        self.embedding.is_some()
    }

    /// Whether the stage computes logits.
    pub(crate) fn samples(&self) -> bool {
        self.head.is_some()
    }

    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Array, ComputeError> {
        match &self.embedding {
            Some(embedding) => embedding.forward(tokens, self.arithmetic),
            None => Err(ComputeError::Mlx("tokens came to a stage that does not embed".to_owned())),
        }
    }

    /// Embeds tokens `[n]` that may not have been computed yet.
    pub(crate) fn embed_sampled(&self, tokens: &Array) -> Result<Array, ComputeError> {
        match &self.embedding {
            Some(embedding) => embedding.of_sampled(tokens, self.arithmetic),
            None => Err(ComputeError::Mlx("tokens came to a stage that does not embed".to_owned())),
        }
    }

    /// `[tokens, hidden] -> [tokens, hidden]`; extends the caches.
    pub(crate) fn forward(&self, mut x: Array, spans: &mut [Span]) -> Result<Array, ComputeError> {
        let tokens = x.dim(0) as usize;
        let between_bytes = self.layers.first().map_or(0, Layer::between_bytes);
        let mut ahead = if !self.arithmetic.fast || tokens <= ROWS_AT_ONCE {
            Ahead::Free
        } else {
            match tokens * between_bytes {
                ..=BETWEEN_BYTES => Ahead::Layers,
                bytes if bytes <= BETWEEN_BYTES_ALONE => Ahead::Halves(None),
                _ => Ahead::Nothing,
            }
        };
        // The positions of several sessions with a token each, for the plain kernels.
        let decodes = !self.arithmetic.fast && spans.len() > 1 && spans.iter().all(|span| span.rows.len() == 1);
        let offsets: Vec<i32> = spans.iter().map(|span| span.offset as i32).collect();
        let offsets = decodes.then(|| Array::from_slice(&offsets, &[offsets.len() as i32]));
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, index, spans, offsets.as_ref(), &mut ahead)?;
            ahead.built_layer(index, &x)?;
        }
        Ok(x)
    }

    /// The logits of these rows in single precision: `[rows, vocabulary]`.
    pub(crate) fn logits(&self, x: &Array, rows: &[usize]) -> Result<Array, ComputeError> {
        let Some(head) = &self.head else {
            return Err(ComputeError::Mlx("logits asked of a stage that does not sample".to_owned()));
        };
        if rows.len() <= ROWS_AT_ONCE
            && let Head { norm: Norm { weight, eps, fast: true }, output } = head
            && let Some(matrix) = output.packed()
            && matrix.rows().is_multiple_of(hive_kernels::LANES)
        {
            return Ok(hive_kernels::head(x, rows, weight, *eps, matrix)?);
        }
        if rows.iter().copied().eq(0..x.dim(0) as usize) {
            return Ok(head.output.forward(&head.norm.forward(x)?)?.as_dtype(mlx_rs::Dtype::Float32)?);
        }
        let picked: Vec<Array> = rows.iter().map(|&row| x.index((row as i32..row as i32 + 1, ..))).collect();
        let picked = if let [one] = picked.as_slice() { one.clone() } else { ops::concatenate(&picked, 0)? };
        Ok(head.output.forward(&head.norm.forward(&picked)?)?.as_dtype(mlx_rs::Dtype::Float32)?)
    }
}
