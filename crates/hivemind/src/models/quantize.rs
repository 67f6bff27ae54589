//! `hivemind models quantize`: makes a smaller model from one with plain numbers or FP8, with its progress.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hive_node::quantize::{Progress, QuantizeError, Quantized, Recipe, quantize};
use serde_json::json;

use super::shown::{Shown, in_words};
use crate::output::megabytes;
use crate::{Failure, output, values};

#[derive(Debug, Args)]
pub(crate) struct QuantizeOptions {
    /// A folder of safetensors files, or owner/name from the Hugging Face cache
    #[arg(value_parser = values::model)]
    pub(crate) model: String,
    /// Bits per weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, default_value_t = 4, value_parser = values::one_of(hive_node::quantize::BITS))]
    pub(crate) bits: usize,
    /// Weights that share a scale: 32, 64 or 128
    #[arg(
        long,
        default_value_t = 64,
        value_name = "WEIGHTS",
        value_parser = values::one_of(hive_node::quantize::GROUPS)
    )]
    pub(crate) group_size: usize,
    /// More bits for embeddings, the output and the layers that matter most
    #[arg(long)]
    pub(crate) mixed: bool,
    /// The new folder; defaults to the model's name and its bits, in the current folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Print progress as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) async fn run(options: QuantizeOptions) -> Result<(), Failure> {
    let QuantizeOptions { model, bits, group_size, mixed, out, json: as_json } = options;
    let path = hive_node::models::path(&model).map_err(Failure::new)?;
    if hive_node::models::parts_at(&path).is_some_and(|copy| !copy.is_whole()) {
        return Err(Failure::new(format!("only parts of {model} are on this machine"))
            .hint(format!("download all of it: hivemind models get {model}")));
    }
    let name = name_of(&hive_node::models::listed_name(&model));
    let to = out.unwrap_or_else(|| format!("{name}-{bits}bit").into());
    let to = std::path::absolute(&to).map_err(Failure::new)?;
    let recipe = Recipe { bits, group: group_size, mixed };
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let mut work = {
        let (stop, to) = (stop.clone(), to.clone());
        let mut quantization = Quantization { shown: Shown::new(name, as_json, Some(started)), started };
        // One thread for all of it: MLX's streams belong to threads.
        tokio::task::spawn_blocking(move || {
            quantize(&path, &to, recipe, &mut |progress| {
                quantization.hear(progress);
                if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })
    };
    let made = tokio::select! {
        made = &mut work => made,
        Ok(()) = tokio::signal::ctrl_c() => {
            // It stops after the part in its hands, and removes what it has written.
            stop.store(true, Ordering::Relaxed);
            work.await
        }
    };
    let made = made.map_err(Failure::new)?.map_err(|error| match error {
        QuantizeError::Stopped => Failure::stopped("stopped; nothing was kept"),
        error => Failure::new(error),
    })?;
    let Quantized { bytes, bits_per_weight, quantized, kept } = made;
    if as_json {
        let seconds = started.elapsed().as_secs_f64();
        output::line(json!({
            "path": to, "bytes": bytes, "bits_per_weight": bits_per_weight, "quantized": quantized, "kept": kept,
            "seconds": seconds,
        }));
    } else {
        let size = megabytes(bytes);
        output::line(format_args!("Quantized {model}: {size}, {bits_per_weight:.1} bits per weight."));
        output::line(format_args!("Chat with it: hivemind chat {}", quoted(&to.to_string_lossy())));
    }
    Ok(())
}

/// The name of a model for a folder: the repository's without its owner and revision, or that of its folder.
fn name_of(model: &str) -> String {
    if let Some(folder) = Path::new(model).file_name().filter(|_| Path::new(model).is_absolute()) {
        return folder.to_string_lossy().into_owned();
    }
    let repository = model.split(['@', ':']).next().unwrap_or_default();
    repository.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("model").to_owned()
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let is_plain = path.chars().all(|c| c.is_alphanumeric() || "/._-+@%,:=".contains(c));
    if is_plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// The output of a quantization for a person or a program.
struct Quantization {
    shown: Shown,
    started: Instant,
}

impl Quantization {
    fn hear(&mut self, Progress { done_bytes, total_bytes }: Progress) {
        let now = Instant::now();
        if !self.shown.is_due(now, done_bytes >= total_bytes) {
            return;
        }
        let left = time_left(now.duration_since(self.started), done_bytes, total_bytes);
        let mut line = format!("{} of {}", megabytes(done_bytes), megabytes(total_bytes));
        if let Some(left) = left.filter(|_| done_bytes < total_bytes) {
            line = format!("{line} · {} left", in_words(left));
        }
        let seconds = left.map(|left| left.as_secs_f64());
        let event = json!({ "bytes_done": done_bytes, "bytes_total": total_bytes, "seconds_left": seconds });
        self.shown.show(&event, &line);
    }
}

/// The time that the rest takes, if it goes on as it went; `None` at the beginning.
fn time_left(passed: Duration, done: u64, total: u64) -> Option<Duration> {
    let rate = done as f64 / passed.as_secs_f64();
    let left = total.saturating_sub(done) as f64 / rate;
    (rate > 0.0 && left.is_finite()).then(|| Duration::from_secs_f64(left.min(1e7)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_called_after_the_model_without_its_owner() {
        for (model, name) in [
            ("Qwen/Qwen3-8B-FP8", "Qwen3-8B-FP8"),
            ("Qwen/Qwen3-8B@main", "Qwen3-8B"),
            ("/models/Qwen3-8B", "Qwen3-8B"),
            ("/models/@home:8B/", "@home:8B"),
            ("owner/", "model"),
        ] {
            assert_eq!(name_of(model), name);
        }
    }

    #[test]
    fn a_path_is_written_as_a_shell_takes_it() {
        assert_eq!(quoted("/home/me/Qwen3-8B-4bit"), "/home/me/Qwen3-8B-4bit");
        assert_eq!(quoted("/home/me/my model's"), r"'/home/me/my model'\''s'");
    }

    #[test]
    fn the_time_left_is_that_of_the_rate_so_far() {
        assert_eq!(time_left(Duration::ZERO, 0, 100), None);
        assert_eq!(time_left(Duration::from_secs(10), 0, 100), None);
        assert_eq!(time_left(Duration::from_secs(10), 25, 100), Some(Duration::from_secs(30)));
        assert_eq!(time_left(Duration::from_secs(10), 100, 100), Some(Duration::ZERO));
    }
}
