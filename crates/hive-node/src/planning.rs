//! From a model's files to the numbers that `hive-plan` decides by.

use hive_model::ModelFiles;
use hive_model::weights::TensorError;
use hive_plan::{ArrangeError, Costs, LinkProfile, Machine, ModelProfile, NodeProfile, Plan, PlanError, Use};

/// The conversation length a plan leaves room for.
pub(crate) const PLANNED_CONTEXT: u64 = 4096;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// The wish cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A tensor that every plan needs is wrong.
    #[error(transparent)]
    Model(#[from] TensorError),
}

/// Splits a model over all the machines given.
pub(crate) fn plan_over(files: &ModelFiles, machines: &[Machine]) -> Result<Plan, PlanningError> {
    let context = (files.config().max_context as u64).min(PLANNED_CONTEXT);
    Ok(hive_plan::split(&profile(files)?, machines, context)?)
}

/// The plan with the least time per token, over the machines it takes.
pub(crate) fn plan_best(
    files: &ModelFiles,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
) -> Result<Plan, PlanningError> {
    Ok(hive_plan::choose(&profile(files)?, machines, link, wanted(files)?)?)
}

/// The plan that has the stages given, on the machines of these places.
pub(crate) fn arrange(
    files: &ModelFiles,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Result<Result<Plan, ArrangeError>, TensorError> {
    Ok(hive_plan::arrange(&profile(files)?, machines, link, wanted(files)?, stages))
}

/// What a token takes over stages that are placed already.
pub(crate) fn predict(
    files: &ModelFiles,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Result<Costs, PlanningError> {
    Ok(hive_plan::predict(&profile(files)?, machines, link, wanted(files)?, stages))
}

fn wanted(files: &ModelFiles) -> Result<Use, TensorError> {
    let config = files.config();
    let activation = hive_model::ActivationType::from(files.natural_activation()?);
    Ok(Use {
        context_tokens: (config.max_context as u64).min(PLANNED_CONTEXT),
        conversations: 1,
        hidden_bytes: (config.hidden * activation.bytes()) as u64,
    })
}

/// Why a stage has no size.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageBytesError {
    /// There are no such layers.
    #[error("the model has {0} layers, and not those")]
    Layers(usize),
    /// What the file says of its tensors is wrong.
    #[error("the model there cannot be used")]
    Model,
}

/// Bytes that a stage takes by the model's own files: its weights, and the caches of the planned context.
pub(crate) fn stage_bytes(files: &ModelFiles, layers: &std::ops::Range<usize>) -> Result<u64, StageBytesError> {
    let profile = profile(files).map_err(|_| StageBytesError::Model)?;
    let count = profile.layer_bytes.len();
    let own = profile.layer_bytes.get(layers.clone()).filter(|own| !own.is_empty());
    let own = own.ok_or(StageBytesError::Layers(count))?;
    let context = (files.config().max_context as u64).min(PLANNED_CONTEXT);
    let caches = profile.kv_bytes_per_token.saturating_mul(context).saturating_mul(own.len() as u64);
    let embedding = if layers.start == 0 { profile.embedding_bytes } else { 0 };
    let head = if layers.end == count { profile.head_bytes } else { 0 };
    let weights = own.iter().copied().chain([embedding, head]);
    Ok(weights.fold(caches, u64::saturating_add))
}

/// What the model weighs, from its headers.
pub(crate) fn profile(files: &ModelFiles) -> Result<ModelProfile, TensorError> {
    let config = files.config();
    let of_layer = |layer: usize| {
        let prefix = format!("model.layers.{layer}.");
        files.weights().stored_bytes(|name| name.starts_with(&prefix))
    };
    let embedding_bytes = files.weights().stored_bytes(|name| name.starts_with("model.embed_tokens"));
    let untied = files.weights().stored_bytes(|name| name.starts_with("lm_head"));
    let activation = hive_model::ActivationType::from(files.natural_activation()?);
    Ok(ModelProfile {
        layer_bytes: (0..config.layers).map(of_layer).collect(),
        embedding_bytes,
        head_bytes: if config.tied_embeddings { embedding_bytes } else { untied },
        kv_bytes_per_token: config.kv_bytes_per_token(activation.bytes()),
    })
}
