//! LoRA adapters in memory: what is added to the outputs of a layer's projections, for the sessions that ask for it.
//!
//! The model's weights stay as they are, quantized or not, so sessions with and without adapters share them. Where
//! projections are joined to one product, so are their updates: the down matrices are stacked, the up matrices form
//! a block diagonal.

use std::collections::{BTreeMap, BTreeSet};

use hive_kernels::LANES;
use hive_weights::adapter::{Adapter, AdapterError, Update};
use mlx_rs::Array;
use serde::{Deserialize, Serialize};

use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear};

/// Limit on all adapters of a shard together, in bytes.
const MAX_BYTES: usize = 512 << 20;

/// Identifies an adapter by its contents on every machine: the SHA-256 digest of its two files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AdapterId(pub [u8; 32]);

/// As logs show it.
impl std::fmt::Debug for AdapterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a shard does not take an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterRefused {
    /// It is not an adapter, or was made for another model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Adapters that open sessions use leave no room for it.
    #[error(
        "adapters may take {} MB of a machine's memory, and beside those in use there is no room for this one",
        MAX_BYTES >> 20
    )]
    Full,
    /// It exceeds the limit by itself.
    #[error(
        "the adapter takes {} MB of memory on this machine; more than {} are not accepted",
        .0.div_ceil(1 << 20),
        MAX_BYTES >> 20
    )]
    TooLarge(usize),
    /// MLX failed.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

/// The projections of a layer whose output an adapter can change. Those that read the same input are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Queries, keys and values; a delta net's inputs; a latent row.
    Input,
    /// Down-projection of the queries (`q_a_proj`).
    QueryDown,
    /// Up-projection of the queries (`q_b_proj`), or `q_proj`.
    QueryUp,
    /// The mixer's output projection.
    Output,
    /// A network's gate and up.
    GateUp,
    /// A network's down projection.
    Down,
}

/// A place with the modules whose outputs stand side by side in it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) place: Place,
    /// Width of the input.
    pub(crate) columns: usize,
    /// Names within the layer, such as `self_attn.q_proj`, and widths of their outputs.
    pub(crate) modules: Vec<(String, usize)>,
}

impl Target {
    /// A target whose modules belong to the module `parent`.
    pub(crate) fn of(place: Place, columns: usize, parent: &str, modules: &[(&str, usize)]) -> Self {
        let modules = modules.iter().map(|(name, rows)| (format!("{parent}.{name}"), *rows)).collect();
        Self { place, columns, modules }
    }
}

/// What an adapter adds to one layer.
#[derive(Debug, Default)]
pub(crate) struct LayerAdapter {
    added: BTreeMap<Place, LowRank>,
}

#[derive(Debug)]
struct LowRank {
    down: Linear,
    up: Linear,
}

/// The rank as stored: the fast kernels need a multiple of [`LANES`].
fn width(rank: usize, arithmetic: Arithmetic) -> usize {
    if arithmetic.fast { rank.next_multiple_of(LANES) } else { rank }
}

impl LowRank {
    fn load(target: &Target, updates: &[Option<Update>], arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let rank = width(updates.iter().flatten().map(|update| update.rank).sum(), arithmetic);
        let rows: usize = target.modules.iter().map(|(_, rows)| rows).sum();
        let mut down = Vec::with_capacity(rank * target.columns);
        let mut up = vec![0.0; rows * rank];
        let (mut first_row, mut first_column) = (0, 0);
        for ((_, rows), update) in target.modules.iter().zip(updates) {
            if let Some(update) = update {
                down.extend_from_slice(&update.down);
                for (row, numbers) in update.up.chunks_exact(update.rank).enumerate() {
                    let start = (first_row + row) * rank + first_column;
                    up[start..start + update.rank].copy_from_slice(numbers);
                }
                first_column += update.rank;
            }
            first_row += rows;
        }
        down.resize(rank * target.columns, 0.0);
        Ok(Self {
            down: Linear::of_numbers(&down, 1, [rank, target.columns], arithmetic)?,
            up: Linear::of_numbers(&up, 1, [rows, rank], arithmetic)?,
        })
    }
}

