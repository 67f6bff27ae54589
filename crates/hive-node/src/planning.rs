//! From a model's card to the numbers that `hive-plan` decides by.

use hive_plan::{ArrangeError, Costs, LinkProfile, Machine, ModelProfile, NodeProfile, Plan, PlanError, Use};

use crate::worker::text::ModelCard;

/// The conversation length a plan leaves room for.
pub(crate) const PLANNED_CONTEXT: u64 = 4096;

/// Splits a model over all the machines given.
pub(crate) fn plan_over(model: &ModelCard, machines: &[Machine]) -> Result<Plan, PlanError> {
    let context = (model.max_context as u64).min(PLANNED_CONTEXT);
    hive_plan::split(&profile(model), machines, context)
}

/// The plan with the least time per token, over the machines it takes.
pub(crate) fn plan_best(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
) -> Result<Plan, PlanError> {
    hive_plan::choose(&profile(model), machines, link, wanted(model))
}

/// The plan that has the stages given, on the machines of these places.
pub(crate) fn arrange(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Result<Plan, ArrangeError> {
    hive_plan::arrange(&profile(model), machines, link, wanted(model), stages)
}

/// What a token takes over stages that are placed already.
pub(crate) fn predict(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Costs {
    hive_plan::predict(&profile(model), machines, link, wanted(model), stages)
}

fn wanted(model: &ModelCard) -> Use {
    Use {
        context_tokens: (model.max_context as u64).min(PLANNED_CONTEXT),
        conversations: 1,
        hidden_bytes: model.hidden_bytes,
    }
}

/// There are no such layers in a model of so many.
#[derive(Debug, thiserror::Error)]
#[error("the model has {0} layers, and not those")]
pub(crate) struct NoSuchLayers(usize);

/// Bytes that a stage takes by the model's own files: its weights, and the caches of the planned context.
pub(crate) fn stage_bytes(model: &ModelCard, layers: &std::ops::Range<usize>) -> Result<u64, NoSuchLayers> {
    if layers.is_empty() || layers.end > model.layers() {
        return Err(NoSuchLayers(model.layers()));
    }
    let context = (model.max_context as u64).min(PLANNED_CONTEXT);
    let caches = model.kv_bytes_per_token.saturating_mul(context).saturating_mul(layers.len() as u64);
    Ok(model.stored_bytes(layers.clone()).saturating_add(caches))
}

/// What the model weighs.
fn profile(model: &ModelCard) -> ModelProfile {
    ModelProfile {
        layer_bytes: model.layer_bytes.clone(),
        embedding_bytes: model.embedding_bytes,
        head_bytes: model.head_bytes,
        kv_bytes_per_token: model.kv_bytes_per_token,
    }
}
