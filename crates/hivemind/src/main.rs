//! The `hivemind` command.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped with Ctrl-C. Results go to standard output, everything
//! else to standard error; with `--json`, standard output holds only JSON.

mod arguments;
mod bench;
mod browser;
mod chat;
mod client;
mod conversations;
mod doctor;
mod failure;
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
mod values;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use client::Client;
use failure::{Failure, report};
use hive_types::SharingChange;
use peers::ShareOptions;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == hive_node::worker::SUBCOMMAND) {
        // A worker needs no runtime and no log, only its MLX thread and its pipes.
        return match hive_node::worker::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::usage(error)),
        };
    }
    let arguments = Arguments::read();
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
        Command::Remove(options) => peers::act(&node().await?, options, "remove", "was removed").await,
        Command::Block(options) => peers::act(&node().await?, options, "block", "was blocked").await,
        Command::Rename { machine, name } => peers::rename(&node().await?, &machine, &name).await,
        Command::Allow(options) => peers::allow(&node().await?, options).await,
        Command::Share(ShareOptions { on, memory }) => {
            let memory = memory.map(|bytes| SharingChange::MemoryBytes(Some(bytes)));
            let on = on.map(SharingChange::Share);
            peers::sharing(&node().await?, memory.into_iter().chain(on)).await
        }
        Command::Pause { minutes } => peers::sharing(&node().await?, [SharingChange::PauseMinutes(minutes)]).await,
        Command::Invite(options) => peers::invite(&node().await?, options).await,
        Command::Join(options) => peers::join(&node().await?, options).await,
        Command::Log(options) => log::run(options, &folder?).await,
        Command::Models(wanted) => models::run(node, folder.clone(), wanted).await,
        Command::Tokens { wanted, json } => tokens::run(&node().await?, wanted, json).await,
        Command::Browser(options) => browser::link(&node().await?, options.json).await,
        Command::Conversations(wanted) => conversations::run(&node().await?, wanted).await,
    }
}
