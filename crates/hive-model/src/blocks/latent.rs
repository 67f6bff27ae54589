//! Latent attention (`LatentSpec`): keys and values of all heads are projected from one narrow latent row per token, and
//! only that row is cached.
//!
//! Queries are mapped into the latent space and the result back ("absorbed"), so no head's keys or values are ever
//! computed. What remains is attention with one key-value head, whose keys are also its values, and the same on every
//! kernel.

use hive_kernels::AttentionShape;
use hive_weights::config::{LatentSpec, ModelConfig};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use super::heads::Heads;
use super::norm::Norm;
use crate::adapter::{Place, Target, adapted};
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear};
use crate::span::Batch;

pub(super) struct Latent {
    /// To a narrow row and its norm, if queries go through one.
    query_down: Option<(Linear, Norm)>,
    query_up: Linear,
    down: Linear,
    norm: Norm,
    /// Of each head: from what is not rotated of its queries to the row's space.
    keys: EachHead,
    /// Of each head: from that space to its values.
    values: EachHead,
    pub(super) output: Linear,
    heads: Heads,
    spec: LatentSpec,
}

/// A matrix for each head.
enum EachHead {
    /// As one, on MLX's kernels.
    Together(Linear),
    /// One by one, on the fast kernels: a row's numbers then depend on nothing else.
    Alone(Vec<Linear>),
}

struct Matrices<'a> {
    query_down: Option<FileMatrix<'a>>,
    query_up: FileMatrix<'a>,
    down: FileMatrix<'a>,
    heads: OfHeads<'a>,
    output: FileMatrix<'a>,
}

/// The matrices of all heads in a file.
enum OfHeads<'a> {
    /// As MLX has them: the way of queries to the row's space, and the way back to values.
    Split([Vec<FileMatrix<'a>>; 2]),
    /// As the authors have them: keys and values of each head from the row, in one matrix.
    Joined(FileMatrix<'a>),
}

fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    spec: &LatentSpec,
) -> Result<Matrices<'a>, TensorError> {
    let LatentSpec { heads, latent, rotated, unrotated, value_dim, query_rank, .. } = *spec;
    let part =
        |name: &str, rows: usize, columns: usize| weights.file_matrix(&format!("{prefix}.{name}"), rows, columns);
    let each = |name: &str, rows: usize, columns: usize| {
        weights.stacked_matrices(&format!("{prefix}.{name}"), heads, rows, columns)
    };
    // None is added there, so one that is in the file would change nothing.
    for name in ["kv_b_proj", "embed_q", "unembed_out"] {
        let name = format!("{prefix}.{name}.bias");
        if weights.contains(&name) {
            return Err(TensorError::Type { name, found: "a bias".to_owned(), supported: "none there" });
        }
    }
    let queries = heads * (unrotated + rotated);
    let of_heads = if weights.contains(&format!("{prefix}.kv_b_proj.weight")) {
        OfHeads::Joined(part("kv_b_proj", heads * (unrotated + value_dim), latent)?)
    } else {
        OfHeads::Split([each("embed_q", latent, unrotated)?, each("unembed_out", value_dim, latent)?])
    };
    let query_up = match query_rank {
        Some(rank) => part("q_b_proj", queries, rank)?,
        None => part("q_proj", queries, hidden)?,
    };
    Ok(Matrices {
        query_down: query_rank.map(|rank| part("q_a_proj", rank, hidden)).transpose()?,
        query_up,
        down: part("kv_a_proj_with_mqa", latent + rotated, hidden)?,
        heads: of_heads,
        output: part("o_proj", hidden, heads * value_dim)?,
    })
}

