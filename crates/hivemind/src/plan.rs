//! `hivemind plan`: shows which layers would go where, without loading anything.

use std::path::Path;

use clap::Args;
use hive_node::models;
use hive_types::{PlanView, Reason, StageLayers};
use serde_json::{Value, json};

use crate::client::Client;
use crate::{Failure, output, swarm, values};

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
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
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(options: &PlanOptions, folder: &Path) -> Result<(), Failure> {
    if let Some(client) = Client::find(folder).await? {
        return of_the_swarm(&client, options).await;
    }
    let model = models::open(options.model.as_deref()).await.map_err(Failure::new)?;
    // A model that cannot chat is not loaded, so it is not planned either.
    model.can_converse().await.map_err(Failure::new)?;
    let plan = hive_node::plan(model.card(), options.stages.unwrap_or(1)).map_err(swarm::explain_plan)?;
    if options.json {
        let stages = plan.stages.iter().map(|stage| {
            json!({
                "layers": [stage.layers.start, stage.layers.end],
                "weight_bytes": stage.weight_bytes,
                "kv_bytes": stage.kv_bytes,
                "base_bytes": stage.base_bytes,
            })
        });
        output::line(json!({
            "model": model.name(), "stages": stages.collect::<Vec<_>>(),
            "reasons": plan.reasons.iter().map(Reason::to_string).collect::<Vec<_>>(), "because": plan.reasons,
        }));
        return Ok(());
    }
    output::line(format_args!("{}: {} layers", model.name(), model.card().layers()));
    for (index, stage) in plan.stages.iter().enumerate() {
        output::line(format_args!(
            "stage {}   layers {}–{}   weights {}, conversation {}, other {}",
            index + 1,
            stage.layers.start + 1,
            stage.layers.end,
            output::megabytes(stage.weight_bytes),
            output::megabytes(stage.kv_bytes),
            output::megabytes(stage.base_bytes)
        ));
    }
    for reason in &plan.reasons {
        output::line(reason);
    }
    Ok(())
}

/// The plan that the running node would follow.
async fn of_the_swarm(client: &Client, options: &PlanOptions) -> Result<(), Failure> {
    let model = options.model.iter().map(|model| ("model", model.clone()));
    let stages = options.stages.iter().map(|stages| ("stages", stages.to_string()));
    let query: Vec<_> = model.chain(stages).collect();
    if options.json {
        output::line(client.get::<Value>("/hive/v1/plan", &query).await?);
        return Ok(());
    }
    let PlanView { model, layers, stages, reasons, .. } = client.get("/hive/v1/plan", &query).await?;
    output::line(format_args!("{model}: {layers} layers"));
    let placed = stages.into_iter().map(|stage| StageLayers { node: stage.node, layers: stage.layers });
    output::line(swarm::who(&placed.collect::<Vec<_>>()));
    reasons.iter().for_each(output::line);
    Ok(())
}
