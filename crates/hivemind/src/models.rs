//! `hivemind models`: lists, finds, downloads, quantizes, loads, unloads and removes models.

mod get;
mod quantize;
mod search;
mod shown;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use hive_types::{Alias, Done, LoadRequest, ModelName, ModelOnDisk, NewHubToken, StageLayers, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::output::Progress;
use crate::{Failure, output, values};
use quantize::QuantizeOptions;

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List models and their sizes
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Find models to download, and see which of them fit your machines
    Search {
        /// Words of a name, a family, a size such as 8b, or a task: chat, code, reasoning, tools, languages,
        /// "long documents", "small machines"
        words: Vec<String>,
        /// Length of the conversation for which there must be room, in tokens
        #[arg(
            long,
            value_name = "TOKENS",
            value_parser = values::number("a number of tokens, such as 8192", 0_u64..),
            allow_negative_numbers = true
        )]
        context: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Download a model from Hugging Face, or resume a download
    Get {
        /// owner/name, owner/name@revision, `owner/name:Q4_K_M` for one of several GGUF files, or a link
        model: String,
        /// Print progress as JSON, one object per line
        #[arg(long)]
        json: bool,
        /// Download nothing, as on a machine that stays on its network
        #[arg(long, env = "HIVEMIND_LAN_ONLY", hide = true)]
        lan_only: bool,
    },
    /// Make a smaller model: quantize the weights of a folder that has plain numbers or FP8
    Quantize(QuantizeOptions),
    /// Load a model into memory, so that the first answer starts sooner
    Load {
        /// Model name, .gguf file, or folder
        #[arg(value_parser = values::model)]
        model: String,
        /// Place layers as this plan file says until the model is unloaded; create one with `hivemind plan MODEL --json`
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// Pause a download on every machine; the downloaded data is kept
    Pause {
        /// Model name
        model: String,
    },
    /// Resume a paused download, then load the model
    Resume {
        /// Model name
        model: String,
    },
    /// Unload a model and free its memory on every machine
    Unload {
        /// Model name, file, or folder
        #[arg(value_parser = values::model)]
        model: String,
    },
    /// Keep a model in memory once it is loaded, and on this machine's disk
    Pin {
        /// Model name, .gguf file, or folder
        #[arg(value_parser = values::model)]
        model: String,
    },
    /// Let a pinned model go when its memory or its space is needed
    Unpin {
        /// Model name, file, or folder
        #[arg(value_parser = values::model)]
        model: String,
    },
    /// Give a model another name, for programs and on the command line; without arguments, list them
    Alias {
        /// The other name, such as `fast`
        #[arg(requires = "how")]
        alias: Option<String>,
        /// Model name, .gguf file, or folder
        #[arg(value_parser = values::model, group = "how")]
        model: Option<String>,
        /// A LoRA adapter that answers under this name use: a folder, or owner/name from the Hugging Face cache
        #[arg(long, value_parser = values::model, requires = "model")]
        adapter: Option<String>,
        /// Remove the alias; the model stays
        #[arg(long, group = "how", requires = "alias", conflicts_with = "adapter")]
        remove: bool,
        /// Print one JSON object
        #[arg(long, conflicts_with = "alias")]
        json: bool,
    },
    /// Save a Hugging Face token, read from standard input, for models whose licence you have accepted
    Token {
        /// Forget the token
        #[arg(long)]
        remove: bool,
    },
    /// Remove a downloaded model from this machine's disk, or a model elsewhere from the list
    Remove {
        /// Model name
        model: String,
    },
}

