//! The shell around the node: the state that commands and the tray share, and the task that keeps them up to date.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hive_api::{Allowed, Api, Direct, Page, Pages};
use hive_mind::{Chats, Store};
use hive_node::data::DataFolder;
use hive_node::settings::Settings;
use hive_node::{Code, Node, PeerId};
use hive_view::{Snapshot, State, Taste, Update, menu, snapshot};
use tauri::AppHandle;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::off::{ApiState, Off};
use crate::problem::Problem;
use crate::start_failure::NotStarted;
use crate::tray::Tray;
use crate::{notify, windows, words};

/// How long quitting waits for what was typed.
const WRITING_TIMEOUT: Duration = Duration::from_millis(500);

/// Changes within this time are shown together.
const PAUSE: Duration = Duration::from_millis(20);

/// Refresh interval of the speed while the node computes.
const TICK: Duration = Duration::from_secs(1);

/// How long the end of the app waits for its tasks. They end where they next wait.
const TASKS_TIMEOUT: Duration = Duration::from_secs(2);

/// The app's state.
pub(crate) struct Shell {
    /// The node.
    pub(crate) node: Node,
    /// The owner's conversations.
    pub(crate) chats: Chats,
    /// The interface to them that the pages call.
    pub(crate) direct: Direct,
    /// The data folder.
    pub(crate) folder: PathBuf,
    shown: watch::Sender<Snapshot>,
    update: watch::Sender<Update>,
    /// The owner's settings; some are part of the snapshot.
    settings: watch::Sender<Settings>,
    /// The version last offered; cleared by a check that finds none.
    offer: Mutex<Option<tauri_plugin_updater::Update>>,
    /// The streams that windows follow, by window and topic.
    subscriptions: Mutex<HashMap<(String, String), AbortOnDropHandle<()>>>,
    /// Told when the main window has written what was typed, before the app quits.
    written: Notify,
    /// The app's tasks; they end with it.
    tasks: TaskTracker,
    /// Cancelled when the app ends.
    ending: CancellationToken,
    /// Runs the tasks that the menu and the windows start outside of it.
    runtime: Handle,
    /// The settings at the start; some changes wait for the next one.
    pub(crate) started: Settings,
    api: ApiState,
}

