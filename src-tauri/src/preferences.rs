//! The settings page: its fields, and their limits.
//!
//! Every change is a write of its own, so that a field that is wrong keeps no other from being saved. The limits of
//! fields are here and nowhere else; the page shows a refusal's text.

use std::net::SocketAddr;

use hive_node::border;
use hive_node::settings::{Accent, BrowserAccess, Language, Look, Settings, parse_bytes};
use serde::{Deserialize, Serialize};
use specta::Type;
use tauri::{AppHandle, State, Theme};
use tauri_plugin_autostart::ManagerExt;

use crate::folder;
use crate::problem::Problem;
use crate::shell::Shell;
use crate::shortcut::{self, Unusable};

/// A day: a machine that must be idle for longer never shares, and a model is never unloaded.
const MOST_IDLE_MINUTES: u64 = 24 * 60;

/// The fastest links between machines today, in megabits per second.
const MOST_MBIT_PER_S: u64 = 400_000;

/// Less memory holds no layer of any model, and is a mistake in the unit.
const LEAST_MEMORY_BYTES: u64 = 100_000_000;

/// Less disk space holds no model that is worth fetching, and is a mistake in the unit.
const LEAST_DISK_BYTES: u64 = 1_000_000_000;

/// The owner's settings; null means the default.
#[allow(clippy::struct_excessive_bools, reason = "independent switches on the settings page")]
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub(crate) struct Preferences {
    /// The name shown to other machines.
    name: Option<String>,
    /// Maximum memory to share, in bytes.
    #[specta(type = Option<i32>)]
    memory_bytes: Option<f64>,
    /// Maximum disk space for fetched models, in bytes.
    #[specta(type = Option<i32>)]
    disk_bytes: Option<f64>,
    /// Share only on mains power.
    only_on_power: bool,
    /// Share only after this many minutes without input.
    only_when_idle_minutes: Option<u32>,
    /// Unload a model after this many minutes without a question.
    unload_after_idle_minutes: Option<u32>,
    /// Maximum upload to other machines, in megabits per second.
    bandwidth_mbit_per_s: Option<u32>,
    /// Maximum download from Hugging Face, in megabits per second.
    download_mbit_per_s: Option<u32>,
    /// Whether all traffic stays on the local network.
    lan_only: bool,
    /// `none`, `public`, or the URL of the owner's own relay.
    relay: Option<String>,
    /// API address for programs on this machine.
    api: Option<String>,
    /// Listening address for other machines.
    bind: Option<String>,
    /// Where browsers may open HiveMind's pages.
    browser: BrowserAccess,
    /// Whether to notify the owner of pairing requests.
    notify: bool,
    /// Accent colour of switches, buttons and lights.
    accent: Accent,
    /// Light or dark.
    look: Look,
    /// The language of the app; null is the system's.
    language: Option<Language>,
    /// The model of new chats.
    model: Option<String>,
    /// The shortcut that asks a question from any program.
    quick_ask: Option<String>,
    /// Whether the app opens at login.
    open_at_login: bool,
    /// Fields whose value takes effect only after a restart.
    restart: Vec<Field>,
}

/// A field whose value may take effect only after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Type)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    /// The name.
    Name,
    /// The memory limit.
    Memory,
    /// Local network only.
    LanOnly,
    /// The relay.
    Relay,
    /// The API's address.
    Api,
    /// The listening address.
    Bind,
}

