//! What can be asked on the command line.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use hive_node::{Compute, Sampling};
use hive_types::Right;

use crate::output;

/// Several machines, one private large language model.
#[derive(Debug, Parser)]
#[command(name = "hivemind", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Where HiveMind keeps its data; by default the platform's place for it
    #[arg(long, global = true, env = "HIVEMIND_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Those of this process, and the environment's.
    pub(crate) fn read() -> Self {
        let matches = without_empty(Self::command()).try_get_matches().unwrap_or_else(|instead| end(&instead));
        Self::from_arg_matches(&matches).unwrap_or_else(|instead| end(&instead))
    }
}

/// Shows what there is to show instead, help or what is wrong with the arguments, and ends. Help that is lost is a failure.
fn end(instead: &clap::Error) -> ! {
    let lost = instead.print().err().filter(|error| !instead.use_stderr() && error.kind() != ErrorKind::BrokenPipe);
    if let Some(error) = &lost {
        output::error(output::is_lost(error));
    }
    std::process::exit(if lost.is_some() { 1 } else { instead.exit_code() })
}

/// A variable of the environment that is empty is one that is not set, as it is for everybody else.
fn without_empty(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| {
        if argument.get_env().is_some_and(is_empty) { argument.env(None::<&'static str>) } else { argument }
    });
    command.mut_subcommands(without_empty)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be a part of the swarm, without a window
    Node(NodeArguments),
    /// Talk with a model
    #[command(after_help = crate::chat::HELP)]
    Chat(ChatOptions),
    /// Show how this machine and the swarm are
    Status(JsonOption),
    /// List the other machines
    Peers(JsonOption),
    /// Let a machine in, once both machines show the same code
    Approve(ApproveOptions),
    /// Say no to a machine that asks to join
    Deny(PeerOption),
    /// Take a machine out of the swarm
    Remove(PeerOption),
    /// Refuse a machine everything, asking included
    Block(PeerOption),
    /// Call a machine otherwise
    Rename {
        /// Its name, the beginning of its id, or its three words
        machine: String,
        /// The new name
        name: String,
    },
    /// Change what an approved machine may do; without options, show it
    Allow(AllowOptions),
    /// Switch sharing on or off, or change how much memory is given
    Share {
        /// On or off
        #[arg(value_parser = parse_switch, action = clap::ArgAction::Set, required_unless_present = "memory")]
        on: Option<bool>,
        /// The most memory to give, for example 8GiB; layers that do not fit any more move to other machines
        #[arg(long, value_parser = parse_memory, value_name = "SIZE")]
        memory: Option<u64>,
    },
    /// Share nothing for a while; with 0, share again
    Pause {
        /// For how long
        #[arg(default_value_t = 60, value_name = "MINUTES")]
        minutes: u32,
    },
    /// Invite a machine that is not on this network
    Invite(InviteOptions),
    /// Join the machine that an invitation names
    Join(JoinOptions),
    /// Show what other machines and programs did here
    Log(LogOptions),
    /// The models on this machine: list, load, unload, remove
    #[command(subcommand)]
    Models(Models),
    /// What was said in the app: list, show, export, rename, delete
    #[command(subcommand)]
    Conversations(Conversations),
    /// The tokens of your programs: list, add, remove, renew
    Tokens {
        #[command(subcommand)]
        wish: Option<Tokens>,
        /// Print one JSON object
        #[arg(long, global = true)]
        json: bool,
    },
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

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List them, with their sizes
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Put one in memory, so that the first answer need not wait
    Load {
        /// Its name, or a .gguf file or folder
        #[arg(value_parser = parse_model)]
        model: String,
        /// Place it as this file says, until it is unloaded; `hivemind plan MODEL --json` writes one to begin from
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// Free the memory that one takes, on every machine
    Unload {
        /// Its name, or its file or folder
        #[arg(value_parser = parse_model)]
        model: String,
    },
    /// Remove a downloaded one from this machine's disk
    Remove {
        /// Its name
        model: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conversations {
    /// List them, newest first
    List {
        /// Only those with these words
        words: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print one as Markdown
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Write one to a file, as Markdown
    Export {
        /// Its id, or the beginning of it
        id: String,
        /// The file; by default named after the conversation, here
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Call one otherwise
    Rename {
        /// Its id, or the beginning of it
        id: String,
        /// The new title
        title: String,
    },
    /// Forget one
    Delete {
        /// Its id, or the beginning of it
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List them: what each may do, and when it was last used
    List,
    /// Make one for a program; it is shown once
    Add {
        /// What to call it; usually the program's name
        name: String,
        /// What the program may do: chat, models, machines, admin; several with commas
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true, num_args = 1..)]
        may: Vec<Right>,
    },
    /// Revoke one; what its program has running ends at once
    Remove {
        /// Its name
        name: String,
    },
    /// Replace one by another with the same rights; without a name, your own in the data folder
    Renew {
        /// Its name
        name: Option<String>,
    },
}

/// A file or folder as the node finds it too, which has another working directory; else a name.
#[allow(clippy::unnecessary_wraps, reason = "clap wants it")]
fn parse_model(text: &str) -> Result<String, std::convert::Infallible> {
    let found = Path::new(text).exists().then(|| std::path::absolute(text).ok()).flatten();
    Ok(found.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| text.to_owned()))
}

/// What models can be called.
const MODEL: &str = "A .gguf file, a folder, or owner/name from the Hugging Face cache, with :Q4_0 or @revision behind it \
                     where it has several; by default the starter model";

/// What a template may be told.
const TEMPLATE_OPTION: &str = "An option of the model's chat template, as in enable_thinking=false or reasoning_effort=high; \
                               may be given several times";

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("\"{other}\" is neither on nor off")),
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    hive_node::settings::parse_bytes(text)
        .ok_or_else(|| "not an amount of memory; give it with a unit, as in 8GiB".to_owned())
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonOption {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeerOption {
    /// Its name, the beginning of its id, or its three words
    pub(crate) machine: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArguments {
    /// The name other machines show; by default the computer's
    #[arg(long, env = "HIVEMIND_NAME", value_name = "N")]
    pub(crate) name: Option<String>,
    /// The most memory to give, for example 8GiB
    #[arg(long, env = "HIVEMIND_MEMORY", value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Give no memory; only use that of others
    #[arg(long, env = "HIVEMIND_NO_SHARE")]
    pub(crate) no_share: bool,
    /// Keep models that fit on this machine to it, so that no other one sees prompts
    #[arg(long, env = "HIVEMIND_KEEP_PROMPTS_HERE")]
    pub(crate) keep_prompts_here: bool,
    /// Stay on the local network: no relay, no lookup outside
    #[arg(long, env = "HIVEMIND_LAN_ONLY")]
    pub(crate) lan_only: bool,
    /// Where programs of this machine reach it; by default 127.0.0.1:4483
    #[arg(long, env = "HIVEMIND_API", value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// Let web pages of this origin use the API, with a token; may be given several times
    #[arg(long, env = "HIVEMIND_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,
    /// Let the API be asked by this name, too, such as host.docker.internal; may be given several times
    #[arg(long, env = "HIVEMIND_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// Where other machines reach it; by default a free port on every interface
    #[arg(long, env = "HIVEMIND_BIND", value_name = "ADDR")]
    pub(crate) bind: Option<SocketAddr>,
    /// For machines on other networks: none, public, or the URL of a relay of your own
    #[arg(long, env = "HIVEMIND_RELAY", value_name = "RELAY")]
    pub(crate) relay: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AllowOptions {
    /// Its name, the beginning of its id, or its three words
    pub(crate) machine: String,
    /// Whether it may use this machine's memory for its models
    #[arg(long, value_parser = parse_switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) memory: Option<bool>,
    /// Whether models that answer here may be placed on it, so that it sees prompts
    #[arg(long, value_parser = parse_switch, action = clap::ArgAction::Set, value_name = "on|off")]
    pub(crate) prompts: Option<bool>,
    /// The most memory that its models may take here, for example 4GiB; 0 lifts the limit
    #[arg(long, value_parser = parse_memory, value_name = "SIZE")]
    pub(crate) memory_limit: Option<u64>,
    /// How many of its answers are computed here at a time, at most; 0 lifts the limit
    #[arg(long, value_name = "N")]
    pub(crate) session_limit: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveOptions {
    /// Its name, the beginning of its id, or its three words
    pub(crate) machine: String,
    /// The code that the other machine shows; without it, you are asked
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Show entries since: 30m, 12h, 2d ago, or a date like 2026-11-27
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = parse_since)]
    pub(crate) since: jiff::Timestamp,
    /// Only what a machine did: its name, the beginning of its id, or its three words
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time that long ago, or a day or time of the calendar, in the time of the place.
fn parse_since(text: &str) -> Result<jiff::Timestamp, String> {
    let wrong = || format!("\"{text}\" is no time; write it like 30m, 12h, 2d or 2026-11-27");
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        let zoned = at.to_zoned_datetime(jiff::tz::TimeZone::system());
        return Ok(zoned.map_err(|_| wrong())?.timestamp());
    }
    let unit_s: i64 = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0).ok_or_else(wrong)?;
    let before = count.checked_mul(unit_s).map(jiff::SignedDuration::from_secs).ok_or_else(wrong)?;
    jiff::Timestamp::now().checked_sub(before).map_err(|_| wrong())
}

#[derive(Debug, Args)]
pub(crate) struct InviteOptions {
    /// How long the invitation is good for, in hours
    #[arg(long, default_value_t = 24.0, value_name = "H")]
    pub(crate) hours: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinOptions {
    /// The invitation, or a file with it; by default, or for "-", it is read from standard input, where others cannot see it
    pub(crate) invitation: Option<String>,
    /// The code that the other machine shows; without it, you are asked
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a model is run, shared by `chat` and `bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    #[arg(value_parser = parse_model, help = MODEL)]
    pub(crate) model: Option<String>,
    /// Split the model over this many machines; without a running node, over as many nodes on this machine
    #[arg(long, value_name = "N")]
    pub(crate) stages: Option<usize>,
    /// Kernels: plain (MLX's own), fast (ours, on the CPU), or auto
    #[arg(long, env = "HIVEMIND_COMPUTE")]
    pub(crate) compute: Option<Compute>,
    /// Threads of each stage on the CPU; by default one per core
    #[arg(long, env = "HIVEMIND_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Address the first node listens on; with a port, further nodes take the ports after it
    #[arg(long, value_name = "ADDR")]
    pub(crate) bind: Option<SocketAddr>,
}

impl RunOptions {
    /// Whether the options only make sense for nodes that the command starts itself.
    pub(crate) fn describes_own_nodes(&self) -> bool {
        self.compute.is_some() || self.threads.is_some() || self.bind.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ChatOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Answer this and end; what comes through a pipe is asked with it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Answer each line of a pipe, as turns of one conversation; without it, all of it is one question
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) lines: bool,
    /// Do not keep what is typed for the arrow keys of later chats
    #[arg(long, env = "HIVEMIND_NO_HISTORY")]
    pub(crate) no_history: bool,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = hive_node::variable, help = TEMPLATE_OPTION)]
    pub(crate) variables: Vec<(String, serde_json::Value)>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// End the answer at this text; may be given several times
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
    /// In turn with it, the same split over this many nodes on this machine; tells how much slower or faster the split is
    #[arg(long, value_name = "N")]
    pub(crate) beside: Option<usize>,
    /// How often; the median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    #[arg(value_parser = parse_model, help = MODEL)]
    pub(crate) model: Option<String>,
    /// Split the model over this many machines; without a running node, over as many nodes on this machine
    #[arg(long, value_name = "N")]
    pub(crate) stages: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
