//! What the windows can ask for. Every command is a line or two: the node does the work.

use std::time::Duration;

use hive_mind::conversations::{Conversation, Entry};
use hive_node::serving::Wish;
use hive_node::settings::Settings;
use hive_node::{INVITE_VALID_FOR, Ticket, models};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri::ipc::Channel;
use tauri::{AppHandle, Manager, State, WebviewWindow};
use tauri_plugin_autostart::ManagerExt;

use crate::chat::{self, Ask, News};
use crate::problem::Problem;
use crate::shell::Shell;
use crate::view::Snapshot;
use crate::windows;

type Result<T> = std::result::Result<T, Problem>;

/// Why there is no node, if there is none; then nothing else can be asked for.
#[tauri::command]
#[specta::specta]
pub(crate) async fn trouble(app: AppHandle) -> Option<Problem> {
    app.try_state::<Problem>().map(|problem| problem.inner().clone())
}

/// Sends what is shown, now and whenever it changes.
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

/// Switches sharing on or off.
#[tauri::command]
#[specta::specta]
pub(crate) async fn share(shell: State<'_, Shell>, on: bool) -> Result<()> {
    Ok(shell.node.share(on)?)
}

/// Shares nothing for so many minutes; 0 ends a pause.
#[tauri::command]
#[specta::specta]
pub(crate) async fn pause(shell: State<'_, Shell>, minutes: u32) -> Result<()> {
    let time = Duration::from_secs(u64::from(minutes) * 60);
    Ok(shell.node.pause(Some(time).filter(|time| !time.is_zero()))?)
}

/// Gives at most so many bytes; nothing is as much as the settings say.
#[tauri::command]
#[specta::specta]
pub(crate) async fn give_memory(shell: State<'_, Shell>, bytes: Option<u64>) -> Result<()> {
    Ok(shell.node.give_memory(bytes)?)
}

/// Asks a machine to pair; gives the code that both show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn pair(shell: State<'_, Shell>, machine: String) -> Result<String> {
    let peer = shell.peer(&machine)?;
    let code = shell.node.pair(peer).await.map_err(Problem::of("not_paired"))?;
    Ok(code.to_string())
}

/// Lets a machine in, by the code that both show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn approve(shell: State<'_, Shell>, machine: String, code: String) -> Result<()> {
    shell.approve(&machine, &code)
}

/// Turns a machine away.
#[tauri::command]
#[specta::specta]
pub(crate) async fn deny(shell: State<'_, Shell>, machine: String) -> Result<()> {
    shell.deny(&machine)
}

/// Takes a machine out.
#[tauri::command]
#[specta::specta]
pub(crate) async fn remove(shell: State<'_, Shell>, machine: String) -> Result<()> {
    Ok(shell.node.remove(shell.peer(&machine)?)?)
}

/// Calls a machine something else.
#[tauri::command]
#[specta::specta]
pub(crate) async fn rename(shell: State<'_, Shell>, machine: String, name: String) -> Result<()> {
    Ok(shell.node.rename(shell.peer(&machine)?, &name)?)
}

/// An invitation for a machine that is not on this network.
#[tauri::command]
#[specta::specta]
pub(crate) async fn invite(shell: State<'_, Shell>) -> Result<String> {
    Ok(shell.node.invite(INVITE_VALID_FOR)?.to_text())
}

/// Joins the machine of an invitation; gives the code that both show.
#[tauri::command]
#[specta::specta]
pub(crate) async fn join(shell: State<'_, Shell>, invitation: String) -> Result<String> {
    let ticket = Ticket::parse(&invitation).map_err(Problem::of("no_invitation"))?;
    let (_, code) = shell.node.join_by(&ticket).await.map_err(Problem::of("not_joined"))?;
    Ok(code.to_string())
}

/// The models on this machine.
#[tauri::command]
#[specta::specta]
pub(crate) async fn list_models() -> Vec<String> {
    models::names()
}

/// Where a model would go, and why.
#[derive(Debug, Serialize, Type)]
pub(crate) struct PlanView {
    /// The model.
    model: String,
    /// "Studio: layers 1 to 18, 4.1 GB", in order.
    stages: Vec<String>,
    /// Why this plan.
    reasons: Vec<String>,
    /// What it is predicted to answer with.
    #[specta(type = Option<i32>)]
    tokens_per_s: Option<f64>,
}

