//! The API for programs on this machine, as the settings page shows it: its address or why it is off, and the programs'
//! tokens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use hive_api::{Api, BrowserLink, Right, TokenView, today};
use hive_node::settings::Settings;
use serde::Serialize;
use specta::Type;
use tauri::{AppHandle, State};

use crate::end::end;
use crate::off::Off;
use crate::problem::Problem;
use crate::shell::Shell;

/// What a program that the owner adds here may do: answer and list models, as other local servers let it.
const RIGHTS: [Right; 2] = [Right::Chat, Right::Models];

/// The API and its programs.
#[derive(Debug, Serialize, Type)]
pub(crate) struct Programs {
    /// Its URL, without a path, if it is on.
    url: Option<String>,
    /// Why it is off, if it is.
    off: Option<Off>,
    /// The programs that have a token.
    tokens: Vec<Program>,
}

/// A program that has a token.
#[derive(Debug, PartialEq, Eq, Serialize, Type)]
pub(crate) struct Program {
    /// Its name.
    name: String,
    /// What it may do.
    may: Vec<String>,
    /// How many days ago it last used its token; null if it never did.
    used_days_ago: Option<u32>,
}

impl Program {
    fn of(token: TokenView, today: u64) -> Self {
        let days = |day: u64| u32::try_from(today.saturating_sub(day)).unwrap_or(u32::MAX);
        Self {
            name: token.name,
            may: token.may.iter().map(ToString::to_string).collect(),
            used_days_ago: token.last_used_day.map(days),
        }
    }
}

/// The API and the programs that may use it.
#[tauri::command]
#[specta::specta]
pub(crate) async fn programs(shell: State<'_, Shell>) -> Result<Programs, Problem> {
    Ok(match shell.api() {
        Ok(api) => Programs {
            url: Some(format!("http://{}", api.address())),
            off: None,
            tokens: api.tokens().into_iter().map(|token| Program::of(token, today())).collect(),
        },
        Err(off) => Programs { url: None, off: Some(off.clone()), tokens: Vec::new() },
    })
}

/// Creates a token for a program, and returns it: the only time that it can be shown.
#[tauri::command]
#[specta::specta]
pub(crate) async fn add_program(shell: State<'_, Shell>, name: String) -> Result<String, Problem> {
    let api = running(&shell)?;
    let added = tauri::async_runtime::spawn_blocking(move || api.add_token(name.trim(), &RIGHTS)).await;
    Ok(added.map_err(Problem::of("token"))?.map_err(Problem::of("token"))?.token)
}

/// Revokes a program's token.
#[tauri::command]
#[specta::specta]
pub(crate) async fn revoke_program(shell: State<'_, Shell>, name: String) -> Result<(), Problem> {
    let api = running(&shell)?;
    let revoked = tauri::async_runtime::spawn_blocking(move || api.revoke_token(&name)).await;
    revoked.map_err(Problem::of("token"))?.map_err(Problem::of("token"))
}

/// Makes a link that opens HiveMind in a browser; null if browsers may not.
#[tauri::command]
#[specta::specta]
pub(crate) async fn browser_link(shell: State<'_, Shell>) -> Result<Option<BrowserLink>, Problem> {
    Ok(running(&shell)?.browser_link())
}

/// Moves the API to a port that is free now, and restarts the app.
#[tauri::command]
#[specta::specta]
pub(crate) async fn use_another_port(app: AppHandle, shell: State<'_, Shell>) -> Result<(), Problem> {
    let api = free_address().map_err(Problem::of("settings"))?;
    shell.set(&Settings { api: Some(api), ..Settings::read(&shell.folder)? })?;
    end(&app, true);
    Ok(())
}

/// An address of this machine only, with a free port. Programs are set up with it, so the port has to stay the same.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn running(shell: &Shell) -> Result<Arc<Api>, Problem> {
    shell.api().clone().map_err(|_| Problem::new("api", "the API is off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_free_and_of_this_machine_only() {
        let free = free_address().unwrap();
        assert!(free.ip().is_loopback() && free.port() != 0);
        TcpListener::bind(free).unwrap();
    }

    #[test]
    fn a_program_says_when_it_was_last_there() {
        let token = |last_used_day| TokenView {
            name: "editor".to_owned(),
            may: RIGHTS.to_vec(),
            made_day: 20_000,
            last_used_day,
        };
        let program = |day| Program::of(token(day), 20_005);
        assert_eq!(program(None).used_days_ago, None);
        assert_eq!(program(Some(20_003)).used_days_ago, Some(2));
        // The clock was set back.
        assert_eq!(program(Some(20_009)).used_days_ago, Some(0));
        assert_eq!(program(None).may, ["chat", "models"]);
    }
}
