//! The app on a display of its own: its window by `WebDriver`, its tray by the session bus, its node by the command line.
//!
//! Everything is this process's own and ends with it: the display, the bus, the driver, the data folder.

use std::cell::{Cell, OnceCell};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use zbus::blocking::{Connection, connection::Builder};
use zbus::zvariant::OwnedValue;

#[path = "../common/timeout.rs"]
mod timeout;

use timeout::TEST_TIMEOUT;
pub(crate) use timeout::{patiently, patiently_or};

/// A program on the bus that does not answer is not the one that is looked for.
const ANSWER: Duration = Duration::from_secs(3);

/// An entry of the tray's menu, as the bus describes it.
type Layout = (i32, std::collections::HashMap<String, OwnedValue>, Vec<OwnedValue>);

/// A process that ends with its owner.
pub(crate) struct Ends(pub(crate) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Light or dark, as the desktop says.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    Light,
    Dark,
}

/// A desktop: a display and a session bus.
pub(crate) struct Desktop {
    pub(crate) display: String,
    pub(crate) bus: String,
    look: Look,
    _processes: [Ends; 2],
}

impl Desktop {
    pub(crate) fn new(look: Look) -> Self {
        let line = |command: &mut Command| {
            let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it is installed");
            let mut said = String::new();
            let out = process.stdout.take().expect("it is a pipe");
            BufReader::new(out).read_line(&mut said).expect("it says where it is");
            (Ends(process), said.trim().to_owned())
        };
        let mut xvfb = Command::new("Xvfb");
        let (screen, number) = line(xvfb.args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "1280x900x24"]));
        let mut daemon = Command::new("dbus-daemon");
        let (bus_process, bus) = line(daemon.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]));
        Self { display: format!(":{number}"), bus, look, _processes: [screen, bus_process] }
    }

    /// The same desktop in another look.
    pub(crate) fn looking(self, look: Look) -> Self {
        Self { look, ..self }
    }

    fn dress(&self, command: &mut Command) {
        command.env("DISPLAY", &self.display).env("DBUS_SESSION_BUS_ADDRESS", &self.bus).env("NO_AT_BRIDGE", "1");
        // The app speaks the system's language, and these tests read English.
        command.env("LC_ALL", "C.UTF-8").env_remove("LANGUAGE");
        command.env("GTK_THEME", if matches!(self.look, Look::Dark) { "Adwaita:dark" } else { "Adwaita" });
        // The sandbox and the GPU are not there for a test.
        command.env("WEBKIT_DISABLE_COMPOSITING_MODE", "1");
    }
}

/// The running app.
pub(crate) struct App {
    pub(crate) desktop: Desktop,
    pub(crate) folder: PathBuf,
    url: String,
    session: String,
    client: reqwest::blocking::Client,
    /// How often a page was reloaded.
    loaded: Cell<u32>,
    _driver: Ends,
}

/// The settings of a node on loopback, where there is nobody to find.
pub(crate) fn settle(folder: &Path, name: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let settings = format!("name = \"{name}\"\nbind = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n");
    std::fs::write(folder.join("config.toml"), settings).unwrap();
}

/// The command line.
pub(crate) fn hivemind(folder: &Path, arguments: &[&str]) -> Command {
    let beside = Path::new(env!("CARGO_BIN_EXE_hivemind-app")).with_file_name("hivemind");
    assert!(beside.is_file(), "{} is not built: cargo build -p hivemind", beside.display());
    let mut command = Command::new(beside);
    command.args(arguments).env("HIVEMIND_DATA_DIR", folder).stdin(Stdio::null());
    command
}

