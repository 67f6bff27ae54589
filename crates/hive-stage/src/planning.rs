//! Turns a model's card into the numbers that `hive-plan` needs.
//!
//! The numbers are of the form in which machines will hold the model. If some compute on a CPU and others on a GPU, a
//! plan counts the larger form, so that it fits wherever a stage goes; each machine itself counts what it will hold.

use std::borrow::Cow;

use hive_model::{Compute, Footprint};
use hive_plan::{
    ArrangeError, Costs, Form, LinkProfile, Machine, ModelProfile, NodeProfile, Plan, PlanError, StateBytes, Use,
};

use hive_worker::text::ModelCard;

/// The conversation length for which a plan reserves memory, in tokens.
pub const PLANNED_CONTEXT: u64 = 4096;

/// Tokens per chunk of a prompt on CPUs, where larger chunks are no faster.
const PROMPT_CHUNK: usize = 256;
/// The same on a GPU, which computes more rows at once in little more time.
const GPU_PROMPT_CHUNK: usize = 1024;
/// The same on several GPUs: while one computes a chunk, the one before it computes the next.
const GPUS_PROMPT_CHUNK: usize = 512;

/// Tokens per chunk of a prompt on this many stages, all of them on GPUs or not.
pub fn prompt_chunk(gpu: bool, stages: usize) -> usize {
    match (gpu, stages) {
        (false, _) => PROMPT_CHUNK,
        (true, 1) => GPU_PROMPT_CHUNK,
        (true, _) => GPUS_PROMPT_CHUNK,
    }
}

/// Splits a model over all the given machines.
pub fn plan_over(model: &ModelCard, machines: &[Machine]) -> Result<Plan, PlanError> {
    let context = (model.max_context as u64).min(PLANNED_CONTEXT);
    hive_plan::split(&profile(model, machines.iter().map(|machine| machine.form)), machines, context)
}

/// Plans for the least time per token, with the machines that this takes.
pub fn plan_best(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
) -> Result<Plan, PlanError> {
    hive_plan::choose(&profile(model, forms(machines)), machines, link, wanted(model))
}

