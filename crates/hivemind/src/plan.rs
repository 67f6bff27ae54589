//! `hivemind plan`: which layers would go where, without loading anything.

use hive_node::models;
use serde_json::json;

use crate::arguments::PlanOptions;
use crate::{Failure, output, swarm};

pub(crate) fn run(options: &PlanOptions) -> Result<(), Failure> {
    let files = models::open(options.model.as_deref()).map_err(Failure::new)?;
    let plan = hive_node::plan(&files, options.stages).map_err(swarm::explain)?;
    if options.json {
        let stages = plan.stages.iter().map(|stage| {
            json!({
                "layers": [stage.layers.start, stage.layers.end],
                "weight_bytes": stage.weight_bytes,
                "kv_bytes": stage.kv_bytes,
            })
        });
        output::line(json!({
            "model": files.name(), "stages": stages.collect::<Vec<_>>(), "reasons": plan.reasons,
        }));
        return Ok(());
    }
    output::line(format_args!("{}: {} layers", files.name(), files.config().layers));
    for (index, stage) in plan.stages.iter().enumerate() {
        output::line(format_args!(
            "stage {}   layers {}–{}   weights {}, conversation {}",
            index + 1,
            stage.layers.start + 1,
            stage.layers.end,
            output::megabytes(stage.weight_bytes),
            output::megabytes(stage.kv_bytes)
        ));
    }
    for reason in &plan.reasons {
        output::line(reason);
    }
    Ok(())
}
