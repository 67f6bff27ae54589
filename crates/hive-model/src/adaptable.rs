//! What adapters can change in a model's layers.

use std::ops::Range;

use hive_weights::ModelFiles;
use hive_weights::adapter::{Adapter, AdapterError};

use crate::adapter::Adapters;
use crate::blocks::layer::Layer;
use crate::hidden::ActivationType;
use crate::linear::Arithmetic;

/// No adapters yet, for these layers of a model.
pub(crate) fn adapters_of(files: &ModelFiles, layers: Range<usize>, arithmetic: Arithmetic) -> Adapters {
    let config = files.config();
    let targets = config.specs[layers.clone()].iter().map(|spec| Layer::targets(config.hidden, spec)).collect();
    Adapters::new(layers.start, config.layers, targets, arithmetic)
}

/// Checks that an adapter changes what a model has, in its shapes. Of the model, only headers are read.
///
/// # Errors
/// It was made for another model, or changes what adapters cannot change here.
pub fn check_adapter(files: &ModelFiles, adapter: &Adapter<'_>) -> Result<(), AdapterError> {
    let arithmetic = Arithmetic { fast: false, activation: ActivationType::F32 };
    adapters_of(files, 0..files.config().layers, arithmetic).check(adapter)
}
