//! The command line's arguments. Each command has its own beside its code.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::chat::ChatOptions;
use crate::conversations::Conversations;
use crate::log::LogOptions;
use crate::models::Models;
use crate::node::NodeArguments;
use crate::peers::{AllowOptions, ApproveOptions, InviteOptions, JoinOptions, PeerOption, ShareOptions};
use crate::plan::PlanOptions;
use crate::tokens::Tokens;
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

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonOption {
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
