//! Starts the nodes that a command needs, and names who computes.

use hive_node::{LocalSwarm, PlacedStage, RingOptions, SwarmError, SwarmOptions, models};

use crate::Failure;
use crate::arguments::RunOptions;
use crate::output::Progress;

/// Opens the model and loads it over the nodes asked for.
pub(crate) async fn start(run: &RunOptions) -> Result<LocalSwarm, Failure> {
    let files = models::open(run.model.as_deref()).map_err(Failure::new)?;
    let mut progress = Progress::new(format!("Loading {}:", files.name()), files.config().layers);
    let mut ring = RingOptions { compute: run.compute, ..RingOptions::default() };
    if let Some(threads) = run.threads {
        ring.threads = usize::from(threads);
    }
    let options = SwarmOptions { stages: run.stages, bind: run.bind, ring };
    LocalSwarm::start(files, options, |layers| progress.set(layers)).await.map_err(explain)
}

pub(crate) fn explain(error: SwarmError) -> Failure {
    match &error {
        SwarmError::Plan(hive_node::PlanError::NoStages | hive_node::PlanError::TooManyStages { .. }) => {
            Failure::usage(error)
        }
        SwarmError::Plan(_) => Failure::new(error).hint("use a smaller model, or more machines"),
        SwarmError::Start(_) => Failure::new(error).hint("choose another --bind, or leave it out for a free port"),
        _ => Failure::new(error),
    }
}

/// "machine 1 (layers 1–18) + machine 2 (layers 19–30)", layers counted from 1 as people do.
pub(crate) fn who(stages: &[PlacedStage]) -> String {
    let one = |stage: &PlacedStage| {
        format!("{} (layers {}–{})", stage.placement.name, stage.layers.start + 1, stage.layers.end)
    };
    stages.iter().map(one).collect::<Vec<_>>().join(" + ")
}

/// The stages as `--json` gives them: layers `[start, end)`, counted from 0.
pub(crate) fn stages_json(stages: &[PlacedStage]) -> Vec<serde_json::Value> {
    let one = |stage: &PlacedStage| serde_json::json!({ "node": stage.placement.name, "layers": [stage.layers.start, stage.layers.end] });
    stages.iter().map(one).collect()
}