/// A change of one field. Texts are as typed; an empty one restores the default.
#[derive(Debug, Clone, PartialEq, Deserialize, Type)]
#[serde(tag = "field", content = "value", rename_all = "snake_case")]
pub(crate) enum Change {
    /// The name shown to other machines.
    Name(String),
    /// Maximum memory to share, with its unit: "8 GB".
    Memory(String),
    /// Maximum disk space for fetched models, with its unit: "100 GB".
    Disk(String),
    /// Share only on mains power.
    OnlyOnPower(bool),
    /// Share only after this many minutes without input.
    OnlyWhenIdleMinutes(String),
    /// Unload a model after this many minutes without a question.
    UnloadAfterIdleMinutes(String),
    /// Maximum upload to other machines, in megabits per second.
    BandwidthMbitPerS(String),
    /// Maximum download from Hugging Face, in megabits per second.
    DownloadMbitPerS(String),
    /// Whether all traffic stays on the local network.
    LanOnly(bool),
    /// `none`, `public`, or the URL of the owner's own relay.
    Relay(String),
    /// API address for programs on this machine.
    Api(String),
    /// Listening address for other machines.
    Bind(String),
    /// Where browsers may open HiveMind's pages.
    Browser(BrowserAccess),
    /// Whether to notify the owner of pairing requests.
    Notify(bool),
    /// Accent colour.
    Accent(Accent),
    /// Light or dark.
    Look(Look),
    /// The language of the app; null is the system's.
    Language(Option<Language>),
    /// The model of new chats.
    Model(Option<String>),
    /// The shortcut that asks a question from any program.
    QuickAsk(String),
    /// Whether the app opens at login.
    OpenAtLogin(bool),
}

/// Why a field refuses a value: its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Refused {
    /// A whole number in this range.
    Whole {
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// An amount of memory in this range, in bytes.
    Memory {
        /// The least.
        #[specta(type = i32)]
        least: f64,
        /// The most: the machine's own.
        #[specta(type = Option<i32>)]
        most: Option<f64>,
    },
    /// One line of at most this many letters.
    Name {
        /// The most.
        most: u32,
    },
    /// An address with a port.
    Address,
    /// An address of this machine only, with a port.
    Loopback,
    /// The URL of a relay.
    Relay,
    /// A key with Ctrl, Alt, Super or ⌘.
    Shortcut,
    /// A shortcut that no other program has.
    ShortcutTaken,
    /// None: this desktop gives apps no shortcuts.
    ShortcutNotHere,
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Invalid => Self::Shortcut,
            Unusable::Taken => Self::ShortcutTaken,
            Unusable::NotHere => Self::ShortcutNotHere,
        }
    }
}

/// The settings after a change, and why it was refused, if it was.
#[derive(Debug, Serialize, Type)]
pub(crate) struct Changed {
    /// The settings now.
    preferences: Preferences,
    /// Why the change was refused; then nothing was saved.
    refused: Option<Refused>,
}

impl Change {
    /// The settings with this change, on a machine with this much memory.
    fn over(self, before: &Settings, machine_bytes: Option<u64>) -> Result<Settings, Refused> {
        let mut settings = before.clone();
        match self {
            Self::Name(name) => settings.name = filled(&name).map(a_name).transpose()?,
            Self::Memory(text) => {
                settings.memory = filled(&text).map(|text| memory(text, machine_bytes)).transpose()?;
            }
            Self::Disk(text) => settings.disk = filled(&text).map(disk).transpose()?,
            Self::OnlyOnPower(on) => settings.only_on_power = Some(on),
            Self::OnlyWhenIdleMinutes(text) => {
                settings.only_when_idle_minutes =
                    filled(&text).map(|text| whole(text, 1, MOST_IDLE_MINUTES)).transpose()?;
            }
            Self::UnloadAfterIdleMinutes(text) => {
                settings.unload_after_idle_minutes =
                    filled(&text).map(|text| whole(text, 0, MOST_IDLE_MINUTES)).transpose()?;
            }
            Self::BandwidthMbitPerS(text) => {
                settings.bandwidth_mbit_per_s =
                    filled(&text).map(|text| whole(text, 1, MOST_MBIT_PER_S)).transpose()?;
            }
            Self::DownloadMbitPerS(text) => {
                settings.download_mbit_per_s = filled(&text).map(|text| whole(text, 1, MOST_MBIT_PER_S)).transpose()?;
            }
            Self::LanOnly(on) => settings.lan_only = Some(on),
            Self::Relay(text) => settings.relay = filled(&text).map(relay).transpose()?,
            Self::Api(text) => settings.api = filled(&text).map(loopback).transpose()?,
            Self::Bind(text) => settings.bind = filled(&text).map(address).transpose()?,
            Self::Browser(access) => settings.browser = Some(access).filter(|access| *access != BrowserAccess::Off),
            // While notifications are off, the owner may still be asked when they first become useful.
            Self::Notify(on) => settings.notify = if on { Some(true) } else { before.notify.map(|_| false) },
            Self::Accent(accent) => settings.accent = Some(accent).filter(|accent| *accent != Accent::default()),
            Self::Look(look) => settings.look = Some(look).filter(|look| *look != Look::default()),
            Self::Language(language) => settings.language = language,
            Self::Model(model) => settings.model = model,
            Self::QuickAsk(text) => {
                settings.quick_ask = filled(&text).map(str::to_owned);
                settings.quick_ask.as_deref().map(shortcut::read).transpose()?;
            }
            Self::OpenAtLogin(_) => {}
        }
        Ok(settings)
    }
}