impl LayerAdapter {
    /// Loads what an adapter changes in the layer `index`.
    fn load(
        adapter: &Adapter<'_>,
        index: usize,
        targets: &[Target],
        arithmetic: Arithmetic,
    ) -> Result<Self, AdapterRefused> {
        let mut added = BTreeMap::new();
        for target in targets {
            let update = |(module, _): &(String, usize)| adapter.update(&full_name(index, module));
            let updates = target.modules.iter().map(update).collect::<Result<Vec<_>, _>>()?;
            if updates.iter().any(Option::is_some) {
                let low_rank = LowRank::load(target, &updates, arithmetic).map_err(|error| match error {
                    LoadError::Compute(error) => error,
                    other => ComputeError::Mlx(other.to_string()),
                })?;
                added.insert(target.place, low_rank);
            }
        }
        Ok(Self { added })
    }

    /// Whether it changes the layer at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty()
    }

    fn bytes(&self) -> usize {
        self.added.values().map(|low_rank| low_rank.down.bytes() + low_rank.up.bytes()).sum()
    }
}

/// The output `y` of a place for the input `x`, with what the adapter adds to it.
pub(crate) fn adapted(
    adapter: Option<&LayerAdapter>,
    place: Place,
    y: Array,
    x: &Array,
) -> Result<Array, ComputeError> {
    match adapter.and_then(|adapter| adapter.added.get(&place)) {
        Some(LowRank { down, up }) => Ok(y.add(up.forward(&down.forward(x)?)?)?),
        None => Ok(y),
    }
}

fn full_name(layer: usize, module: &str) -> String {
    format!("model.layers.{layer}.{module}")
}

fn bytes(layers: &[LayerAdapter]) -> usize {
    layers.iter().map(LayerAdapter::bytes).sum()
}

/// The adapters of a shard.
#[derive(Debug)]
pub(crate) struct Adapters {
    /// The first layer of the shard, and how many the model has.
    first: usize,
    all_layers: usize,
    /// What can be changed in each layer.
    targets: Vec<Vec<Target>>,
    arithmetic: Arithmetic,
    max_bytes: usize,
    /// The least recently loaded first.
    loaded: Vec<(AdapterId, Vec<LayerAdapter>)>,
}

impl Adapters {
    pub(crate) fn new(first: usize, all_layers: usize, targets: Vec<Vec<Target>>, arithmetic: Arithmetic) -> Self {
        Self { first, all_layers, targets, arithmetic, max_bytes: MAX_BYTES, loaded: Vec::new() }
    }

    /// Whether this adapter is loaded.
    pub(crate) fn has(&self, id: AdapterId) -> bool {
        self.layers(id).is_some()
    }

    /// Those that are loaded.
    pub(crate) fn ids(&self) -> impl Iterator<Item = AdapterId> {
        self.loaded.iter().map(|(id, _)| *id)
    }

    /// What an adapter adds to each layer.
    pub(crate) fn layers(&self, id: AdapterId) -> Option<&[LayerAdapter]> {
        self.loaded.iter().find(|(other, _)| *other == id).map(|(_, layers)| layers.as_slice())
    }

