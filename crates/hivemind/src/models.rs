//! `hivemind models`: what is on the disk, in memory, and letting go of it.

use std::path::Path;
use std::time::Duration;

use hive_node::serving::StageByHand;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Models;
use crate::client::Client;
use crate::output::Progress;
use crate::{Failure, output};

/// Between two looks at how far a model is loaded.
const LOOK: Duration = Duration::from_millis(300);

pub(crate) async fn run(client: &Client, wish: Models) -> Result<(), Failure> {
    match wish {
        Models::List { json } => list(client, json).await,
        Models::Load { model, plan } => load(client, &model, plan.as_deref()).await,
        Models::Unload { model } => {
            client.post::<Value>("/hive/v1/models/unload", &json!({ "model": model })).await?;
            output::line(format_args!("{model} is out of memory."));
            Ok(())
        }
        Models::Remove { model } => {
            client.delete::<Value>("/hive/v1/models", &[("model", model.clone())]).await?;
            output::line(format_args!("{model} is removed."));
            Ok(())
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    let models: Vec<Value> = client.get("/hive/v1/models", &[]).await?;
    if as_json {
        output::line(json!({ "models": models }));
        return Ok(());
    }
    if models.is_empty() {
        output::line("No model is on this machine.");
    }
    for model in models {
        let names = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut line = vec![
            model["name"].as_str().unwrap_or_default().to_owned(),
            output::megabytes(model["bytes"].as_u64().unwrap_or_default()),
        ];
        if model["loaded"] == true {
            line.push("in memory".to_owned());
        }
        let also_on = names(&model["also_on"]);
        if !also_on.is_empty() {
            line.push(format!("also on {}", also_on.join(", ")));
        }
        output::line(line.join(" · "));
        let why_not = model["unusable"].as_str().map(|why| format!("cannot be loaded: {why}"));
        for remark in why_not.into_iter().chain(names(&model["lacking"])) {
            output::line(format_args!("    {remark}"));
        }
    }
    Ok(())
}

/// What a plan file must say; `hivemind plan` writes more, for people.
#[derive(Deserialize)]
struct PlanFile {
    stages: Vec<StageByHand>,
}

fn read_plan(file: &Path) -> Result<Vec<StageByHand>, Failure> {
    let hint = "`hivemind plan MODEL --json` of a running node writes one";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    let plan: PlanFile = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{} is no plan: {error}", file.display())).hint(hint))?;
    Ok(plan.stages)
}

async fn load(client: &Client, model: &str, plan: Option<&Path>) -> Result<(), Failure> {
    let mut body = json!({ "model": model });
    if let Some(file) = plan {
        body["stages"] = json!(read_plan(file)?);
    }
    let loading = client.post_patiently::<Value>("/hive/v1/models/load", &body);
    tokio::pin!(loading);
    let mut progress: Option<Progress> = None;
    loop {
        tokio::select! {
            done = &mut loading => {
                drop(progress);
                done?;
                output::line(format_args!("{model} is in memory."));
                return Ok(());
            }
            () = tokio::time::sleep(LOOK) => {
                let status: Value = client.get("/hive/v1/status", &[]).await?;
                let (layers, of) = (status["loading"]["layers"].as_u64(), status["loading"]["of"].as_u64());
                if let (Some(layers), Some(of)) = (layers, of) {
                    let what = || Progress::new(format!("Loading {model}:"), of as usize, "layers");
                    progress.get_or_insert_with(what).set(layers as usize);
                }
            }
        }
    }
}
