//! The `hivemind` command.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C. Results go to standard output, everything else to standard error; with
//! `--json`, standard output holds JSON and nothing else.

mod arguments;
mod bench;
mod chat;
mod client;
mod conversations;
mod doctor;
mod log;
mod models;
mod node;
mod output;
mod peers;
mod plan;
mod swarm;
mod talk;
mod terminal;
mod tokens;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use client::Client;

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// Of an answer that broke off: what there is of it.
    broken: Option<Box<Broken>>,
}

/// The beginning of an answer, from which it can go on.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    text: String,
    tokens: Vec<u32>,
    seed: u64,
}

impl Failure {
    /// A failure of the work itself.
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), hint: None, code: 1, broken: None }
    }

    /// A wish that cannot be.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self { code: 2, ..Self::new(error) }
    }

    /// Somebody pressed Ctrl-C before there was a result.
    pub(crate) fn interrupted() -> Self {
        Self { code: 130, ..Self::new("stopped before the answer was whole") }
    }

    /// A hint, where there is one.
    pub(crate) fn hinted(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    if matches!(arguments.command, Command::Worker) {
        // No runtime and no log: a worker is its MLX thread and its pipes.
        return match hive_node::worker::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::usage(error)),
        };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(hive_node::colours_on_stderr());
    log.with_writer(std::io::stderr).init();
    let runtime = match hive_node::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(error)),
    };
    let result = runtime.block_on(run(arguments));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_background();
    match (result, output::lost()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(error)) => report(&Failure::new(output::is_lost(&error))),
        (Err(failure), _) => report(&failure),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let folder = client::folder(arguments.data_dir.as_deref());
    let node = async || match &folder {
        Ok(folder) => Client::need(folder).await,
        Err(failure) => Err(failure.clone()),
    };
    match arguments.command {
        Command::Node(options) => node::run(options, &folder?).await,
        Command::Chat(options) => chat::run(options, &folder?).await,
        Command::Bench(options) => bench::run(options).await,
        Command::Plan(options) => plan::run(&options, &folder?).await,
        Command::Doctor { json } => doctor::run(json).await,
        Command::Status(options) => peers::status(&node().await?, options.json).await,
        Command::Peers(options) => peers::peers(&node().await?, options.json).await,
        Command::Approve(options) => peers::approve(&node().await?, options).await,
        Command::Deny(options) => peers::act(&node().await?, options, "deny", "was denied").await,
        Command::Remove(options) => peers::act(&node().await?, options, "remove", "is out").await,
        Command::Block(options) => peers::act(&node().await?, options, "block", "is blocked").await,
        Command::Rename { machine, name } => peers::rename(&node().await?, &machine, &name).await,
        Command::Allow(options) => peers::allow(&node().await?, options).await,
        Command::Share { on, memory } => {
            let memory = memory.map(|bytes| serde_json::json!({ "memory_bytes": bytes }));
            let on = on.map(|on| serde_json::json!({ "share": on }));
            peers::sharing(&node().await?, memory.into_iter().chain(on)).await
        }
        Command::Pause { minutes } => {
            peers::sharing(&node().await?, [serde_json::json!({ "pause_minutes": minutes })]).await
        }
        Command::Invite(options) => peers::invite(&node().await?, options).await,
        Command::Join(options) => peers::join(&node().await?, options).await,
        Command::Log(options) => log::run(options, &folder?).await,
        Command::Models(wish) => models::run(&node().await?, wish).await,
        Command::Tokens { wish, json } => tokens::run(&node().await?, wish, json).await,
        Command::Conversations(wish) => conversations::run(&node().await?, wish).await,
        Command::Worker => Ok(()),
    }
}

fn report(failure: &Failure) -> ExitCode {
    output::error(&failure.message);
    if let Some(hint) = &failure.hint {
        output::hint(hint);
    }
    ExitCode::from(failure.code)
}
