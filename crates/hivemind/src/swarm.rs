//! Starts the nodes that a command needs, and names the machines that compute.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use hive_node::{
    Compute, LocalSwarm, ModelSource, PlacedStage, PlanError, RingOptions, SwarmError, SwarmOptions, models,
};
use hive_types::StageLayers;

use crate::output::Progress;
use crate::{Failure, values};

/// How a model is run, shared by `chat` and `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    #[arg(value_parser = values::model, help = values::MODEL)]
    pub(crate) model: Option<String>,
    /// Split the model across this many machines, or this many local nodes if no node is running
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of machines, such as 2", 0_usize..),
        allow_negative_numbers = true
    )]
    pub(crate) stages: Option<usize>,
    /// Kernels to use: plain (MLX's own), fast (HiveMind's own, on the CPU), or auto
    #[arg(long, env = "HIVEMIND_COMPUTE")]
    pub(crate) compute: Option<Compute>,
    /// CPU threads per stage; defaults to one per core
    #[arg(
        long,
        env = "HIVEMIND_THREADS",
        value_name = "N",
        value_parser = values::number("a number of threads from 1 to 1024", 1..=1024_u16),
        allow_negative_numbers = true
    )]
    pub(crate) threads: Option<u16>,
    /// Listening address of the first node; with a port, further nodes use the ports after it
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    pub(crate) bind: Option<SocketAddr>,
}

impl RunOptions {
    /// Whether any option applies only to nodes that the command starts itself.
    pub(crate) fn describes_own_nodes(&self) -> bool {
        self.compute.is_some() || self.threads.is_some() || self.bind.is_some()
    }
}

/// Opens the model and loads it over the requested nodes.
pub(crate) async fn start(run: &RunOptions) -> Result<LocalSwarm, Failure> {
    let model = models::open(run.model.as_deref()).await.map_err(Failure::new)?;
    let mut progress = Progress::of_layers(format!("Loading {}:", model.name()), model.card().layers());
    let mut ring = RingOptions::new(ModelSource::Path(model.path().to_owned()));
    ring.compute = run.compute.unwrap_or_default();
    ring.threads = run.threads.map_or(0, usize::from);
    let bind = run.bind.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let options = SwarmOptions { stages: run.stages.unwrap_or(1), bind, ring };
    LocalSwarm::start(model, options, |layers| progress.set(layers)).await.map_err(explain)
}

pub(crate) fn explain(error: SwarmError) -> Failure {
    match error {
        SwarmError::Plan(error) => explain_plan(error),
        SwarmError::Start(error) => Failure::new(&error).hinted(error.hint()),
        error @ SwarmError::Ring(_) => Failure::new(error),
    }
}

pub(crate) fn explain_plan(error: PlanError) -> Failure {
    match &error {
        PlanError::NoStages | PlanError::TooManyStages { .. } => Failure::usage(error),
        _ => Failure::new(error).hint("use a smaller model or more machines"),
    }
}

/// "machine 1 (layers 1–18) + machine 2 (layers 19–30)"; layers are counted from 1.
pub(crate) fn who(stages: &[StageLayers]) -> String {
    let one = |StageLayers { node, layers }: &StageLayers| format!("{node} (layers {})", layers_in_words(*layers));
    stages.iter().map(one).collect::<Vec<_>>().join(" + ")
}

/// "1–18"; layers are counted from 1.
pub(crate) fn layers_in_words([start, end]: [usize; 2]) -> String {
    format!("{}–{end}", start + 1)
}

/// The stages in the form used by `--json`.
pub(crate) fn stage_layers(stages: &[PlacedStage]) -> Vec<StageLayers> {
    let one = |stage: &PlacedStage| StageLayers {
        node: stage.placement.name.clone(),
        layers: [stage.layers.start, stage.layers.end],
    };
    stages.iter().map(one).collect()
}