impl OfHeads<'_> {
    fn load(&self, spec: &LatentSpec, arithmetic: Arithmetic) -> Result<[EachHead; 2], LoadError> {
        match self {
            Self::Split([keys, values]) => Ok([EachHead::load(keys, arithmetic)?, EachHead::load(values, arithmetic)?]),
            Self::Joined(matrix) => {
                let LatentSpec { heads, latent, unrotated, value_dim, .. } = *spec;
                let whole = matrix.whole()?;
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for head in 0..heads {
                    let first = head * (unrotated + value_dim);
                    let rows: Vec<Vec<f32>> = (first..first + unrotated).map(|row| whole.row(row)).collect();
                    keys.extend((0..latent).flat_map(|at| rows.iter().map(move |row| row[at])));
                    values.extend((first + unrotated..first + unrotated + value_dim).flat_map(|row| whole.row(row)));
                }
                Ok([
                    EachHead::of_numbers(&keys, heads, [latent, unrotated], arithmetic)?,
                    EachHead::of_numbers(&values, heads, [value_dim, latent], arithmetic)?,
                ])
            }
        }
    }

    fn bytes_of(&self, spec: &LatentSpec, arithmetic: Arithmetic) -> u64 {
        match self {
            Self::Split(parts) => parts.iter().map(|part| EachHead::bytes_of(part, arithmetic)).sum(),
            Self::Joined(_) => {
                let LatentSpec { heads, latent, unrotated, value_dim, .. } = *spec;
                let shapes = [[latent, unrotated], [value_dim, latent]];
                shapes.iter().map(|shape| heads as u64 * Linear::bytes_of_numbers(*shape, arithmetic)).sum()
            }
        }
    }
}

impl EachHead {
    fn load(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        if arithmetic.fast {
            let alone = matrices.iter().map(|matrix| Linear::load(std::slice::from_ref(matrix), arithmetic));
            return Ok(Self::Alone(alone.collect::<Result<_, _>>()?));
        }
        Ok(Self::Together(Linear::load_stacked(matrices, matrices.len(), arithmetic)?))
    }

    /// From numbers of `heads` matrices of this shape.
    fn of_numbers(numbers: &[f32], heads: usize, shape: [usize; 2], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        if arithmetic.fast {
            let alone = numbers.chunks_exact(shape[0] * shape[1]);
            let alone = alone.map(|numbers| Linear::of_numbers(numbers, 1, shape, arithmetic));
            return Ok(Self::Alone(alone.collect::<Result<_, _>>()?));
        }
        Ok(Self::Together(Linear::of_numbers(numbers, heads, shape, arithmetic)?))
    }

    fn bytes_of(matrices: &[FileMatrix<'_>], arithmetic: Arithmetic) -> u64 {
        if arithmetic.fast {
            return matrices.iter().map(|one| Linear::bytes_of(std::slice::from_ref(one), arithmetic)).sum();
        }
        Linear::bytes_of(matrices, arithmetic)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Together(linear) => linear.bytes(),
            Self::Alone(linears) => linears.iter().map(Linear::bytes).sum(),
        }
    }

    /// `[heads, n, columns] -> [heads, n, rows]`.
    fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        match self {
            Self::Together(linear) => linear.each(x),
            Self::Alone(linears) => {
                let one = |(head, linear): (usize, &Linear)| {
                    linear.forward(&x.index((head as i32, .., ..)).contiguous()?)?.expand_dims(0).map_err(Into::into)
                };
                let outputs = linears.iter().enumerate().map(one).collect::<Result<Vec<_>, ComputeError>>()?;
                Ok(ops::concatenate(&outputs, 0)?)
            }
        }
    }
}

impl Latent {
    /// What the kernels compute with.
    pub(super) fn shape_of(spec: &LatentSpec) -> AttentionShape {
        Heads::shape(&spec.as_attention())
    }

