//! The command line's arguments.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use hive_node::{Compute, Sampling};
use hive_types::{BrowserAccess, Right};

use crate::{output, values};

/// Several machines, one private large language model.
#[derive(Debug, Parser)]
#[command(name = "hivemind", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Folder for HiveMind's data; defaults to the platform's standard location
    #[arg(long, global = true, env = "HIVEMIND_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Parses this process's arguments and environment.
    pub(crate) fn read() -> Self {
        let matches = without_empty(Self::command()).try_get_matches().unwrap_or_else(|instead| end(&instead));
        Self::from_arg_matches(&matches).unwrap_or_else(|instead| end(&instead))
    }
}

/// Prints help or the usage error, and exits. Help that cannot be written is a failure.
fn end(instead: &clap::Error) -> ! {
    let lost = instead.print().err().filter(|error| !instead.use_stderr() && error.kind() != ErrorKind::BrokenPipe);
    if let Some(error) = &lost {
        output::error(output::is_lost(error));
    }
    std::process::exit(if lost.is_some() { 1 } else { instead.exit_code() })
}

/// Treats an empty environment variable as unset, as other programs do.
fn without_empty(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| {
        if argument.get_env().is_some_and(is_empty) { argument.env(None::<&'static str>) } else { argument }
    });
    command.mut_subcommands(without_empty)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node without the app
    Node(NodeArguments),
    /// Chat with a model
    #[command(after_help = crate::chat::HELP)]
    Chat(ChatOptions),
    /// Show the status of this machine and its swarm
    Status(JsonOption),
    /// List other machines
    Peers(JsonOption),
    /// Approve a machine once both machines show the same code
    Approve(ApproveOptions),
    /// Deny a machine's request to join
    Deny(PeerOption),
    /// Remove a machine from the swarm
    Remove(PeerOption),
    /// Block a machine, including its requests to join
    Block(PeerOption),
    /// Rename a machine
    Rename {
        /// Machine name, ID prefix, or three-word fingerprint
        machine: String,
        /// New name
        #[arg(value_parser = values::machine_name)]
        name: String,
    },
    /// Show or change an approved machine's rights
    Allow(AllowOptions),
    /// Turn sharing on or off, or change how much memory to share
    Share(ShareOptions),
    /// Pause sharing, or resume it with 0
    Pause {
        /// Length of the pause, in minutes
        #[arg(
            default_value_t = 60,
            value_name = "MINUTES",
            value_parser = values::number("a number of minutes, such as 30", 0_u32..),
            allow_negative_numbers = true
        )]
        minutes: u32,
    },
    /// Invite a machine that is on another network
    Invite(InviteOptions),
    /// Join a swarm with an invitation
    Join(JoinOptions),
    /// Show what other machines and programs have done on this machine
    Log(LogOptions),
    /// Manage the models on this machine: list, load, unload, remove
    #[command(subcommand)]
    Models(Models),
    /// Manage the app's conversations: list, show, export, rename, delete
    #[command(subcommand)]
    Conversations(Conversations),
    /// Manage API tokens for programs: list, add, remove, renew
    Tokens {
        #[command(subcommand)]
        wanted: Option<Tokens>,
        /// Print one JSON object
        #[arg(long, global = true)]
        json: bool,
    },
    /// Make a link that opens HiveMind in a browser
    Browser(JsonOption),
    /// Measure how fast a model runs on this machine
    Bench(BenchOptions),
    /// Show which machines would hold which layers of a model
    Plan(PlanOptions),
    /// Check this machine for problems
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum Conversations {
    /// List conversations, newest first
    List {
        /// Only list conversations that contain these words
        words: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a conversation as Markdown
    Show {
        /// Conversation ID or prefix
        id: String,
    },
    /// Export a conversation to a Markdown file
    Export {
        /// Conversation ID or prefix
        id: String,
        /// Output file; by default, named after the conversation in the current directory
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Rename a conversation
    Rename {
        /// Conversation ID or prefix
        id: String,
        /// New title
        title: String,
    },
    /// Delete a conversation
    Delete {
        /// Conversation ID or prefix
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List tokens, their rights, and when each was last used
    List,
    /// Create a token for a program; it is shown only once
    Add {
        /// Token name, usually the program's
        name: String,
        /// The program's rights: chat, models, machines, conversations, admin (comma-separated)
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true, num_args = 1..)]
        may: Vec<Right>,
    },
    /// Revoke a token, and stop whatever its program is running
    Remove {
        /// Token name
        name: String,
    },
    /// Replace a token with a new one that has the same rights; by default, your own in the data folder
    Renew {
        /// Token name
        name: Option<String>,
    },
}

/// Help text of the model argument.
const MODEL: &str = "A .gguf file, a folder, or owner/name from the Hugging Face cache; append :Q4_0 or @revision to choose \
                     one of several. Defaults to the starter model";

/// Help text of the chat template option.
const TEMPLATE_OPTION: &str = "Option of the model's chat template, such as enable_thinking=false or reasoning_effort=high; \
                               can be repeated";

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonOption {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerOption {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

// Documentation of this struct would replace that of the command.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ShareOptions {
    /// Turn sharing on or off
    #[arg(value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) on: Option<bool>,
    /// Maximum memory to share, such as 8GB; layers that no longer fit move to other machines
    #[arg(long, value_parser = values::memory, value_name = "SIZE")]
    pub(crate) memory: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// Name shown to other machines; defaults to the computer's name
    #[arg(long, env = "HIVEMIND_NAME", value_name = "N", value_parser = values::machine_name)]
    pub(crate) name: Option<String>,
    /// Maximum memory to share, such as 8GB
    #[arg(long, env = "HIVEMIND_MEMORY", value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Share no memory; only use memory that other machines share
    #[arg(long, env = "HIVEMIND_NO_SHARE")]
    pub(crate) no_share: bool,
    /// Run models that fit on this machine here only, so that no other machine sees the prompts
    #[arg(long, env = "HIVEMIND_KEEP_PROMPTS_HERE")]
    pub(crate) keep_prompts_here: bool,
    /// Stay on the local network: no relays, no outside lookups
    #[arg(long, env = "HIVEMIND_LAN_ONLY")]
    pub(crate) lan_only: bool,
    /// API address for programs on this machine; defaults to 127.0.0.1:4483
    #[arg(long, env = "HIVEMIND_API", value_name = "ADDR", value_parser = values::address)]
    pub(crate) api: Option<SocketAddr>,
    /// Let web pages from this origin use the API, with a token; can be repeated
    #[arg(long, env = "HIVEMIND_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,
    /// Also accept API requests for this host name, such as host.docker.internal; can be repeated
    #[arg(long, env = "HIVEMIND_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// Open HiveMind's pages to browsers: off, here (this machine), or network (other devices, over TLS)
    #[arg(long, env = "HIVEMIND_BROWSER", value_name = "WHERE")]
    pub(crate) browser: Option<BrowserAccess>,
    /// Address of the pages for other devices; defaults to port 4484 on every interface
    #[arg(long, env = "HIVEMIND_BROWSER_BIND", value_name = "ADDR", value_parser = values::address)]
    pub(crate) browser_bind: Option<SocketAddr>,
    /// Address for other machines; defaults to a free port on every interface
    #[arg(long, env = "HIVEMIND_BIND", value_name = "ADDR", value_parser = values::address)]
    pub(crate) bind: Option<SocketAddr>,
    /// Relay for machines on other networks: none, public, or the URL of your own
    #[arg(long, env = "HIVEMIND_RELAY", value_name = "RELAY")]
    pub(crate) relay: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AllowOptions {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Whether its models may use this machine's memory
    #[arg(long, value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) memory: Option<bool>,
    /// Whether models that answer here may be placed on it, which lets it see your prompts
    #[arg(long, value_parser = values::switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) prompts: Option<bool>,
    /// Maximum memory its models may use here, such as 4GB; 0 removes the limit
    #[arg(long, value_parser = values::memory, value_name = "SIZE")]
    pub(crate) memory_limit: Option<u64>,
    /// Maximum number of its answers to compute here at a time; 0 removes the limit
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of answers, such as 2", 0_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) session_limit: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveOptions {
    /// Machine name, ID prefix, or three-word fingerprint
    pub(crate) machine: String,
    /// Code shown on the other machine; if omitted, you are asked to compare
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Show entries since this time: 30m, 12h, or 2d ago, or a date such as 2026-11-27
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = values::since)]
    pub(crate) since: jiff::Timestamp,
    /// Only show this machine: name, ID prefix, or three-word fingerprint
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InviteOptions {
    /// How long the invitation is valid, in hours
    #[arg(
        long,
        default_value_t = 24.0,
        value_name = "H",
        value_parser = values::decimal::<f64>("a number of hours, such as 12"),
        allow_negative_numbers = true
    )]
    pub(crate) hours: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinOptions {
    /// Invitation, or a file that contains it; if omitted or "-", read from standard input, where others cannot see it
    pub(crate) invitation: Option<String>,
    /// Code shown on the other machine; if omitted, you are asked to compare
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a model is run, shared by `chat` and `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    #[arg(value_parser = values::model, help = MODEL)]
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

#[derive(Debug, Args)]
pub(crate) struct ChatOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Answer this prompt and exit; piped input is appended to it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Answer piped input line by line, as one conversation; by default, all of it is one question
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) lines: bool,
    /// Do not save your input for later chats
    #[arg(long, env = "HIVEMIND_NO_HISTORY")]
    pub(crate) no_history: bool,
    /// System prompt: instructions placed before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = hive_node::variable, help = TEMPLATE_OPTION)]
    pub(crate) variables: Vec<(String, serde_json::Value)>,
    /// Maximum length of the answer, in tokens
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of tokens, such as 500", 0_usize..),
        allow_negative_numbers = true
    )]
    pub(crate) max_tokens: Option<usize>,
    /// Stop the answer at this text; can be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
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
    /// Randomness: 0 always picks the likeliest token, higher is more random
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "T",
        value_parser = values::decimal::<f32>("a temperature, such as 0.7"),
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Sample only from the K likeliest tokens
    #[arg(
        long,
        default_value_t = 0,
        value_name = "K",
        value_parser = values::number("a number of tokens, such as 40", 0_u32..),
        allow_negative_numbers = true
    )]
    top_k: u32,
    /// Sample only from the likeliest tokens that together have this probability
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "P",
        value_parser = values::decimal::<f32>("a probability, such as 0.9"),
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Sample only from tokens at least this likely relative to the likeliest
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "P",
        value_parser = values::decimal::<f32>("a probability, such as 0.05"),
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Make tokens that have already appeared less likely; 1 is off
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "X",
        value_parser = values::decimal::<f32>("a penalty, such as 1.1"),
        allow_negative_numbers = true
    )]
    repetition_penalty: f32,
    /// Sampling seed: the same seed gives the same answer; by default, a new one each time
    #[arg(
        long,
        value_name = "S",
        value_parser = values::number("a seed: a whole number, such as 42", 0_u64..),
        allow_negative_numbers = true
    )]
    seed: Option<u64>,
}

impl SamplingOptions {
    /// The sampling settings; without `--seed`, the seed is taken from the clock.
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
    /// Prompt length, in tokens
    #[arg(
        long,
        default_value_t = 512,
        value_name = "N",
        value_parser = values::number("a number of tokens, at least 1", 1_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) prompt_tokens: u32,
    /// Answer length, in tokens
    #[arg(
        long,
        default_value_t = 64,
        value_name = "N",
        value_parser = values::number("a number of tokens, at least 2", 2_u32..),
        allow_negative_numbers = true
    )]
    pub(crate) tokens: u32,
    /// Alternate with runs of the model split across this many local nodes, and report how the speeds compare
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of nodes, such as 2", 0_usize..),
        allow_negative_numbers = true
    )]
    pub(crate) beside: Option<usize>,
    /// Number of runs; the median is reported
    #[arg(
        long,
        default_value_t = 3,
        value_name = "N",
        value_parser = values::number("a number of runs from 1 to 1000", 1..=1000_u32),
        allow_negative_numbers = true
    )]
    pub(crate) repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    #[arg(value_parser = values::model, help = MODEL)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once(&"hivemind").chain(arguments))
    }

    #[test]
    fn every_number_is_read() {
        Arguments::command().debug_assert();
        for arguments in [
            &["pause", "5"][..],
            &["share", "off"],
            &["share", "--memory", "8GB"],
            &["invite", "--hours", "1.5"],
            &["allow", "attic", "--memory-limit", "4GB", "--session-limit", "2"],
            &["models", "search", "--context", "8192"],
            &["models", "quantize", "a/b", "--bits", "8", "--group-size", "32"],
            &["plan", "--stages", "2"],
            &["chat", "--stages", "2", "--threads", "4", "--bind", "127.0.0.1:0", "--max-tokens", "5"],
            &["chat", "--temperature", "0.7", "--top-k", "40", "--top-p", "0.9", "--min-p", "0.05", "--seed", "1"],
            &["chat", "--repetition-penalty", "1.1"],
            &["bench", "--prompt-tokens", "16", "--tokens", "4", "--beside", "2", "--repeat", "5"],
            &["node", "--name", "Attic", "--api", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--browser-bind", "[::1]:0"],
        ] {
            assert!(parse(arguments).is_ok(), "{arguments:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_may_be_given() {
        let refused: [(&[&str], &str); 8] = [
            (&["pause", "abc"], "\"abc\" is not a number of minutes"),
            (&["pause", "-5"], "\"-5\" is not a number of minutes"),
            (&["bench", "--repeat", "0"], "\"0\" is not a number of runs from 1 to 1000"),
            (&["chat", "--stages", "two"], "\"two\" is not a number of machines"),
            (&["node", "--bind", "4483"], "\"4483\" is not an IP address with a port"),
            (&["node", "--name", ""], "a machine needs a name"),
            (&["rename", "attic", " "], "a machine needs a name"),
            (&["share"], "--memory <SIZE>"),
        ];
        for (arguments, words) in refused {
            let refusal = parse(arguments).unwrap_err().to_string();
            assert!(refusal.contains(words), "{arguments:?}: {refusal}");
        }
        let refusal = parse(&["--data-dir", "there"]).unwrap_err().to_string();
        assert!(refusal.contains("doctor") && !refusal.contains("worker"), "{refusal}");
    }
}