/// Polling interval of the loading progress.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// `node`: the running node, which a download, a search and a quantization do without.
pub(crate) async fn run(
    node: impl AsyncFnOnce() -> Result<Client, Failure>,
    folder: Result<PathBuf, Failure>,
    wanted: Models,
) -> Result<(), Failure> {
    if let Models::Get { model, json, lan_only } = wanted {
        return get::run(&model, json, lan_only, &folder?).await;
    }
    if let Models::Search { words, context, json } = wanted {
        return search::run(&words, context, json, &folder?).await;
    }
    if let Models::Quantize(options) = wanted {
        return quantize::run(options).await;
    }
    let client = &node().await?;
    match wanted {
        Models::Get { .. } | Models::Search { .. } | Models::Quantize(_) => Ok(()),
        Models::List { json } => list(client, json).await,
        Models::Load { model, plan } => load(client, &model, plan.as_deref()).await,
        Models::Pause { model } => {
            let request = ModelName { model };
            let _: Done = client.post("/hive/v1/models/pause", &request).await?;
            output::line(format_args!(
                "Paused the download of {0}. Resume it: hivemind models resume {0}",
                request.model
            ));
            Ok(())
        }
        Models::Resume { model } => load(client, &model, None).await,
        Models::Unload { model } => {
            let request = ModelName { model };
            let _: Done = client.post("/hive/v1/models/unload", &request).await?;
            output::line(format_args!("Unloaded {}.", request.model));
            Ok(())
        }
        Models::Pin { model } => {
            let request = ModelName { model };
            let _: Done = client.post("/hive/v1/models/pin", &request).await?;
            output::line(format_args!("{} stays in memory once it is loaded, and on this disk.", request.model));
            Ok(())
        }
        Models::Unpin { model } => {
            let request = ModelName { model };
            let _: Done = client.post("/hive/v1/models/unpin", &request).await?;
            output::line(format_args!("{} is no longer pinned.", request.model));
            Ok(())
        }
        Models::Alias { alias: None, json, .. } => aliases(client, json).await,
        Models::Alias { alias: Some(alias), model: Some(model), adapter, .. } => {
            let request = Alias { alias, model, adapter };
            let _: Done = client.put("/hive/v1/aliases", &request).await?;
            output::line(format_args!("{} is {} from now on.", request.alias, target(&request)));
            Ok(())
        }
        Models::Alias { alias: Some(alias), model: None, .. } => {
            let _: Done = client.delete("/hive/v1/aliases", &[("alias", alias.clone())]).await?;
            output::line(format_args!("Removed the alias {alias}."));
            Ok(())
        }
        Models::Token { remove } => token(client, remove).await,
        Models::Remove { model } => {
            let _: Done = client.delete("/hive/v1/models", &[("model", model.clone())]).await?;
            if Path::new(&model).exists() {
                output::line(format_args!("Removed {model} from the list. Its files stay where they are."));
            } else {
                output::line(format_args!("Removed {model}."));
            }
            Ok(())
        }
    }
}

async fn aliases(client: &Client, as_json: bool) -> Result<(), Failure> {
    let aliases: Vec<Alias> = client.get("/hive/v1/aliases", &[]).await?;
    if as_json {
        output::line(json!({ "aliases": aliases }));
        return Ok(());
    }
    if aliases.is_empty() {
        output::line("No aliases. Add one: hivemind models alias fast MODEL");
    }
    for alias in aliases {
        output::line(format_args!("{} · {}", alias.alias, target(&alias)));
    }
    Ok(())
}

/// What an alias stands for.
fn target(alias: &Alias) -> String {
    match &alias.adapter {
        Some(adapter) => format!("{} with the adapter {adapter}", alias.model),
        None => alias.model.clone(),
    }
}