    pub(super) fn shape(&self) -> &AttentionShape {
        &self.heads.shape
    }

    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &LatentSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let matrices = matrices(weights, prefix, config.hidden, spec)?;
        let norm = |name: &str, width: usize| -> Result<Norm, LoadError> {
            let norm = Norm::load(weights, &format!("{prefix}.{name}"), width, config, arithmetic)?;
            Ok(Norm { eps: spec.eps, ..norm })
        };
        let query_down = match (&matrices.query_down, spec.query_rank) {
            (Some(matrix), Some(rank)) => {
                Some((Linear::load(std::slice::from_ref(matrix), arithmetic)?, norm("q_a_layernorm", rank)?))
            }
            _ => None,
        };
        let [keys, values] = matrices.heads.load(spec, arithmetic)?;
        Ok(Self {
            query_down,
            query_up: Linear::load(&[matrices.query_up], arithmetic)?,
            down: Linear::load(&[matrices.down], arithmetic)?,
            norm: norm("kv_a_layernorm", spec.latent)?,
            keys,
            values,
            output: Linear::load(&[matrices.output], arithmetic)?,
            heads: Heads::load(weights, prefix, config, &spec.as_attention(), arithmetic)?,
            spec: spec.clone(),
        })
    }

    /// What adapters can change in such attention: all but `kv_b_proj`.
    pub(super) fn targets(module: &str, hidden: usize, spec: &LatentSpec) -> Vec<Target> {
        let LatentSpec { heads, latent, rotated, unrotated, value_dim, query_rank, .. } = *spec;
        let target = |place, columns, name, rows| Target::of(place, columns, module, &[(name, rows)]);
        let queries = heads * (unrotated + rotated);
        let mut targets = vec![
            target(Place::Input, hidden, "kv_a_proj_with_mqa", latent + rotated),
            target(Place::Output, heads * value_dim, "o_proj", hidden),
        ];
        match query_rank {
            Some(rank) => targets.extend([
                target(Place::QueryDown, hidden, "q_a_proj", rank),
                target(Place::QueryUp, rank, "q_b_proj", queries),
            ]),
            None => targets.push(target(Place::QueryUp, hidden, "q_proj", queries)),
        }
        targets
    }

    /// The size of such attention in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        spec: &LatentSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let Matrices { query_down, query_up, down, heads, output } = matrices(weights, prefix, config.hidden, spec)?;
        let alone = [Some(query_up), Some(down), Some(output), query_down];
        let alone: u64 = alone.into_iter().flatten().map(|matrix| Linear::bytes_of(&[matrix], arithmetic)).sum();
        Ok(alone
            + heads.bytes_of(spec, arithmetic)
            + Norm::bytes_of(spec.latent + spec.query_rank.unwrap_or(0), arithmetic)
            + Heads::bytes_of(&spec.as_attention(), arithmetic))
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let query_down = self.query_down.as_ref().map_or(0, |(linear, norm)| linear.bytes() + norm.bytes());
        let linears = [&self.query_up, &self.down, &self.output].into_iter().map(Linear::bytes).sum::<usize>();
        query_down + linears + self.norm.bytes() + self.keys.bytes() + self.values.bytes() + self.heads.bytes()
    }

    /// `x [n, hidden]`, normalized, to what is projected back: `[n, heads value_dim]`. Extends the caches.
    pub(super) fn attended(&self, x: &Array, layer: usize, batch: &mut Batch) -> Result<Array, ComputeError> {
        let adapter = batch.adapter;
        let LatentSpec { heads, latent, rotated, unrotated, value_dim, .. } = self.spec;
        let n = x.dim(0);
        let [heads, latent, rotated, unrotated, values] =
            [heads, latent, rotated, unrotated, value_dim].map(|width| width as i32);
        let queries = match &self.query_down {
            Some((down, norm)) => {
                let narrow = norm.forward(&adapted(adapter, Place::QueryDown, down.forward(x)?, x)?)?;
                adapted(adapter, Place::QueryUp, self.query_up.forward(&narrow)?, &narrow)?
            }
            None => adapted(adapter, Place::QueryUp, self.query_up.forward(x)?, x)?,
        };
        let queries = queries.reshape(&[n, heads, unrotated + rotated])?;
        let row = adapted(adapter, Place::Input, self.down.forward(x)?, x)?;
        let kept = self.norm.forward(&row.index((.., ..latent)).contiguous()?)?;
        // Rotated are neighbours in the file, and halves here.
        let halves = |part: Array, heads: i32| -> Result<Array, ComputeError> {
            let pairs = part.reshape(&[n, heads, rotated / 2, 2])?;
            Ok(pairs.transpose_axes(&[0, 1, 3, 2])?.reshape(&[n, heads, rotated])?)
        };
        let in_row = self.keys.forward(&queries.index((.., .., ..unrotated)).transpose_axes(&[1, 0, 2])?)?;
        let turned = halves(queries.index((.., .., unrotated..)), heads)?;
        let queries = ops::concatenate(&[turned, in_row.transpose_axes(&[1, 0, 2])?], -1)?;
        let turned = halves(row.index((.., latent..)), 1)?.reshape(&[n, rotated])?;
        let keys = ops::concatenate(&[turned, kept], -1)?;
        let queries = queries.reshape(&[n, heads * (rotated + latent)])?;
        let qkv = ops::concatenate(&[&queries, &keys, &keys], -1)?;
        let attended = self.heads.attend_all(&qkv, layer, batch)?;
        let attended = attended.reshape(&[n, heads, rotated + latent])?.index((.., .., rotated..));
        let read = self.values.forward(&attended.transpose_axes(&[1, 0, 2])?)?;
        let read = read.transpose_axes(&[1, 0, 2])?.reshape(&[n, heads * values])?;
        Ok(if self.norm.fast { read.contiguous()? } else { read })
    }
}