/// Plans the given stages: pairs of a machine's index and its layers.
pub fn arrange(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Result<Plan, ArrangeError> {
    hive_plan::arrange(&profile(model, forms(machines)), machines, link, wanted(model), stages)
}

/// Predicts the time of a token over stages that are already placed.
pub fn predict(
    model: &ModelCard,
    machines: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    stages: &[(usize, std::ops::Range<usize>)],
) -> Costs {
    hive_plan::predict(&profile(model, forms(machines)), machines, link, wanted(model), stages)
}

fn wanted(model: &ModelCard) -> Use {
    Use {
        context_tokens: (model.max_context as u64).min(PLANNED_CONTEXT),
        conversations: 1,
        hidden_bytes: model.hidden_bytes,
    }
}

/// The model does not have these layers.
#[derive(Debug, thiserror::Error)]
#[error("the model has {0} layers, and not those")]
pub(crate) struct NoSuchLayers(usize);

/// The memory of a stage, from the model's own files, in bytes: weights, caches for the planned context, and the
/// process.
pub(crate) fn stage_bytes(model: &ModelCard, layers: &std::ops::Range<usize>, form: Form) -> Result<u64, NoSuchLayers> {
    if layers.is_empty() || layers.end > model.layers() {
        return Err(NoSuchLayers(model.layers()));
    }
    let context = (model.max_context as u64).min(PLANNED_CONTEXT);
    let footprint = footprint(model, form);
    let states = states(footprint);
    let caches = states[layers.clone()].iter().map(|state| state.bytes(context, 1)).fold(0, u64::saturating_add);
    Ok(footprint.weight_bytes(layers.clone()).saturating_add(caches).saturating_add(base_bytes(footprint, form)))
}

/// Bytes of weights that one token reads in the whole model, on a machine that holds it in this form.
pub fn read_bytes(model: &ModelCard, form: Form) -> u64 {
    let Footprint { layer_bytes, unread_bytes, head_bytes, .. } = footprint(model, form);
    let unread: u64 = unread_bytes.iter().sum();
    layer_bytes.iter().sum::<u64>().saturating_sub(unread) + head_bytes
}

/// The form in which a machine holds a model for these kernels.
pub fn form(compute: Compute, on_gpu: bool) -> Form {
    if on_gpu || compute == Compute::Plain { Form::Mlx } else { Form::Packed }
}

/// A process without weights and caches, in bytes: the program, buffers kept for reuse, and memory that the allocator
/// does not return. Measured, see docs/performance.md.
const PROCESS_BYTES: u64 = 64_000_000;
/// The same with MLX on a GPU, including the driver's memory.
const GPU_PROCESS_BYTES: u64 = 400_000_000;

fn base_bytes(footprint: &Footprint, form: Form) -> u64 {
    base_bytes_of(footprint.work_bytes_per_token, form)
}

/// The memory of a stage's process and of computing a chunk of a prompt, in bytes.
pub fn base_bytes_of(work_bytes_per_token: u64, form: Form) -> u64 {
    let (process_bytes, rows) = match form {
        Form::Packed => (PROCESS_BYTES, PROMPT_CHUNK),
        // Counted in single precision, computed in numbers of half the size.
        Form::Mlx => (GPU_PROCESS_BYTES, GPU_PROMPT_CHUNK / 2),
    };
    work_bytes_per_token.saturating_mul(rows as u64).saturating_add(process_bytes)
}

fn footprint(model: &ModelCard, form: Form) -> &Footprint {
    match form {
        Form::Packed => &model.packed,
        Form::Mlx => &model.mlx,
    }
}

fn forms(machines: &[NodeProfile]) -> impl Iterator<Item = Form> {
    machines.iter().map(|machine| machine.form)
}

/// Whether some of these layers keep a state that has one size however long the conversation is.
pub(crate) fn is_recurrent(model: &ModelCard, layers: &std::ops::Range<usize>) -> bool {
    let states = model.packed.states.get(layers.clone()).unwrap_or_default();
    states.iter().any(|state| state.fixed > 0)
}

/// Each layer's memory for a conversation, as the planner counts it.
fn states(footprint: &Footprint) -> Vec<StateBytes> {
    let state = |state: &hive_model::StateBytes| {
        let hive_model::StateBytes { per_token, fixed } = *state;
        StateBytes { per_token, most_tokens: None, fixed }
    };
    footprint.states.iter().map(state).collect()
}

fn larger(a: &Footprint, b: &Footprint) -> Footprint {
    let layers = a.layer_bytes.iter().zip(&b.layer_bytes);
    Footprint {
        layer_bytes: layers.map(|(a, b)| *a.max(b)).collect(),
        unread_bytes: a.unread_bytes.iter().zip(&b.unread_bytes).map(|(a, b)| *a.min(b)).collect(),
        embedding_bytes: a.embedding_bytes.max(b.embedding_bytes),
        head_bytes: a.head_bytes.max(b.head_bytes),
        uncut: a.uncut.clone(),
        states: a.states.iter().zip(&b.states).map(|(a, b)| larger_state(a, b)).collect(),
        work_bytes_per_token: a.work_bytes_per_token.max(b.work_bytes_per_token),
    }
}

fn larger_state(a: &hive_model::StateBytes, b: &hive_model::StateBytes) -> hive_model::StateBytes {
    hive_model::StateBytes { per_token: a.per_token.max(b.per_token), fixed: a.fixed.max(b.fixed) }
}

/// The model's size on any of these machines.
fn profile(model: &ModelCard, mut forms: impl Iterator<Item = Form>) -> ModelProfile {
    let first = forms.next().unwrap_or_default();
    let other = forms.find(|form| *form != first);
    let held = match other {
        None => Cow::Borrowed(footprint(model, first)),
        Some(other) => Cow::Owned(larger(footprint(model, first), footprint(model, other))),
    };
    ModelProfile {
        layer_bytes: held.layer_bytes.clone(),
        unread_bytes: held.unread_bytes.clone(),
        embedding_bytes: held.embedding_bytes,
        head_bytes: held.head_bytes,
        states: states(&held),
        uncut: held.uncut.clone(),
        base_bytes: base_bytes(&held, first).max(other.map_or(0, |other| base_bytes(&held, other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ModelCard {
        let packed = Footprint {
            layer_bytes: vec![10, 20],
            unread_bytes: vec![0, 0],
            embedding_bytes: 5,
            head_bytes: 7,
            states: vec![hive_model::StateBytes { per_token: 4, fixed: 0 }; 2],
            uncut: Vec::new(),
            work_bytes_per_token: 3,
        };
        let states = vec![hive_model::StateBytes { per_token: 2, fixed: 5 }; 2];
        let mlx = Footprint { layer_bytes: vec![15, 19], head_bytes: 9, states, ..packed.clone() };
        ModelCard { packed, mlx, max_context: 100, ..ModelCard::default() }
    }

    #[test]
    fn a_plan_counts_what_its_machines_hold_and_the_larger_where_they_differ() {
        let held = |forms: &[Form]| {
            let held = profile(&card(), forms.iter().copied());
            let StateBytes { per_token, fixed, .. } = held.states[1];
            (held.layer_bytes, held.head_bytes, (per_token, fixed), held.base_bytes)
        };
        assert_eq!(held(&[]), held(&[Form::Packed]));
        assert_eq!(held(&[Form::Packed; 2]), (vec![10, 20], 7, (4, 0), PROCESS_BYTES + 3 * 256));
        assert_eq!(held(&[Form::Mlx; 2]), (vec![15, 19], 9, (2, 5), GPU_PROCESS_BYTES + 3 * 512));
        let mixed = (vec![15, 20], 9, (4, 5), GPU_PROCESS_BYTES + 3 * 512);
        assert_eq!(held(&[Form::Packed, Form::Mlx, Form::Packed]), mixed);
        assert_eq!(held(&[Form::Mlx, Form::Packed]), mixed);
    }

    #[test]
    fn a_stage_is_planned_by_every_machine_as_the_plan_counts_it() {
        for form in [Form::Packed, Form::Mlx] {
            let machine = |name: &str| Machine { name: name.to_owned(), memory_bytes: u64::MAX, form };
            let plan = plan_over(&card(), &[machine("a"), machine("b")]).unwrap();
            for stage in &plan.stages {
                assert_eq!(stage_bytes(&card(), &stage.layers, form).unwrap(), stage.bytes());
            }
        }
        assert!(stage_bytes(&card(), &(0..3), Form::Packed).is_err());
        assert_eq!([read_bytes(&card(), Form::Packed), read_bytes(&card(), Form::Mlx)], [37, 43]);
    }

    #[test]
    fn kernels_decide_the_form() {
        assert_eq!(form(Compute::Auto, false), Form::Packed);
        assert_eq!(form(Compute::Fast, true), Form::Mlx, "a GPU is faster still");
        assert_eq!(form(Compute::Plain, false), Form::Mlx);
    }
}
