//! A contiguous range of layers, between the embedding and the head.

use std::ops::Range;

use hive_weights::ModelFiles;
use hive_weights::config::{Ends, KvSource, LayerSpec, ModelConfig};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::adapter::LayerAdapter;
use crate::blocks::ahead::Ahead;
use crate::blocks::layer::{Layer, ROWS_AT_ONCE, between_bytes, cache_shape};
use crate::blocks::layer_inputs::LayerInputs;
use crate::blocks::norm::Norm;
use crate::embedding::{Embedding, scaled};
use crate::error::{ComputeError, LoadError};
use crate::footprint::Footprint;
use crate::kv::{KvLayout, LayerCache};
use crate::linear::{Arithmetic, Linear};
use crate::span::{Batch, Span, Together};

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

/// The layer whose keys and values, or whose state, a layer uses.
fn cache_of(index: usize, spec: &LayerSpec) -> usize {
    match spec.attention().map(|attention| attention.source) {
        Some(KvSource::Layer(owner)) => owner,
        _ => index,
    }
}

/// A contiguous range of layers; the first stage also embeds, the last also norms and projects.
///
/// Where layers have inputs of their own, those that are still to be used stand behind the hidden states, in the order
/// of the layers: `[tokens, hidden + widths]`.
pub(crate) struct Stage {
    embedding: Option<Embedding>,
    inputs: Option<LayerInputs>,
    layers: Vec<Layer>,
    /// The cache that each layer attends to: its own, or an earlier layer's.
    caches: Vec<usize>,
    /// Width of the hidden states alone.
    hidden: usize,
    /// Width of what comes in and of what goes out.
    widths: [usize; 2],
    head: Option<Head>,
    arithmetic: Arithmetic,
    ends: Ends,
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
        let mut caches = Vec::with_capacity(range.len());
        for index in range.clone() {
            let spec = config.specs.get(index).ok_or(LoadError::EmptyRange)?;
            let cache = cache_of(index, spec).checked_sub(range.start);
            caches.push(cache.ok_or(LoadError::Uncut { at: range.start })?);
            layers.push(Layer::load(weights, index, config, spec, arithmetic)?);
            progress(layers.len());
        }
        let head = if range.end == config.layers {
            let norm = Norm::load(weights, "model.norm", config.hidden, config, arithmetic)?;
            Some(Head { norm, output: Linear::load(&[head_matrix(weights, config)?], arithmetic)? })
        } else {
            None
        };
        let embedding =
            if range.start == 0 { Some(Embedding::new(table(weights, config)?.whole()?, arithmetic)?) } else { None };
        let inputs = config.ends.layer_inputs.filter(|_| range.start == 0);
        Ok(Self {
            embedding,
            inputs: inputs.map(|spec| LayerInputs::load(weights, config, spec, arithmetic)).transpose()?,
            layers,
            caches,
            hidden: config.hidden,
            widths: [config.width_into(range.start), config.width_into(range.end)],
            head,
            arithmetic,
            ends: config.ends,
        })
    }

    /// The memory footprint of each part of the model.
    pub(crate) fn footprint(files: &ModelFiles, arithmetic: Arithmetic) -> Result<Footprint, TensorError> {
        let (config, weights) = (files.config(), files.weights());
        let table = table(weights, config)?;
        let head = Linear::bytes_of(&[head_matrix(weights, config)?], arithmetic);
        let inputs = config.ends.layer_inputs.map(|spec| LayerInputs::bytes_of(weights, config, spec, arithmetic));
        let layers = config.specs.iter().enumerate();
        Ok(Footprint {
            layer_bytes: layers
                .map(|(index, spec)| Layer::bytes_of(weights, index, config, spec, arithmetic))
                .collect::<Result<_, _>>()?,
            unread_bytes: config
                .specs
                .iter()
                .enumerate()
                .map(|(index, spec)| Layer::unread_bytes_of(weights, index, config, spec, arithmetic))
                .collect::<Result<_, _>>()?,
            embedding_bytes: Embedding::bytes_of(table.format(), table.rows(), table.columns())
                + inputs.transpose()?.unwrap_or_default(),
            uncut: config.uncut(),
            head_bytes: head + Norm::bytes_of(config.hidden, arithmetic),
            states: config.specs.iter().map(|spec| cache_shape(spec).bytes(arithmetic.activation)).collect(),
            work_bytes_per_token: config
                .specs
                .iter()
                .map(|spec| between_bytes(config.hidden, spec) as u64)
                .max()
                .unwrap_or_default(),
        })
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |head| head.norm.bytes() + head.output.bytes());
        let embedding = self.embedding.as_ref().map_or(0, Embedding::bytes);
        let inputs = self.inputs.as_ref().map_or(0, LayerInputs::bytes);
        self.layers.iter().map(Layer::bytes).sum::<usize>() + head + embedding + inputs
    }

    /// Empty caches for a new session.
    pub(crate) fn caches(&self) -> Result<Vec<LayerCache>, ComputeError> {
        self.layers.iter().map(|layer| LayerCache::new(&layer.cache_shape(), self.arithmetic)).collect()
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
        let import = |(bytes, layer): (&Vec<u8>, &Layer)| {
            LayerCache::import(&layer.cache_shape(), self.kv_layout(), positions, bytes)
        };
        layers.iter().zip(&self.layers).map(import).collect()
    }

    /// Whether the stage takes tokens as its input.
    pub(crate) fn embeds(&self) -> bool {
        self.embedding.is_some()
    }

    /// Whether the stage computes logits.
    pub(crate) fn samples(&self) -> bool {
        self.head.is_some()
    }

    /// Width of what comes in.
    pub(crate) fn input_width(&self) -> usize {
        self.widths[0]
    }

    /// Width of what goes out to the next stage.
    pub(crate) fn output_width(&self) -> usize {
        self.widths[1]
    }

    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Array, ComputeError> {
        self.embed_by(|table| table.forward(tokens, self.arithmetic))
    }

    /// Embeds tokens `[n]` that may not have been computed yet.
    pub(crate) fn embed_sampled(&self, tokens: &Array) -> Result<Array, ComputeError> {
        self.embed_by(|table| table.of_sampled(tokens, self.arithmetic))
    }

    fn embed_by(&self, rows: impl Fn(&Embedding) -> Result<Array, ComputeError>) -> Result<Array, ComputeError> {
        let Some(embedding) = &self.embedding else {
            return Err(ComputeError::Mlx("tokens came to a stage that does not embed".to_owned()));
        };
        let embedded = scaled(rows(embedding)?, self.ends.embedding)?;
        match &self.inputs {
            Some(inputs) => {
                let of_layers = inputs.forward(&embedded, rows(&inputs.table)?)?;
                Ok(ops::concatenate(&[embedded, of_layers], -1)?)
            }
            None => Ok(embedded),
        }
    }

    /// Columns of what came in, without gaps, which the fast kernels do not take.
    fn columns(&self, x: &Array, columns: Range<usize>) -> Result<Array, ComputeError> {
        let part = x.index((.., columns.start as i32..columns.end as i32));
        Ok(if self.arithmetic.fast { part.contiguous()? } else { part })
    }

    /// `[tokens, hidden] -> [tokens, hidden]`, with the layers' own inputs behind them; extends the caches.
    /// `together` are the sessions that share buffers, and `adapter` is what is added to each layer, for all sessions.
    pub(crate) fn forward<'c>(
        &self,
        mut x: Array,
        spans: &mut [Span<'c>],
        mut together: Option<Together<'c>>,
        adapter: Option<&[LayerAdapter]>,
    ) -> Result<Array, ComputeError> {
        let inputs = (x.dim(1) as usize > self.hidden).then(|| x.index((.., self.hidden as i32..)));
        if inputs.is_some() {
            x = self.columns(&x, 0..self.hidden)?;
        }
        let mut used = 0;
        let tokens = x.dim(0) as usize;
        let between_bytes = self.layers.iter().map(Layer::between_bytes).max().unwrap_or(0);
        let mut ahead = if !self.arithmetic.fast || tokens <= ROWS_AT_ONCE {
            Ahead::Free
        } else {
            Ahead::of(tokens * between_bytes)
        };
        // The positions of several sessions with a token each, for the plain kernels.
        let decodes = !self.arithmetic.fast && spans.len() > 1 && spans.iter().all(|span| span.rows.len() == 1);
        let offsets: Vec<i32> = spans.iter().map(|span| span.offset as i32).collect();
        let offsets = decodes.then(|| Array::from_slice(&offsets, &[offsets.len() as i32]));
        for (index, (layer, cache)) in self.layers.iter().zip(&self.caches).enumerate() {
            let width = layer.input_width();
            let own = match &inputs {
                Some(inputs) if width > 0 => Some(self.columns(inputs, used..used + width)?),
                _ => None,
            };
            used += width;
            let adapter = adapter.and_then(|layers| layers.get(index)).filter(|adapter| !adapter.is_empty());
            let (offsets, together) = (offsets.as_ref(), together.as_mut());
            let mut batch = Batch { spans: &mut *spans, offsets, together, adapter };
            x = layer.forward(&x, own.as_ref(), *cache, &mut batch, &mut ahead)?;
            ahead.built_layer(index, &x)?;
        }
        match inputs {
            Some(inputs) if inputs.dim(1) as usize > used => {
                Ok(ops::concatenate(&[x, inputs.index((.., used as i32..))], -1)?)
            }
            _ => Ok(x),
        }
    }

    /// The logits of these rows in single precision: `[rows, vocabulary]`.
    pub(crate) fn logits(&self, x: &Array, rows: &[usize]) -> Result<Array, ComputeError> {
        let Some(head) = &self.head else {
            return Err(ComputeError::Mlx("logits asked of a stage that does not sample".to_owned()));
        };
        let logits = head.forward(x, rows)?;
        let logits = scaled(logits, self.ends.logits)?;
        match self.ends.soft_cap {
            Some(cap) => {
                let cap = Array::from_f32(cap);
                Ok(ops::tanh(logits.divide(&cap)?)?.multiply(cap)?)
            }
            None => Ok(logits),
        }
    }
}

impl Head {
    /// The logits of these rows in single precision: `[rows, vocabulary]`.
    fn forward(&self, x: &Array, rows: &[usize]) -> Result<Array, ComputeError> {
        if rows.len() <= ROWS_AT_ONCE
            && let Self { norm: Norm { weight, eps, fast: true }, output } = self
            && let Some(matrix) = output.packed()
            && matrix.rows().is_multiple_of(hive_kernels::LANES)
        {
            return Ok(hive_kernels::head(x, rows, weight, *eps, matrix)?);
        }
        if rows.iter().copied().eq(0..x.dim(0) as usize) {
            return Ok(self.output.forward(&self.norm.forward(x)?)?.as_dtype(mlx_rs::Dtype::Float32)?);
        }
        let picked: Vec<Array> = rows.iter().map(|&row| x.index((row as i32..row as i32 + 1, ..))).collect();
        let picked = if let [one] = picked.as_slice() { one.clone() } else { ops::concatenate(&picked, 0)? };
        Ok(self.output.forward(&self.norm.forward(&picked)?)?.as_dtype(mlx_rs::Dtype::Float32)?)
    }
}