fn filled(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

fn a_name(text: &str) -> Result<String, Refused> {
    let fits = text.chars().count() <= border::NAME_COLUMNS && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or(Refused::Name { most: border::NAME_COLUMNS as u32 })
}

fn memory(text: &str, machine_bytes: Option<u64>) -> Result<String, Refused> {
    let fits = |bytes: &u64| *bytes >= LEAST_MEMORY_BYTES && machine_bytes.is_none_or(|all| *bytes <= all);
    let refused =
        || Refused::Memory { least: LEAST_MEMORY_BYTES as f64, most: machine_bytes.map(|bytes| bytes as f64) };
    parse_bytes(text).filter(fits).map(|_| text.to_owned()).ok_or_else(refused)
}

fn disk(text: &str) -> Result<String, Refused> {
    let fits = parse_bytes(text).is_some_and(|bytes| bytes >= LEAST_DISK_BYTES);
    fits.then(|| text.to_owned()).ok_or(Refused::Memory { least: LEAST_DISK_BYTES as f64, most: None })
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, Refused> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or(Refused::Whole { least: least as u32, most: most as u32 })
}

fn address(text: &str) -> Result<SocketAddr, Refused> {
    text.parse().map_err(|_| Refused::Address)
}

fn loopback(text: &str) -> Result<SocketAddr, Refused> {
    address(text).ok().filter(|address| address.ip().is_loopback()).ok_or(Refused::Loopback)
}

fn relay(text: &str) -> Result<String, Refused> {
    let known = matches!(text, "none" | "public");
    let url = || tauri::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if known || url() { Ok(text.to_owned()) } else { Err(Refused::Relay) }
}

impl Preferences {
    /// The settings `now`, for an app that started with others.
    fn of(now: &Settings, started: &Settings, open_at_login: bool) -> Self {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let small = |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        Self {
            name: now.name.clone(),
            memory_bytes: bytes(now).map(|bytes| bytes as f64),
            disk_bytes: now.disk.as_deref().and_then(parse_bytes).map(|bytes| bytes as f64),
            only_on_power: now.only_on_power.unwrap_or(false),
            only_when_idle_minutes: small(now.only_when_idle_minutes),
            unload_after_idle_minutes: small(now.unload_after_idle_minutes),
            bandwidth_mbit_per_s: small(now.bandwidth_mbit_per_s),
            download_mbit_per_s: small(now.download_mbit_per_s),
            lan_only: now.lan_only.unwrap_or(false),
            relay: now.relay.clone(),
            api: text(now.api),
            bind: text(now.bind),
            browser: now.browser.unwrap_or_default(),
            notify: now.notify.unwrap_or(false),
            accent: now.accent.unwrap_or_default(),
            look: now.look.unwrap_or_default(),
            language: now.language,
            model: now.model.clone(),
            quick_ask: now.quick_ask.clone(),
            open_at_login,
            restart: waiting(now, started),
        }
    }
}

fn bytes(settings: &Settings) -> Option<u64> {
    settings.memory.as_deref().and_then(parse_bytes)
}

/// The fields that a restart would change.
fn waiting(now: &Settings, started: &Settings) -> Vec<Field> {
    // A lower limit acts at once; the one of the start cannot be exceeded.
    let more_memory = bytes(started).is_some_and(|limit| bytes(now).is_none_or(|bytes| bytes > limit));
    let changed = [
        (Field::Name, now.name != started.name),
        (Field::Memory, more_memory),
        (Field::LanOnly, now.lan_only.unwrap_or(false) != started.lan_only.unwrap_or(false)),
        (Field::Relay, now.relay != started.relay),
        (Field::Api, now.api != started.api),
        (Field::Bind, now.bind != started.bind),
    ];
    changed.into_iter().filter_map(|(field, changed)| changed.then_some(field)).collect()
}

/// The settings of a reset. Whether to share stays: nothing is shared before the owner agrees, nor less than was agreed.
/// So do what web pages may use the API, which the settings page does not show.
fn reset(before: &Settings) -> Settings {
    Settings {
        share: before.share,
        keep_prompts_here: before.keep_prompts_here,
        fetch_models: before.fetch_models,
        allow_origins: before.allow_origins.clone(),
        allow_hosts: before.allow_hosts.clone(),
        ..Settings::default()
    }
}

fn shown(app: &AppHandle, shell: &Shell) -> Result<Preferences, Problem> {
    let open_at_login = app.autolaunch().is_enabled().unwrap_or(false);
    Ok(Preferences::of(&Settings::read(&shell.folder)?, &shell.started, open_at_login))
}

fn open_at_login(app: &AppHandle, on: bool) -> Result<(), Problem> {
    let launch = app.autolaunch();
    let switched = if on { launch.enable() } else { launch.disable() };
    match switched {
        // Disabling an entry that does not exist is not an error.
        Err(error) if on => Err(Problem::new("open_at_login", error)),
        _ => Ok(()),
    }
}

/// Gives the frames of the windows the look of their pages.
pub(crate) fn frame(app: &AppHandle, look: Look) {
    app.set_theme(match look {
        Look::Automatic => None,
        Look::Light => Some(Theme::Light),
        Look::Dark => Some(Theme::Dark),
    });
}

/// Words that the windows and the tray do not draw themselves.
fn speak(app: &AppHandle, settings: &Settings) {
    #[cfg(target_os = "macos")]
    if let Err(error) = crate::mac::bar(app, crate::words::language(settings)) {
        tracing::warn!("the menu bar: {error}");
    }
    let _ = (app, settings);
}

/// The owner's settings.
#[tauri::command]
#[specta::specta]
pub(crate) async fn preferences(app: AppHandle, shell: State<'_, Shell>) -> Result<Preferences, Problem> {
    shown(&app, &shell)
}

/// Changes one setting, at once.
#[tauri::command]
#[specta::specta]
pub(crate) async fn change(app: AppHandle, shell: State<'_, Shell>, change: Change) -> Result<Changed, Problem> {
    let before = Settings::read(&shell.folder)?;
    let machine_bytes = Some(hive_api::status(&shell.node).profile.memory_bytes).filter(|bytes| *bytes > 0);
    let settings = match change.clone().over(&before, machine_bytes) {
        Ok(settings) => settings,
        Err(refused) => return Ok(Changed { preferences: shown(&app, &shell)?, refused: Some(refused) }),
    };
    if let Change::Browser(_) = change {
        shell.open_to_browsers(&app, &settings).await?;
    }
    // No other change waits for a shortcut that another program has.
    if let Change::QuickAsk(_) = change
        && let Err(unusable) = shortcut::listen(&app, before.quick_ask.as_deref(), settings.quick_ask.as_deref())
    {
        return Ok(Changed { preferences: shown(&app, &shell)?, refused: Some(unusable.into()) });
    }
    if settings != before {
        shell.set(&settings)?;
    }
    match change {
        Change::OpenAtLogin(on) => open_at_login(&app, on)?,
        Change::Memory(_) => shell.node.give_memory(bytes(&settings))?,
        Change::Look(look) => frame(&app, look),
        Change::Language(_) => speak(&app, &settings),
        _ => {}
    }
    Ok(Changed { preferences: shown(&app, &shell)?, refused: None })
}

/// Restores the default of every setting on the page.
#[tauri::command]
#[specta::specta]
pub(crate) async fn reset_settings(app: AppHandle, shell: State<'_, Shell>) -> Result<Preferences, Problem> {
    let before = Settings::read(&shell.folder)?;
    let settings = reset(&before);
    // Without a shortcut, nothing can be refused.
    let _ = shortcut::listen(&app, before.quick_ask.as_deref(), None);
    shell.open_to_browsers(&app, &settings).await?;
    shell.set(&settings)?;
    open_at_login(&app, false)?;
    shell.node.give_memory(None)?;
    frame(&app, Look::default());
    speak(&app, &Settings::default());
    shown(&app, &shell)
}

/// What runs here: for the settings page and for reports of faults.
#[derive(Debug, Serialize, Type)]
pub(crate) struct About {
    /// The app's version.
    version: String,
    /// The web view's version, if it says so.
    web_view: Option<String>,
    /// The operating system and the processor's kind.
    system: String,
    /// The data folder.
    folder: String,
}

/// What runs here, and where its data is.
#[tauri::command]
#[specta::specta]
pub(crate) async fn about(app: AppHandle, shell: State<'_, Shell>) -> Result<About, Problem> {
    Ok(About {
        version: app.package_info().version.to_string(),
        web_view: tauri::webview_version().ok(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        folder: shell.folder.display().to_string(),
    })
}

/// Shows the data folder in the system's file manager.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_folder(shell: State<'_, Shell>) -> Result<(), Problem> {
    folder::show(&shell.folder)
}

/// Shows the folder of the audit log.
#[tauri::command]
#[specta::specta]
pub(crate) async fn show_log(shell: State<'_, Shell>) -> Result<(), Problem> {
    folder::show(&shell.folder.join(hive_node::audit::FOLDER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 25_300_000_000;

    fn after(change: Change) -> Result<Settings, Refused> {
        change.over(&Settings::default(), Some(MACHINE))
    }

    #[test]
    fn a_change_touches_nothing_else() {
        let before = Settings {
            name: Some("Attic".to_owned()),
            share: Some(false),
            memory: Some("8GiB".to_owned()),
            allow_hosts: Some(vec!["attic.example".to_owned()]),
            ..Settings::default()
        };
        let after = Change::Accent(Accent::Blue).over(&before, None).unwrap();
        assert_eq!(after, Settings { accent: Some(Accent::Blue), ..before.clone() });
        let emptied = Change::Name("  ".to_owned()).over(&before, None).unwrap();
        assert_eq!(emptied, Settings { name: None, ..before });
    }

    #[test]
    fn memory_has_a_unit_and_the_machine_has_it() {
        let memory = |text: &str| after(Change::Memory(text.to_owned())).map(|settings| settings.memory);
        assert_eq!(memory("8 GB"), Ok(Some("8 GB".to_owned())));
        assert_eq!(memory("1.5 GB"), Ok(Some("1.5 GB".to_owned())));
        assert_eq!(memory(""), Ok(None));
        for text in ["8", "8 B", "0 GB", "-3 GB", "900 GB", "26 GB", "99 MB", "lots GB", "1,5 GB", "GB", "1e3 GB"] {
            let refused = Refused::Memory { least: 1e8, most: Some(25.3e9) };
            assert_eq!(memory(text), Err(refused), "{text}");
        }
    }

    #[test]
    fn disk_space_has_a_unit_and_holds_a_model() {
        let disk = |text: &str| after(Change::Disk(text.to_owned())).map(|settings| settings.disk);
        assert_eq!((disk("100 GB"), disk("")), (Ok(Some("100 GB".to_owned())), Ok(None)));
        for text in ["100", "999 MB", "-3 GB", "lots"] {
            assert_eq!(disk(text), Err(Refused::Memory { least: 1e9, most: None }), "{text}");
        }
    }

    #[test]
    fn minutes_and_rates_are_whole_numbers_in_their_range() {
        let minutes = |text: &str| {
            after(Change::OnlyWhenIdleMinutes(text.to_owned())).map(|settings| settings.only_when_idle_minutes)
        };
        assert_eq!((minutes(" 10 "), minutes("")), (Ok(Some(10)), Ok(None)));
        for text in ["0", "-3", "2.5", "99999", "1441", "ten", "1e3"] {
            assert_eq!(minutes(text), Err(Refused::Whole { least: 1, most: 1440 }), "{text}");
        }
        let unload = |text: &str| {
            after(Change::UnloadAfterIdleMinutes(text.to_owned())).map(|settings| settings.unload_after_idle_minutes)
        };
        assert_eq!((unload("0"), unload("30"), unload("")), (Ok(Some(0)), Ok(Some(30)), Ok(None)));
        assert_eq!(unload("1441"), Err(Refused::Whole { least: 0, most: 1440 }));
        let rate = |text: &str| {
            after(Change::BandwidthMbitPerS(text.to_owned())).map(|settings| settings.bandwidth_mbit_per_s)
        };
        assert_eq!(rate("400000"), Ok(Some(400_000)));
        assert_eq!(rate("400001"), Err(Refused::Whole { least: 1, most: 400_000 }));
        let download =
            |text: &str| after(Change::DownloadMbitPerS(text.to_owned())).map(|settings| settings.download_mbit_per_s);
        assert_eq!((download("50"), download("")), (Ok(Some(50)), Ok(None)));
        assert_eq!(download("0"), Err(Refused::Whole { least: 1, most: 400_000 }));
    }

    #[test]
    fn names_are_one_short_line() {
        let name = |text: &str| after(Change::Name(text.to_owned())).map(|settings| settings.name);
        let long = "ä".repeat(border::NAME_COLUMNS);
        assert_eq!(name(&long), Ok(Some(long.clone())));
        for text in ["x".repeat(300), format!("{long}x"), "a\u{7}b".to_owned()] {
            assert_eq!(name(&text), Err(Refused::Name { most: 32 }), "{text}");
        }
    }

    #[test]
    fn addresses_and_relays_are_what_they_say() {
        let api = |text: &str| after(Change::Api(text.to_owned())).map(|settings| settings.api);
        assert_eq!(api("127.0.0.1:4000"), Ok("127.0.0.1:4000".parse().ok()));
        for text in ["here", "127.0.0.1", "0.0.0.0:4483", "192.168.1.2:4483"] {
            assert_eq!(api(text), Err(Refused::Loopback), "{text}");
        }
        assert_eq!(after(Change::Bind("x".to_owned())), Err(Refused::Address));
        assert!(after(Change::Bind("0.0.0.0:4000".to_owned())).is_ok());
        let relay = |text: &str| after(Change::Relay(text.to_owned())).map(|settings| settings.relay);
        assert_eq!(relay("https://relay.example.org"), Ok(Some("https://relay.example.org".to_owned())));
        assert!(relay("public").is_ok() && relay("none").is_ok());
        for text in ["there", "https://", "ftp://relay.example.org"] {
            assert_eq!(relay(text), Err(Refused::Relay), "{text}");
        }
    }

    #[test]
    fn only_what_a_restart_would_change_waits_for_one() {
        let settings = |name: &str, memory: &str| Settings {
            name: filled(name).map(str::to_owned),
            memory: filled(memory).map(str::to_owned),
            ..Settings::default()
        };
        let waiting = |now: &Settings, started: &Settings| Preferences::of(now, started, false).restart;
        assert_eq!(waiting(&settings("Attic", ""), &settings("", "")), [Field::Name]);
        assert_eq!(waiting(&settings("", ""), &settings("", "")), []);
        // The node may always share less than at its start.
        assert_eq!(waiting(&settings("", "4 GB"), &settings("", "8GiB")), []);
        assert_eq!(waiting(&settings("", "4 GB"), &settings("", "")), []);
        assert_eq!(waiting(&settings("", "9 GB"), &settings("", "8GiB")), [Field::Memory]);
        assert_eq!(waiting(&settings("", ""), &settings("", "8GiB")), [Field::Memory]);
        let lan_only = Settings { lan_only: Some(false), accent: Some(Accent::Red), ..Settings::default() };
        assert_eq!(waiting(&lan_only, &Settings::default()), []);
    }

    #[test]
    fn notifications_that_nobody_was_asked_about_may_still_be_asked_about() {
        let after = |on, notify| {
            let before = Settings { notify, ..Settings::default() };
            Change::Notify(on).over(&before, None).unwrap().notify
        };
        assert_eq!((after(false, None), after(false, Some(true)), after(true, None)), (None, Some(false), Some(true)));
    }

    #[test]
    fn a_reset_shares_no_more_and_no_less() {
        let before = Settings {
            share: Some(true),
            look: Some(Look::Dark),
            name: Some("Attic".to_owned()),
            ..Settings::default()
        };
        assert_eq!(reset(&before), Settings { share: Some(true), ..Settings::default() });
    }
}