impl Shell {
    /// Starts the node of a data folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self, NotStarted> {
        let data = DataFolder::open(folder)?;
        for warning in data.warnings() {
            tracing::warn!("{warning}");
        }
        let settings = Settings::read(folder)?;
        let first = settings.share.is_none() && !folder.join(hive_node::sharing::FILE).exists();
        let kept = settings.clone();
        let api_address = settings.api.unwrap_or(hive_api::DEFAULT_ADDRESS);
        let lists = [&settings.allow_origins, &settings.allow_hosts];
        let [origins, hosts] = lists.map(|list| list.as_deref().unwrap_or_default());
        let allowed = Allowed::new(origins, hosts)?;
        let store = Store::open(folder)?;
        let node = Node::start(settings.options(data)?).await?;
        // The windows work without the API; the settings page says why it is off.
        let chats = hive_api::chats(store, node.clone());
        let api = Api::start(node.clone(), chats.clone(), api_address, allowed, folder).await;
        let api = api.map_err(|error| {
            tracing::warn!("{error}");
            Off::from(&error)
        });
        if let Some(warning) = api.as_ref().ok().and_then(Api::warning) {
            tracing::warn!("{warning}");
        }
        let api = api.map(Arc::new);
        if first {
            // Nothing is shared before the owner agrees.
            if let Err(error) = node.share(false) {
                tracing::warn!("{error}");
            }
        }
        let update = Update::default();
        let shown = watch::channel(shown_of(&node, &kept, update.clone())).0;
        let started = kept.clone();
        let (settings, update) = (watch::channel(kept).0, watch::channel(update).0);
        let (folder, offer, subscriptions) = (folder.to_owned(), Mutex::default(), Mutex::default());
        let direct = Direct::new(node.clone(), chats.clone());
        let (tasks, ending, runtime) = (TaskTracker::new(), CancellationToken::new(), Handle::current());
        Ok(Self {
            node,
            chats,
            direct,
            folder,
            written: Notify::new(),
            shown,
            update,
            settings,
            offer,
            subscriptions,
            tasks,
            ending,
            runtime,
            started,
            api,
        })
    }

    /// Spawns a task, which ends with the app at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let ending = self.ending.clone();
        let until_the_end = async move {
            ending.run_until_cancelled(task).await;
        };
        self.tasks.spawn_on(until_the_end, &self.runtime)
    }

    /// Has the main window write what was typed and is not saved yet, and waits a moment for it.
    pub(crate) async fn write_drafts(&self, app: &AppHandle) {
        windows::tell_main(app, "quitting");
        // A page that hangs, or that the owner never opened, keeps nobody from quitting.
        let _ = tokio::time::timeout(WRITING_TIMEOUT, self.written.notified()).await;
    }

    /// The main window has written what was typed.
    pub(crate) fn has_written(&self) {
        self.written.notify_one();
    }

    /// Ends all tasks, and waits until they have ended.
    pub(crate) async fn end_tasks(&self) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(TASKS_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} tasks of the app had not ended when it quit", self.tasks.len());
        }
    }

    /// The API for programs on this machine, or why it is off.
    pub(crate) fn api(&self) -> &ApiState {
        &self.api
    }

    /// The snapshot, and every change of it.
    pub(crate) fn shown(&self) -> watch::Receiver<Snapshot> {
        self.shown.subscribe()
    }

    /// Keeps the tray and the windows up to date while the app runs.
    pub(crate) async fn follow(&self, app: AppHandle, mut tray: Tray) {
        let mut changes = self.node.changes();
        changes.mark_changed();
        let (mut update, mut settings) = (self.update.subscribe(), self.settings.subscribe());
        let mut ended = self.chats.ended();
        loop {
            let busy = self.shown.borrow().state == State::Busy || self.chats.answering() > 0;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = update.changed() => {}
                _ = settings.changed() => {}
                ended = ended.recv() => {
                    let wanted = self.settings.borrow().notify == Some(true) && !windows::any_is_seen(&app);
                    if let Some(ended) = ended.ok().filter(notify::is_news).filter(|_| wanted) {
                        notify::tell_of_answer(&app, words::language(&self.settings.borrow()), &ended);
                    }
                }
                () = tokio::time::sleep(TICK), if busy => {}
            }
            tokio::time::sleep(PAUSE).await;
            let now = self.now();
            if now.notify == Some(true) && !windows::any_is_seen(&app) {
                for request in notify::news(&self.shown.borrow().requests, &now.requests) {
                    notify::tell(&app, now.language, request);
                }
            }
            if let Err(error) = tray.show(&app, now.state, menu(&now)) {
                tracing::warn!("the tray: {error}");
            }
            self.shown.send_if_modified(|shown| {
                let news = *shown != now;
                *shown = now;
                news
            });
        }
    }

    fn now(&self) -> Snapshot {
        shown_of(&self.node, &self.settings.borrow(), self.update.borrow().clone())
    }

    /// Sets the progress of an update.
    pub(crate) fn set_update(&self, update: Update) {
        self.update.send_replace(update);
    }

    /// Opens the pages to browsers as the settings say, or closes them.
    pub(crate) async fn open_to_browsers(&self, app: &AppHandle, settings: &Settings) -> Result<(), Problem> {
        let Ok(api) = &self.api else { return Ok(()) };
        let assets = app.asset_resolver();
        let pages: Pages = Arc::new(move |path| {
            let found = assets.get(path.to_owned())?;
            Some(Page { bytes: found.bytes.into() })
        });
        let access = settings.browser.unwrap_or_default();
        let opened = api.open_to_browsers(access, settings.browser_bind, pages).await;
        opened.map_err(|error| Problem::new("browsers", &error).hinted(error.hint()))
    }

    /// Writes the settings and applies them.
    pub(crate) fn set(&self, settings: &Settings) -> Result<(), Problem> {
        settings.write(&self.folder)?;
        self.settings.send_replace(settings.clone());
        Ok(())
    }

    /// Finds a machine.
    pub(crate) fn peer(&self, id: &str) -> Result<PeerId, Problem> {
        self.node.find(id).map_err(Problem::of("no_such_machine"))
    }

    /// Approves a machine, given the code that both machines show.
    pub(crate) fn approve(&self, id: &str, code: &str) -> Result<(), Problem> {
        let code = Code::parse(code).ok_or_else(|| Problem::new("wrong_code", "a code is six digits"))?;
        self.node.approve(self.peer(id)?, code).map_err(Problem::of("not_approved"))
    }

    /// Denies a machine's request.
    pub(crate) fn deny(&self, id: &str) -> Result<(), Problem> {
        self.node.deny(self.peer(id)?).map_err(Problem::of("not_denied"))
    }

    /// The version last offered.
    pub(crate) fn offer(&self) -> MutexGuard<'_, Option<tauri_plugin_updater::Update>> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams that windows follow.
    pub(crate) fn subscriptions(&self) -> MutexGuard<'_, HashMap<(String, String), AbortOnDropHandle<()>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The snapshot of a node for an owner with these settings.
fn shown_of(node: &Node, settings: &Settings, update: Update) -> Snapshot {
    let taste = Taste {
        notify: settings.notify,
        accent: settings.accent.unwrap_or_default(),
        look: settings.look.unwrap_or_default(),
        language: words::language(settings),
    };
    snapshot(&hive_api::status(node), taste, update)
}