async fn token(client: &Client, remove: bool) -> Result<(), Failure> {
    if remove {
        let _: Done = client.delete("/hive/v1/hub-token", &[]).await?;
        output::line("Removed the Hugging Face token.");
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        output::note(
            "Paste a token from https://huggingface.co/settings/tokens, then press Return. It is not shown again.",
        );
    }
    let mut token = String::new();
    std::io::stdin().read_line(&mut token).map_err(|error| Failure::new(format!("cannot read the token: {error}")))?;
    let _: Done = client.put("/hive/v1/hub-token", &NewHubToken { token }).await?;
    output::line("Downloads use this token from now on.");
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let models: Value = client.get("/hive/v1/models", &[]).await?;
        output::line(json!({ "models": models }));
        return Ok(());
    }
    let models: Vec<ModelOnDisk> = client.get("/hive/v1/models", &[]).await?;
    if models.is_empty() {
        output::line("No models on this machine.");
    }
    for ModelOnDisk { name, bytes, whole_bytes, loaded, pinned, aliases, also_on, lacking, unusable, .. } in models {
        let size = output::megabytes(bytes);
        let of = whole_bytes.map(|whole| format!("{size} of {}", output::megabytes(whole)));
        let mut line = vec![name, of.unwrap_or(size)];
        if loaded {
            line.push("loaded".to_owned());
        }
        if pinned {
            line.push("pinned".to_owned());
        }
        if !aliases.is_empty() {
            line.push(format!("also called {}", aliases.join(", ")));
        }
        if !also_on.is_empty() {
            line.push(format!("also on {}", also_on.join(", ")));
        }
        output::line(line.join(" · "));
        let why_not = unusable.map(|why| format!("cannot be loaded: {why}"));
        for remark in why_not.into_iter().chain(lacking) {
            output::line(format_args!("    {remark}"));
        }
    }
    Ok(())
}

/// The required part of a plan file; `hivemind plan` writes more, for people.
#[derive(Deserialize)]
struct PlanFile {
    stages: Vec<StageLayers>,
}

fn read_plan(file: &Path) -> Result<Vec<StageLayers>, Failure> {
    let hint = "create one with `hivemind plan MODEL --json` while a node is running";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    let plan: PlanFile = serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("{} is not a plan: {error}", file.display())).hint(hint))?;
    Ok(plan.stages)
}

/// Whether a load is of the model that was asked for: one that is named by its repository loads as a file in it.
fn is_of(load: &str, model: &str) -> bool {
    let (base, part) = model.split_once(':').unwrap_or((model, ""));
    load == model || load.strip_prefix(base).is_some_and(|file| file.starts_with('/') && file.contains(part))
}

async fn load(client: &Client, model: &str, plan: Option<&Path>) -> Result<(), Failure> {
    let request = LoadRequest { model: model.to_owned(), stages: plan.map(read_plan).transpose()? };
    let loading = client.post_patiently::<Done>("/hive/v1/models/load", &request);
    tokio::pin!(loading);
    let (mut fetching, mut progress): (Option<Progress>, Option<Progress>) = (None, None);
    loop {
        tokio::select! {
            done = &mut loading => {
                drop((fetching, progress));
                done?;
                output::line(format_args!("Loaded {model}."));
                return Ok(());
            }
            () = tokio::time::sleep(POLL_INTERVAL) => {
                let status: Status = client.get("/hive/v1/status", &[]).await?;
                let only = if let [only] = status.loads.as_slice() { Some(only) } else { None };
                let own = status.loads.iter().find(|loading| is_of(&loading.name, model)).or(only);
                if let Some(loading) = own.filter(|loading| loading.fetching_bytes > 0) {
                    let megabytes = |bytes: u64| (bytes / 1_000_000) as usize;
                    let of = megabytes(loading.fetching_bytes);
                    let what = || Progress::new(format!("Fetching {model}:"), of, "MB");
                    fetching.get_or_insert_with(what).set(megabytes(loading.fetched_bytes));
                } else if let Some(loading) = own {
                    fetching = None;
                    let what = || Progress::of_layers(format!("Loading {model}:"), loading.of);
                    progress.get_or_insert_with(what).set(loading.layers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_named_by_its_repository_loads_as_a_file_in_it() {
        let load = "owner/name/model-Q4_K_M.gguf";
        for (model, is_it) in [
            (load, true),
            ("owner/name", true),
            ("owner/name:Q4_K_M", true),
            ("owner/name:Q8_0", false),
            ("owner/nam", false),
            ("owner/name@v1:Q4_K_M", false),
        ] {
            assert_eq!(is_of(load, model), is_it, "{model}");
        }
    }
}
