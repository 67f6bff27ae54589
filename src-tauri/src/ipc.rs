//! Commands of the windows. Each is a line or two: the node does the work.

use std::time::Duration;

use hive_node::audit::{Line, Query};
use hive_node::serving::ModelRequest;
use hive_node::settings::Settings;
use hive_node::{INVITE_VALID_FOR, PeerId, Rights, Ticket};
use hive_view::Snapshot;
use serde::Serialize;
use specta::Type;
use tauri::ipc::Channel;
use tauri::{AppHandle, Manager, State, WebviewWindow};

use crate::end::end;
use crate::problem::Problem;
use crate::shell::Shell;
use crate::windows;

type Result<T> = std::result::Result<T, Problem>;

/// Sends the snapshot now and after every change.
#[tauri::command]
#[specta::specta]
pub(crate) async fn watch(shell: State<'_, Shell>, snapshots: Channel<Snapshot>) -> Result<()> {
    let mut shown = shell.shown();
    shown.mark_changed();
    tauri::async_runtime::spawn(async move {
        while shown.changed().await.is_ok() {
            let now = shown.borrow_and_update().clone();
            if snapshots.send(now).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Turns sharing on or off.
#[tauri::command]
#[specta::specta]
pub(crate) async fn share(shell: State<'_, Shell>, on: bool) -> Result<()> {
    Ok(shell.node.share(on)?)
}

/// Pauses sharing for this many minutes; 0 ends the pause.
#[tauri::command]
#[specta::specta]
pub(crate) async fn pause(shell: State<'_, Shell>, minutes: u32) -> Result<()> {
    let time = Duration::from_secs(u64::from(minutes) * 60);
    Ok(shell.node.pause(Some(time).filter(|time| !time.is_zero()))?)
}

/// Limits the shared memory to this many bytes; null restores the limit from the settings.
#[tauri::command]
#[specta::specta]
pub(crate) async fn give_memory(shell: State<'_, Shell>, bytes: Option<u64>) -> Result<()> {
    Ok(shell.node.give_memory(bytes)?)
}

/// Asks a machine to pair; returns the code that both machines show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn pair(shell: State<'_, Shell>, machine: String) -> Result<String> {
    let peer = shell.peer(&machine)?;
    let code = shell.node.pair(peer).await.map_err(Problem::of("not_paired"))?;
    Ok(code.to_string())
}

/// Approves a machine, given the code that both machines show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn approve(shell: State<'_, Shell>, machine: String, code: String) -> Result<()> {
    shell.approve(&machine, &code)
}

/// Denies a machine's request.
#[tauri::command]
#[specta::specta]
pub(crate) async fn deny(shell: State<'_, Shell>, machine: String) -> Result<()> {
    shell.deny(&machine)
}

/// Removes a machine from the swarm.
#[tauri::command]
#[specta::specta]
pub(crate) async fn remove(shell: State<'_, Shell>, machine: String) -> Result<()> {
    Ok(shell.node.remove(shell.peer(&machine)?)?)
}

/// Undoes the removal of a machine: it is approved again, with its name and its rights.
#[tauri::command]
#[specta::specta]
pub(crate) async fn restore(shell: State<'_, Shell>, machine: String) -> Result<()> {
    // A removed machine has no name any more, so that only its whole ID leads to it.
    let peer: PeerId = machine.parse().map_err(Problem::of("no_such_machine"))?;
    shell.node.restore(peer).map_err(Problem::of("not_restored"))
}

/// Renames a machine.
#[tauri::command]
#[specta::specta]
pub(crate) async fn rename(shell: State<'_, Shell>, machine: String, name: String) -> Result<()> {
    Ok(shell.node.rename(shell.peer(&machine)?, &name)?)
}

/// Sets a machine's rights: to use this machine's memory, and to see this owner's prompts. Its limits do not change.
#[tauri::command]
#[specta::specta]
pub(crate) async fn allow(shell: State<'_, Shell>, machine: String, memory: bool, prompts: bool) -> Result<()> {
    let peer = shell.peer(&machine)?;
    let before =
        shell.node.rights(peer).ok_or_else(|| Problem::new("not_approved", "only approved machines have rights"))?;
    Ok(shell.node.set_rights(peer, Rights { memory, prompts, ..before })?)
}

/// Creates an invitation for a machine on another network.
#[tauri::command]
#[specta::specta]
pub(crate) async fn invite(shell: State<'_, Shell>) -> Result<String> {
    Ok(shell.node.invite(INVITE_VALID_FOR)?.to_text())
}

/// Joins a swarm by invitation; returns the code that both machines show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn join(shell: State<'_, Shell>, invitation: String) -> Result<String> {
    let ticket = Ticket::parse(&invitation).map_err(Problem::of("no_invitation"))?;
    let (_, code) = shell.node.join_by(&ticket).await.map_err(Problem::of("not_joined"))?;
    Ok(code.to_string())
}

/// A line of the audit log.
#[derive(Debug, Serialize, Type)]
pub(crate) struct LogLine {
    /// Time in UTC, in RFC 3339 format.
    at: String,
    /// What happened, in words.
    text: String,
}

/// Maximum number of lines shown; `hivemind log` shows all.
const SHOWN_LINES: usize = 200;

/// What one machine, or with null every machine, did here; newest lines first.
#[tauri::command]
#[specta::specta]
pub(crate) async fn log(shell: State<'_, Shell>, machine: Option<String>) -> Result<Vec<LogLine>> {
    let log = shell.node.audit_log(&Query { machine, since: None }).map_err(Problem::of("log"))?;
    let line = |Line { entry, text }| LogLine { at: entry.at.to_string(), text };
    Ok(log.entries.into_iter().rev().take(SHOWN_LINES).map(line).collect())
}

/// Loads a model into memory.
#[tauri::command]
#[specta::specta]
pub(crate) async fn load_model(shell: State<'_, Shell>, model: String) -> Result<()> {
    shell.node.load_model(&model).await.map_err(Problem::of("not_loaded"))
}

/// Unloads a model and frees its memory.
#[tauri::command]
#[specta::specta]
pub(crate) async fn unload_model(shell: State<'_, Shell>, model: String) -> Result<()> {
    shell.node.unload_model(&model).await.map_err(Problem::of("not_unloaded"))
}

/// Removes a model from this machine's disk.
#[tauri::command]
#[specta::specta]
pub(crate) async fn remove_model(shell: State<'_, Shell>, model: String) -> Result<()> {
    shell.node.remove_model(&model).await.map_err(Problem::of("not_removed"))
}

/// Where a model would be placed, and why.
#[derive(Debug, Serialize, Type)]
pub(crate) struct PlanView {
    /// The model.
    model: String,
    /// Its stages in order, such as "Studio: layers 1 to 18, 4.1 GB".
    stages: Vec<String>,
    /// Why this plan was chosen.
    reasons: Vec<String>,
    /// Predicted speed, in tokens per second.
    #[specta(type = Option<i32>)]
    tokens_per_s: Option<f64>,
    /// Memory it would use on all machines, in bytes.
    #[specta(type = i32)]
    bytes: f64,
}

/// Plans a model's placement without loading it.
#[tauri::command]
#[specta::specta]
pub(crate) async fn plan(shell: State<'_, Shell>, model: Option<String>) -> Result<PlanView> {
    let wanted = model.as_deref().map_or_else(ModelRequest::default, ModelRequest::named);
    let layout = shell.node.lay_out(&wanted).await.map_err(Problem::of("no_plan"))?;
    let stage = |stage: &hive_node::PlannedStage| {
        hive_view::placed(&layout.placements[stage.machine].name, &stage.layers, stage.bytes())
    };
    Ok(PlanView {
        stages: layout.plan.stages.iter().map(stage).collect(),
        reasons: layout.plan.reasons.clone(),
        tokens_per_s: layout.plan.decode_tokens_per_s,
        bytes: layout.plan.stages.iter().map(hive_node::PlannedStage::bytes).sum::<u64>() as f64,
        model: layout.model,
    })
}

/// Exports a conversation to a file in the owner's Downloads folder; returns its path.
#[tauri::command]
#[specta::specta]
pub(crate) async fn export_conversation(app: AppHandle, shell: State<'_, Shell>, id: String) -> Result<String> {
    let conversation = shell.chats.get(&id).await.map_err(Problem::of("conversations"))?;
    let folder = app.path().download_dir().or_else(|_| app.path().home_dir()).map_err(Problem::of("not_exported"))?;
    let written = conversation.write_to(&folder).map_err(Problem::of("not_exported"))?;
    Ok(written.display().to_string())
}

/// Remembers whether the owner wants notifications.
#[tauri::command]
#[specta::specta]
pub(crate) async fn notify(shell: State<'_, Shell>, wanted: bool) -> Result<()> {
    shell.set(&Settings { notify: Some(wanted), ..Settings::read(&shell.folder)? })
}

/// Takes an update's next step: checks for it, downloads it, or restarts into it.
#[tauri::command]
#[specta::specta]
pub(crate) async fn update(app: AppHandle) {
    crate::update::go_on(&app).await;
}

/// Restarts the app after draining the node.
#[tauri::command]
#[specta::specta]
pub(crate) async fn restart(app: AppHandle) {
    end(&app, true);
}

/// Shows the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_main(app: AppHandle) {
    windows::show_main(&app);
}

/// Shows the settings in the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_settings(app: AppHandle) {
    windows::show_page(&app, "settings");
}

/// Shows a conversation in the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_conversation(app: AppHandle, id: String) {
    // It becomes part of a script; an ID has no other characters.
    if id.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        windows::show_page(&app, &format!("chat={id}"));
    }
}

/// Hides the calling window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn hide(window: WebviewWindow) {
    let _ = window.hide();
}

/// Quits the app after draining the node.
#[tauri::command]
#[specta::specta]
pub(crate) async fn quit(app: AppHandle) {
    end(&app, false);
}
