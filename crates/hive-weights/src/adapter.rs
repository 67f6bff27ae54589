//! LoRA adapters: pairs of small matrices whose products are added to a model's matrices. Read as mlx-lm and PEFT write
//! them.
//!
//! `y = W x` becomes `y = W x + scale · up (down x)`. An adapter is a folder with `adapter_config.json` and one
//! safetensors file.

mod config;
mod error;

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

use crate::weights::{Float, names, to_f32};
use config::{Form, Settings};
use error::MAX_RANK;
pub use error::{AdapterError, CONFIG_FILE};

/// The names that the file with its matrices may have: mlx-lm's, and PEFT's.
pub const TENSOR_FILES: [&str; 2] = ["adapters.safetensors", "adapter_model.safetensors"];

/// Limit on the number of tensors; a large model with adapters everywhere has a few thousand.
const MAX_TENSORS: usize = 1 << 16;

/// An adapter that is opened: which modules it changes, and the bytes of its matrices.
pub struct Adapter<'a> {
    tensors: SafeTensors<'a>,
    form: Form,
    pairs: BTreeMap<String, Pair>,
}

/// The names of a module's two tensors.
#[derive(Default)]
struct Pair {
    down: Option<String>,
    up: Option<String>,
    /// The module's name in the file.
    module: String,
    scale: f32,
    /// Rows and columns of the matrix that it is added to, and the rank between.
    rows: usize,
    columns: usize,
    rank: usize,
}

/// What an adapter adds to one matrix, in single precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The rank.
    pub rank: usize,
    /// `[rank, columns]`.
    pub down: Vec<f32>,
    /// `[rows, rank]`, with the scale multiplied in.
    pub up: Vec<f32>,
}

impl<'a> Adapter<'a> {
    /// Opens an adapter from the bytes of its two files. Its matrices are read later, one by one.
    ///
    /// # Errors
    /// It is not a LoRA adapter, or its tensors do not come in pairs of one rank.
    pub fn open(config: &[u8], tensors: &'a [u8]) -> Result<Self, AdapterError> {
        let settings = Settings::read(config)?;
        let tensors = SafeTensors::deserialize(tensors).map_err(|error| AdapterError::Tensors(error.to_string()))?;
        if tensors.len() > MAX_TENSORS {
            let why = format!("it lists {} tensors; more than {MAX_TENSORS} are not accepted", tensors.len());
            return Err(AdapterError::Tensors(why));
        }
        let form = settings.form;
        let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
        let mut names = tensors.names();
        names.sort_unstable();
        for name in names {
            let (module, is_down) = form.parts(name).ok_or_else(|| AdapterError::Stray(name.to_owned()))?;
            let pair = pairs.entry(names::of_text(module).into_owned()).or_default();
            module.clone_into(&mut pair.module);
            let place = if is_down { &mut pair.down } else { &mut pair.up };
            if place.replace(name.to_owned()).is_some() {
                return Err(AdapterError::Stray(name.to_owned()));
            }
        }
        for (module, pair) in &mut pairs {
            let (Some(down), Some(up)) = (&pair.down, &pair.up) else { return Err(AdapterError::Half(module.clone())) };
            let [down, up] = [matrix_shape(&tensors, down)?, matrix_shape(&tensors, up)?];
            // `[rank, columns]` and `[rows, rank]`, or both the other way round.
            let ([down_rank, columns], [rows, up_rank]) = match form {
                Form::Peft => (down, up),
                Form::Mlx => ([down[1], down[0]], [up[1], up[0]]),
            };
            if down_rank != up_rank || !(1..=MAX_RANK).contains(&down_rank) {
                return Err(AdapterError::Rank { module: module.clone(), down: down_rank, up: up_rank });
            }
            *pair = Pair { rank: down_rank, rows, columns, ..std::mem::take(pair) };
            pair.scale = settings.scale(&pair.module, pair.rank)?;
        }
        if pairs.is_empty() {
            return Err(AdapterError::Tensors("it is empty".to_owned()));
        }
        Ok(Self { tensors, form, pairs })
    }

    /// The modules that it changes, such as `model.layers.3.self_attn.q_proj`.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    /// The rank of what it adds to a module, if it changes it.
    pub fn rank(&self, module: &str) -> Option<usize> {
        self.pairs.get(module).map(|pair| pair.rank)
    }

    /// Checks that a module which it changes has this shape in the model.
    ///
    /// # Errors
    /// It has another.
    pub fn check(&self, module: &str, expected: [usize; 2]) -> Result<(), AdapterError> {
        match self.pairs.get(module) {
            Some(pair) if [pair.rows, pair.columns] != expected => {
                let found = [pair.rows, pair.columns];
                Err(AdapterError::Shape { module: module.to_owned(), found, expected })
            }
            _ => Ok(()),
        }
    }

    /// Reads what it adds to a module.
    ///
    /// # Errors
    /// A number is not finite.
    pub fn update(&self, module: &str) -> Result<Option<Update>, AdapterError> {
        let Some(Pair { down: Some(down), up: Some(up), scale, rows, columns, rank, .. }) = self.pairs.get(module)
        else {
            return Ok(None);
        };
        let [mut down, mut up] = [self.numbers(down)?, self.numbers(up)?];
        if self.form == Form::Mlx {
            down = transposed(&down, *columns, *rank);
            up = transposed(&up, *rank, *rows);
        }
        for number in &mut up {
            *number *= scale;
        }
        if !down.iter().chain(&up).all(|number| number.is_finite()) {
            return Err(AdapterError::NotFinite(module.to_owned()));
        }
        Ok(Some(Update { rank: *rank, down, up }))
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>, AdapterError> {
        let tensor = self.tensors.tensor(name).map_err(|error| AdapterError::Tensors(error.to_string()))?;
        Ok(to_f32(float(name, tensor.dtype())?, tensor.data()))
    }
}

fn matrix_shape(tensors: &SafeTensors<'_>, name: &str) -> Result<[usize; 2], AdapterError> {
    let tensor = tensors.tensor(name).map_err(|error| AdapterError::Tensors(error.to_string()))?;
    float(name, tensor.dtype())?;
    <[usize; 2]>::try_from(tensor.shape())
        .map_err(|_| AdapterError::Unsupported(format!("{name} with {} dimensions", tensor.shape().len())))
}

fn float(name: &str, dtype: Dtype) -> Result<Float, AdapterError> {
    match dtype {
        Dtype::F32 => Ok(Float::F32),
        Dtype::F16 => Ok(Float::F16),
        Dtype::BF16 => Ok(Float::Bf16),
        other => Err(AdapterError::Unsupported(format!("{name} in {other:?}"))),
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(numbers: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| numbers[row * columns + column])).collect()
}

#[cfg(test)]
mod tests;