    /// The size of all of them in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.loaded.iter().map(|(_, layers)| bytes(layers)).sum()
    }

    /// Loads an adapter. Others that no session uses make room for it.
    pub(crate) fn load(
        &mut self,
        id: AdapterId,
        adapter: &Adapter<'_>,
        used: &BTreeSet<AdapterId>,
        mut progress: impl FnMut(usize),
    ) -> Result<(), AdapterRefused> {
        if self.has(id) {
            return Ok(());
        }
        self.check(adapter)?;
        let needed = self.bytes_of(adapter);
        if needed > self.max_bytes {
            return Err(AdapterRefused::TooLarge(needed));
        }
        let in_use = self.loaded.iter().filter(|(other, _)| used.contains(other)).map(|(_, layers)| bytes(layers));
        if needed + in_use.sum::<usize>() > self.max_bytes {
            return Err(AdapterRefused::Full);
        }
        // Before others make room: one that cannot be loaded costs nobody anything.
        let mut layers = Vec::with_capacity(self.targets.len());
        for (at, targets) in self.targets.iter().enumerate() {
            layers.push(LayerAdapter::load(adapter, self.first + at, targets, self.arithmetic)?);
            progress(layers.len());
        }
        while needed + self.bytes() > self.max_bytes
            && let Some(oldest) = self.loaded.iter().position(|(other, _)| !used.contains(other))
        {
            self.loaded.remove(oldest);
        }
        self.loaded.push((id, layers));
        Ok(())
    }

    /// Checks that an adapter is one of this model's.
    pub(crate) fn check(&self, adapter: &Adapter<'_>) -> Result<(), AdapterError> {
        for module in adapter.modules() {
            let unknown = || AdapterError::Module(module.to_owned());
            let place = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
            let (layer, name) = place.ok_or_else(unknown)?;
            let number =
                layer.parse().ok().filter(|number: &usize| *number < self.all_layers && number.to_string() == layer);
            let layer = number.ok_or_else(unknown)?;
            // Other machines check theirs.
            let Some(targets) = layer.checked_sub(self.first).and_then(|at| self.targets.get(at)) else { continue };
            let columns_and_rows = targets.iter().find_map(|target| {
                let (_, rows) = target.modules.iter().find(|(module, _)| module == name)?;
                Some([*rows, target.columns])
            });
            adapter.check(module, columns_and_rows.ok_or_else(unknown)?)?;
        }
        Ok(())
    }

    /// The size of an adapter in memory, in bytes.
    fn bytes_of(&self, adapter: &Adapter<'_>) -> usize {
        let mut bytes = 0;
        for (at, targets) in self.targets.iter().enumerate() {
            for target in targets {
                let rank_of = |(module, _): &(String, usize)| adapter.rank(&full_name(self.first + at, module));
                let rank = width(target.modules.iter().filter_map(rank_of).sum(), self.arithmetic);
                let rows = target.modules.iter().map(|(_, rows)| rows).sum();
                if rank > 0 {
                    let of = |shape| Linear::bytes_of_numbers(shape, self.arithmetic) as usize;
                    bytes += of([rank, target.columns]) + of([rows, rank]);
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::hidden::ActivationType;

    const WIDTH: usize = 4;

    /// Room for two adapters of rank 1.
    fn adapters() -> Adapters {
        let targets = vec![vec![Target::of(Place::Down, WIDTH, "mlp", &[("down_proj", WIDTH)])]];
        let arithmetic = Arithmetic { fast: false, activation: ActivationType::F32 };
        let adapters = Adapters::new(0, 1, targets, arithmetic);
        Adapters { max_bytes: 2 * 2 * WIDTH * size_of::<f32>(), ..adapters }
    }

    fn load(adapters: &mut Adapters, id: u8, number: f32, used: &[u8]) -> Result<(), AdapterRefused> {
        let bytes = [number; WIDTH].map(f32::to_le_bytes).concat();
        let tensor = |name: &str, shape: [usize; 2]| {
            let name = format!("model.layers.0.mlp.down_proj.{name}");
            (name, TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap())
        };
        let views = [tensor("lora_a", [WIDTH, 1]), tensor("lora_b", [1, WIDTH])];
        let tensors = safetensors::serialize(views, None).unwrap();
        let adapter = Adapter::open(br#"{"lora_parameters":{"scale":1.0}}"#, &tensors).unwrap();
        adapters.load(AdapterId([id; 32]), &adapter, &used.iter().map(|id| AdapterId([*id; 32])).collect(), |_| ())
    }

    fn loaded(adapters: &Adapters) -> Vec<u8> {
        adapters.ids().map(|AdapterId(id)| id[0]).collect()
    }

    #[test]
    fn the_oldest_that_no_session_uses_makes_room() {
        let mut adapters = adapters();
        for id in [1, 2, 1, 3] {
            load(&mut adapters, id, 1.0, &[]).unwrap();
        }
        assert_eq!(loaded(&adapters), [2, 3]);
        load(&mut adapters, 4, 1.0, &[2]).unwrap();
        assert_eq!(loaded(&adapters), [2, 4]);
        assert_eq!(adapters.bytes(), adapters.max_bytes);
        let full = load(&mut adapters, 5, 1.0, &[2, 4]);
        assert!(matches!(full, Err(AdapterRefused::Full)));
        assert_eq!(loaded(&adapters), [2, 4]);
    }

    #[test]
    fn one_that_never_fits_is_not_waited_for() {
        let mut adapters = Adapters { max_bytes: 2 * WIDTH * size_of::<f32>() - 1, ..adapters() };
        assert!(matches!(load(&mut adapters, 1, 1.0, &[]), Err(AdapterRefused::TooLarge(32))));
    }

    #[test]
    fn one_that_is_refused_costs_no_other_its_place() {
        let mut adapters = adapters();
        for id in [1, 2] {
            load(&mut adapters, id, 1.0, &[]).unwrap();
        }
        let refused = load(&mut adapters, 3, f32::NAN, &[]);
        assert!(matches!(refused, Err(AdapterRefused::Adapter(AdapterError::NotFinite(_)))));
        assert_eq!(loaded(&adapters), [1, 2]);
    }
}