/// How a model would be placed now.
#[tauri::command]
#[specta::specta]
pub(crate) async fn plan(shell: State<'_, Shell>, model: Option<String>) -> Result<PlanView> {
    let wish = Wish { model: model.filter(|model| model != models::starter_name()), stages: None };
    let layout = shell.node.lay_out(&wish).map_err(Problem::of("no_plan"))?;
    let stage = |stage: &hive_node::PlannedStage| {
        let gigabytes = stage.weight_bytes.saturating_add(stage.kv_bytes) as f64 / 1e9;
        let name = &layout.placements[stage.machine].name;
        format!("{name}: layers {} to {}, {gigabytes:.1} GB", stage.layers.start + 1, stage.layers.end)
    };
    Ok(PlanView {
        stages: layout.plan.stages.iter().map(stage).collect(),
        reasons: layout.plan.reasons.clone(),
        tokens_per_s: layout.plan.decode_tokens_per_s,
        model: layout.model,
    })
}

/// Answers a question; the news of it arrive on the channel.
#[tauri::command]
#[specta::specta]
pub(crate) async fn ask(shell: State<'_, Shell>, question: Ask, news: Channel<News>) -> Result<()> {
    chat::answer(&shell, &question, &news).await
}

/// Stops an answer; what came stands.
#[tauri::command]
#[specta::specta]
pub(crate) async fn stop(shell: State<'_, Shell>, id: String) -> Result<()> {
    shell.answers().remove(&id);
    Ok(())
}

/// The conversations whose title or messages have the words.
#[tauri::command]
#[specta::specta]
pub(crate) async fn list_conversations(shell: State<'_, Shell>, words: String) -> Result<Vec<Entry>> {
    shell.conversations.list(&words).map_err(Problem::of("conversations"))
}

/// A conversation.
#[tauri::command]
#[specta::specta]
pub(crate) async fn open_conversation(shell: State<'_, Shell>, id: String) -> Result<Option<Conversation>> {
    shell.conversations.get(&id).map_err(Problem::of("conversations"))
}

/// Keeps a conversation.
#[tauri::command]
#[specta::specta]
pub(crate) async fn keep_conversation(shell: State<'_, Shell>, conversation: Conversation) -> Result<()> {
    shell.conversations.put(&conversation).map_err(Problem::of("conversations"))
}

/// Forgets a conversation.
#[tauri::command]
#[specta::specta]
pub(crate) async fn delete_conversation(shell: State<'_, Shell>, id: String) -> Result<()> {
    shell.conversations.delete(&id).map_err(Problem::of("conversations"))
}

/// What the owner has set; what is empty is as usual.
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
pub(crate) struct Preferences {
    /// The name other machines show.
    name: Option<String>,
    /// Share only while on mains power.
    only_on_power: bool,
    /// Share only when nobody has touched the machine for so many minutes.
    only_when_idle_minutes: Option<u32>,
    /// Whether everything stays on the local network.
    lan_only: bool,
    /// `none`, `public`, or the URL of a relay of one's own.
    relay: Option<String>,
    /// Whether the app opens when its owner logs in.
    open_at_login: bool,
}

/// What the owner has set.
#[tauri::command]
#[specta::specta]
pub(crate) async fn preferences(app: AppHandle, shell: State<'_, Shell>) -> Result<Preferences> {
    let Settings { name, only_on_power, only_when_idle_minutes, lan_only, relay, .. } = Settings::read(&shell.folder)?;
    Ok(Preferences {
        name,
        only_on_power: only_on_power.unwrap_or(false),
        only_when_idle_minutes: only_when_idle_minutes.map(|minutes| minutes as u32),
        lan_only: lan_only.unwrap_or(false),
        relay,
        open_at_login: app.autolaunch().is_enabled().unwrap_or(false),
    })
}

/// Sets what the owner wants; it counts from the next start.
#[tauri::command]
#[specta::specta]
pub(crate) async fn prefer(app: AppHandle, shell: State<'_, Shell>, wanted: Preferences) -> Result<()> {
    let before = Settings::read(&shell.folder)?;
    let settings = Settings {
        name: wanted.name.filter(|name| !name.trim().is_empty()),
        only_on_power: Some(wanted.only_on_power),
        only_when_idle_minutes: wanted.only_when_idle_minutes.map(u64::from),
        lan_only: Some(wanted.lan_only),
        relay: wanted.relay.filter(|relay| !relay.trim().is_empty()),
        ..before
    };
    settings.write(&shell.folder)?;
    let launch = app.autolaunch();
    let switched = if wanted.open_at_login { launch.enable() } else { launch.disable() };
    match switched {
        // What was not there cannot be taken away.
        Err(error) if wanted.open_at_login => Err(Problem::new("open_at_login", error)),
        _ => Ok(()),
    }
}

/// Shows the main window.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_main(app: AppHandle) {
    windows::show_main(&app);
}

/// Hides the window that asks.
#[tauri::command]
#[specta::specta]
pub(crate) async fn hide(window: WebviewWindow) {
    let _ = window.hide();
}

/// Ends the app, once others have what they need of it.
#[tauri::command]
#[specta::specta]
pub(crate) async fn quit(app: AppHandle) {
    crate::quit(&app);
}
