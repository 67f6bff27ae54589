//! What can be asked on the command line.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use hive_node::{Compute, Sampling};

/// Several machines, one private large language model.
#[derive(Debug, Parser)]
#[command(name = "hivemind", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Talk with a model
    Chat(ChatOptions),
    /// Measure how fast a model runs here
    Bench(BenchOptions),
    /// Show which layers would go where
    Plan(PlanOptions),
    /// Say what this machine can do, and what is wrong with it
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Hold a part of a model; started by a node
    #[command(name = hive_node::worker::SUBCOMMAND, hide = true)]
    Worker,
}

/// How a model is run, shared by `chat` and `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// A .gguf file, a folder, or owner/name from the Hugging Face cache; by default the starter model
    pub(crate) model: Option<String>,
    /// Split the model over this many nodes on this machine
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) stages: usize,
    /// Kernels: plain (MLX's own), fast (ours, on the CPU), or auto
    #[arg(long, env = "HIVEMIND_COMPUTE", default_value = "auto")]
    pub(crate) compute: Compute,
    /// Threads of each stage on the CPU; by default one per core
    #[arg(long, env = "HIVEMIND_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Address the first node listens on; with a port, further nodes take the ports after it
    #[arg(long, env = "HIVEMIND_BIND", default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) bind: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct ChatOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Answer this and end
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// End the answer at this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingOptions,
    /// Print one JSON object per answer
    #[arg(long)]
    pub(crate) json: bool,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_field_names)]
pub(crate) struct SamplingOptions {
    /// 0 always takes the likeliest token; higher is more random
    #[arg(long, default_value_t = 0.0, value_name = "T", allow_negative_numbers = true)]
    temperature: f32,
    /// Only the K likeliest tokens
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: u32,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    top_p: f32,
    /// Only tokens at least this likely relative to the likeliest
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f32,
    /// Makes tokens that came before less likely; 1 is off
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// The same seed gives the same answer; by default a new one each time
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

impl SamplingOptions {
    /// As the model wants them; an answer without a seed gets one of its own.
    pub(crate) fn sampling(&self) -> Sampling {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let arbitrary = now.map_or(0, |time| time.as_nanos() as u64);
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or(arbitrary),
            ..Sampling::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Length of the prompt, in tokens
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt_tokens: u32,
    /// Length of the answer, in tokens
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) tokens: u32,
    /// How often; the median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    /// A .gguf file, a folder, or owner/name from the Hugging Face cache; by default the starter model
    pub(crate) model: Option<String>,
    /// Split the model over this many nodes on this machine
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) stages: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