impl App {
    /// Opens the app, and waits for its main page.
    pub(crate) fn start(desktop: Desktop, folder: &Path) -> Self {
        Self::start_with(desktop, folder, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(desktop: Desktop, folder: &Path, environment: &[(&str, &str)]) -> Self {
        let app = Self::open(desktop, folder, environment);
        patiently("the window shows something", || app.script("return document.querySelector('nav') !== null") == true);
        app
    }

    /// Opens the app, whatever it shows.
    pub(crate) fn open(desktop: Desktop, folder: &Path, environment: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new("WebKitWebDriver");
        driver.args([format!("--port={port}"), "--host=127.0.0.1".to_owned()]);
        driver.env("TAURI_WEBVIEW_AUTOMATION", "true").env("HIVEMIND_DATA_DIR", folder);
        // What the window system and the web view remember is this test's, too.
        for place in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            driver.env(place, folder.join(place));
        }
        desktop.dress(&mut driver);
        driver.envs(environment.iter().copied());
        let log = std::env::var_os("HIVEMIND_APP_LOG").is_some();
        let silent = || if log { Stdio::inherit() } else { Stdio::null() };
        let driver = Ends(driver.stdout(silent()).stderr(silent()).spawn().expect("webkit2gtk-driver is installed"));
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::blocking::Client::builder().timeout(TEST_TIMEOUT).build().unwrap();
        patiently("the driver answers", || client.get(format!("{url}/status")).send().is_ok());
        let binary = env!("CARGO_BIN_EXE_hivemind-app");
        let wanted =
            json!({"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": {"binary": binary, "args": []}}}});
        let made: Value = client.post(format!("{url}/session")).json(&wanted).send().unwrap().json().unwrap();
        let session = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        Self { desktop, folder: folder.to_owned(), url, session, client, loaded: Cell::new(0), _driver: driver }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/session/{}/{path}", self.url, self.session);
        let answer: Value = self.client.post(url).json(body).send().unwrap().json().unwrap();
        answer["value"].clone()
    }

    /// Runs a function body in the window and gives what it returns.
    pub(crate) fn script(&self, body: &str) -> Value {
        self.script_with(body, &json!([]))
    }

    pub(crate) fn script_with(&self, body: &str, arguments: &Value) -> Value {
        let value = self.post("execute/sync", &json!({ "script": body, "args": arguments }));
        assert!(value.get("error").is_none(), "{value}");
        value
    }

    /// Runs a function body that calls its last argument with what it gives, once it has it.
    pub(crate) fn script_later(&self, body: &str, arguments: &Value) -> Value {
        let value = self.post("execute/async", &json!({ "script": body, "args": arguments }));
        assert!(value.get("error").is_none(), "{value}");
        value
    }

    /// Clicks where the popover has nothing, and presses a key, as a mouse and a keyboard do: without a window manager, that
    /// is what gives a window the keys.
    pub(crate) fn press(&self, key: &str) {
        let mut press = Command::new("xdotool");
        press.args(["mousemove", "170", "460", "click", "1", "sleep", "0.1", "key", key]);
        let _ = press.env("DISPLAY", &self.desktop.display).stderr(Stdio::null()).status();
    }

    /// Clicks where the popover has nothing, and then gives the keys to no window, as when its owner turns to something else.
    pub(crate) fn look_away(&self) {
        self.press("shift");
        let mut away = Command::new("xdotool");
        away.args(["search", "--maxdepth", "0", "", "windowfocus"]);
        let _ = away.env("DISPLAY", &self.desktop.display).stderr(Stdio::null()).status();
    }

    /// Clicks the button of this text or name.
    #[track_caller]
    pub(crate) fn click(&self, name: &str) {
        let body = "const named = [...document.querySelectorAll('button')].find((button) =>
                button.innerText.trim() === arguments[0] || button.getAttribute('aria-label') === arguments[0]);
            named?.click();
            return named !== undefined";
        patiently(&format!("a button {name:?}"), || self.script_with(body, &json!([name])) == true);
    }

    /// What can be read in the first element that a selector finds.
    pub(crate) fn text(&self, selector: &str) -> String {
        let body = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.script_with(body, &json!([selector])).as_str().unwrap_or_default().to_owned()
    }

    /// Sends a question, as a person who types.
    pub(crate) fn ask(&self, question: &str) {
        let body = "const field = document.querySelector('.field textarea');
            field.value = arguments[0];
            field.dispatchEvent(new Event('input', { bubbles: true }));";
        self.script_with(body, &json!([question]));
        patiently("it can be sent", || self.script("return !document.querySelector('.field button').disabled") == true);
        self.click("Send");
    }

    /// Shows the popover's page in this window, the only one that can be driven.
    pub(crate) fn show_popover(&self) {
        self.go_to("#popover");
        patiently("the popover's page", || {
            self.script("return document.querySelector('main header') !== null") == true
        });
    }

    /// Shows the main page again.
    pub(crate) fn show_main(&self) {
        self.go_to("");
        patiently("the main page", || self.script("return document.querySelector('nav') !== null") == true);
    }

    /// Reloads a page. An address that differs only after its "#" would not be loaded, but turned to by the page that
    /// is there.
    fn go_to(&self, page: &str) {
        let loaded = self.loaded.get() + 1;
        self.loaded.set(loaded);
        self.post("url", &json!({ "url": format!("tauri://localhost/index.html?{loaded}{page}") }));
    }

    /// Keeps a picture of the window where `HIVEMIND_SCREENS` says, if it says so.
    pub(crate) fn picture(&self, name: &str) {
        self.keep(name, "screenshot");
    }

    /// Keeps a picture of the popover's page, as wide and high as the popover is.
    pub(crate) fn picture_of_popover(&self, name: &str) {
        self.script("Object.assign(document.querySelector('main').style, { width: '340px', height: '580px' })");
        let found = self.post("element", &json!({ "using": "css selector", "value": "main" }));
        let element = found.as_object().and_then(|found| found.values().next()?.as_str()).unwrap().to_owned();
        self.keep(name, &format!("element/{element}/screenshot"));
        self.script("document.querySelector('main').removeAttribute('style')");
    }

    fn keep(&self, name: &str, path: &str) {
        let Some(folder) = std::env::var_os("HIVEMIND_SCREENS") else { return };
        // What moves has come to rest.
        std::thread::sleep(Duration::from_millis(400));
        let url = format!("{}/session/{}/{path}", self.url, self.session);
        // A picture is taken at the next drawing, and a page at rest draws nothing.
        self.script(
            "const until = performance.now() + 3000;
            const draw = (now) => {
                document.body.style.outline = now < until ? `1px solid rgb(0 0 0 / ${now % 2 ? 0 : 0.001})` : '';
                if (now < until) requestAnimationFrame(draw);
            };
            requestAnimationFrame(draw);",
        );
        let answer: Value = self.client.get(url).send().unwrap().json().unwrap();
        let picture = answer["value"].as_str().unwrap_or_else(|| panic!("no picture: {answer}"));
        let picture = data_encoding::BASE64.decode(picture.as_bytes()).unwrap();
        let look = if matches!(self.desktop.look, Look::Dark) { "dark" } else { "light" };
        std::fs::write(Path::new(&folder).join(format!("{name}-{look}.png")), picture).unwrap();
    }

    /// How many of the app's windows are on the screen.
    pub(crate) fn windows_seen(&self) -> usize {
        let mut search = Command::new("xdotool");
        search.args(["search", "--onlyvisible", "--name", "^HiveMind$"]).env("DISPLAY", &self.desktop.display);
        let found = search.stderr(Stdio::null()).output().expect("xdotool is installed");
        String::from_utf8_lossy(&found.stdout).lines().count()
    }

    /// Hides the window that is driven, as its owner does.
    pub(crate) fn hide(&self) {
        self.script("window.__TAURI_INTERNALS__.invoke('hide')");
        patiently("no window is seen", || self.windows_seen() == 0);
    }

    /// What the node says.
    pub(crate) fn status(&self) -> Value {
        let output = hivemind(&self.folder, &["status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Ends the app as its owner does, and gives the desktop back.
    pub(crate) fn quit(self) -> Desktop {
        self.tray().click("Quit HiveMind");
        patiently("the node has ended", || {
            hivemind(&self.folder, &["status"]).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().code()
                != Some(0)
        });
        self.desktop
    }

    /// Ends the app as a crash does, and gives the desktop back.
    pub(crate) fn kill(self) -> Desktop {
        let of_this = format!("HIVEMIND_DATA_DIR={}", self.folder.display()).into_bytes();
        let binary = Path::new(env!("CARGO_BIN_EXE_hivemind-app"));
        let processes = || {
            let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
            all.filter(|process| {
                let environment = std::fs::read(process.join("environ")).unwrap_or_default();
                std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe == binary)
                    && environment.split(|byte| *byte == 0).any(|variable| variable == of_this)
            })
            .collect::<Vec<_>>()
        };
        let ids: Vec<String> =
            processes().iter().map(|process| process.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert!(!ids.is_empty(), "the app does not run");
        // Its workers as well: they would notice, but not at once.
        assert!(Command::new("kill").arg("-9").args(&ids).status().unwrap().success());
        patiently("the app is gone", || processes().is_empty());
        self.desktop
    }

    /// The tray, on the session bus.
    pub(crate) fn tray(&self) -> Tray {
        let bus = Builder::address(self.desktop.bus.as_str()).unwrap().method_timeout(ANSWER).build().unwrap();
        Tray { bus, owner: OnceCell::new() }
    }
}

/// The tray's menu, read and clicked over the bus, as a desktop's panel does.
pub(crate) struct Tray {
    bus: Connection,
    /// Who has it on the bus, once found: a name of the kind ":1.7".
    owner: OnceCell<String>,
}

impl Tray {
    /// The menu's layout, if this is whose it is.
    fn layout(bus: &Connection, owner: &str) -> Option<Layout> {
        let answer = call(bus, owner, "GetLayout", &(0, -1, Vec::<&str>::new()))?;
        answer.body().deserialize::<(u32, Layout)>().ok().map(|(_, layout)| layout)
    }

    fn owner(&self) -> Option<&str> {
        if self.owner.get().is_none() {
            let names = zbus::blocking::fdo::DBusProxy::new(&self.bus).unwrap().list_names().unwrap();
            // This test itself would wait for its own answer.
            let own = self.bus.unique_name().map(ToString::to_string);
            let others = names.into_iter().map(|name| name.to_string());
            // All are asked at once: some never answer.
            let (found, owners) = mpsc::channel();
            for name in others.filter(|name| name.starts_with(':') && Some(name) != own.as_ref()) {
                let (bus, found) = (self.bus.clone(), found.clone());
                std::thread::spawn(move || Self::layout(&bus, &name).map(|_| found.send(name)));
            }
            drop(found);
            let _ = self.owner.set(owners.recv_timeout(Duration::from_secs(1)).ok()?);
        }
        self.owner.get().map(String::as_str)
    }

    /// Number, text, and whether it is on, of every entry.
    pub(crate) fn entries(&self) -> Vec<(i32, String, Option<bool>)> {
        let mut entries = Vec::new();
        if let Some(layout) = self.owner().and_then(|owner| Self::layout(&self.bus, owner)) {
            collect(layout, &mut entries);
        }
        entries
    }

    #[track_caller]
    pub(crate) fn click(&self, text: &str) {
        patiently(&format!("an entry {text:?}"), || {
            let Some((id, ..)) = self.entries().into_iter().find(|(_, entry, _)| entry == text) else { return false };
            let nothing = zbus::zvariant::Value::from(0_i32);
            self.owner().and_then(|owner| call(&self.bus, owner, "Event", &(id, "clicked", nothing, 0_u32))).is_some()
        });
    }

    /// Whether an entry is on.
    pub(crate) fn is_on(&self, text: &str) -> Option<bool> {
        self.entries().into_iter().find(|(_, entry, _)| entry == text)?.2
    }
}

/// Calls a method of the tray's menu, if this is whose it is.
fn call<B>(bus: &Connection, owner: &str, method: &str, body: &B) -> Option<zbus::Message>
where
    B: serde::Serialize + zbus::zvariant::DynamicType,
{
    let path = "/org/ayatana/NotificationItem/tray_icon_tray_app_hivemind/Menu";
    bus.call_method(Some(owner), path, Some("com.canonical.dbusmenu"), method, body).ok()
}

fn collect((id, properties, children): Layout, entries: &mut Vec<(i32, String, Option<bool>)>) {
    let text = properties.get("label").and_then(|label| String::try_from(label.clone()).ok());
    if let Some(text) = text {
        // An underscore is a shortcut's mark, and two are an underscore.
        let on = properties.get("toggle-state").and_then(|state| i32::try_from(state.clone()).ok());
        entries.push((id, text.replace("__", "\0").replace('_', "").replace('\0', "_"), on.map(|on| on == 1)));
    }
    for child in children {
        if let Ok(layout) = Layout::try_from(child) {
            collect(layout, entries);
        }
    }
}
