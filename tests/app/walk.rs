//! A walk through every view and state of the window: axe finds no barrier, and nothing is cut, outside of the window or on
//! top of something else.
//!
//! `HIVEMIND_TEST_LONG` walks in every size, look and size of text; otherwise three combinations of them are tried.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Look, hivemind, patiently, patiently_or, settle};
use crate::steps::{Other, keep, said};

/// A page has drawn itself after this time.
const REST: Duration = Duration::from_millis(250);

/// What is walked in: the window's size, the size of its text in percent, and its look.
type Dress = ((u64, u64), u64, &'static str);

const SIZES: [(u64, u64); 4] = [(320, 480), (720, 480), (1440, 900), (2560, 1440)];

/// Small, usual and large.
const FEW: [Dress; 3] = [((320, 480), 150, "light"), ((720, 480), 100, "dark"), ((1440, 900), 100, "light")];

/// Violations of the rules that axe knows, each with where.
const AXE: &str = "const done = arguments[arguments.length - 1];
    axe.run(document, {
        runOnly: { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] },
        iframes: false,
    }).then(
        ({ violations }) => done(violations.flatMap(({ id, nodes }) => nodes.map((node) =>
            `axe ${id}: ${node.html.slice(0, 160)} ${node.any.map(({ message }) => message).join(' ').slice(0, 200)}`))),
        (error) => done([`axe failed: ${error}`]));";

/// Text that is cut without a word of what it was, what is outside of the window and cannot be scrolled to, controls on top
/// of each other, and lines too faint to be seen.
const LAYOUT: &str = "
    const faults = new Set();
    const root = document.querySelector('dialog[open]') ?? document.body;
    const name = (part) => `${part.tagName.toLowerCase()}.${part.getAttribute('class') ?? ''} “${(part.innerText ?? '').slice(0, 40)}”`;
    const style = (part) => getComputedStyle(part);
    const above = (part) => {
        const all = [];
        for (let at = part; at && at !== document.documentElement; at = at.parentElement) all.push(at);
        return all;
    };
    const seen = (part) => part.getClientRects().length > 0 && above(part).every((at) => {
        const { visibility, opacity, clipPath, contentVisibility } = style(at);
        return visibility === 'visible' && Number(opacity) > 0 && clipPath === 'none' && !at.hasAttribute('inert');
    });
    /* How far a box can be seen: [left, top, right, bottom], or what cuts it. */
    const within = (part, box) => {
        let [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom];
        let [wide, high] = [true, true];
        for (const at of above(part)) {
            const { overflowX, overflowY, textOverflow, position } = style(at);
            const frame = at.getBoundingClientRect();
            if (overflowX !== 'visible') {
                if (/auto|scroll/.test(overflowX)) wide = false;
                else if (wide && (left < frame.left - 1 || right > frame.right + 1) && at !== document.body) {
                    const told = textOverflow === 'ellipsis' && part.closest('[title], [aria-label], [role=option], [aria-describedby]');
                    if (!told) return { cut: `wider than ${name(at)}` };
                    wide = false;
                }
                [left, right] = [Math.max(left, frame.left), Math.min(right, frame.right)];
            }
            if (overflowY !== 'visible') {
                if (/auto|scroll/.test(overflowY)) high = false;
                else if (high && (top < frame.top - 2 || bottom > frame.bottom + 2) && at !== document.body) return { cut: `higher than ${name(at)}` };
                [top, bottom] = [Math.max(top, frame.top), Math.min(bottom, frame.bottom)];
            }
            if (position === 'fixed') break;
        }
        if (wide && (left < -1 || right > innerWidth + 1)) return { cut: 'outside of the window to a side' };
        if (high && (top < -1 || bottom > innerHeight + 1)) return { cut: 'outside of the window, above or below' };
        return { box: [left, top, right, bottom] };
    };
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        const part = text.parentElement;
        if (!text.data.trim() || part.closest('.unseen, .katex, script, style, textarea, option, mjx-container') || !seen(part)) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        for (const box of range.getClientRects()) {
            const { cut } = within(part, box);
            if (cut) faults.add(`text of ${name(part)} is ${cut}`);
        }
    }
    const controls = [...root.querySelectorAll('button, a[href], input:not([type=file]), select, textarea, summary')]
        .filter((part) => seen(part) && !part.closest('.unseen, .skip, .actions, .below, .body'));
    const boxes = controls.map((part) => {
        const { box, cut } = within(part, part.getBoundingClientRect());
        if (cut) faults.add(`${name(part)} is ${cut}`);
        return box;
    });
    /* What sticks to an edge lies on what scrolls below it. */
    const sticks = (part) => above(part).some((at) => style(at).position === 'sticky');
    controls.forEach((one, at) => controls.slice(at + 1).forEach((other, after) => {
        const [a, b] = [boxes[at], boxes[at + 1 + after]];
        if (!a || !b || one.contains(other) || other.contains(one) || sticks(one) !== sticks(other)) return;
        const [wide, high] = [Math.min(a[2], b[2]) - Math.max(a[0], b[0]), Math.min(a[3], b[3]) - Math.max(a[1], b[1])];
        if (wide > 2 && high > 2) faults.add(`${name(one)} lies on ${name(other)}`);
    }));
    const bright = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = bright(style(document.body).backgroundColor);
    for (const line of document.querySelectorAll('[data-message] .line [data-machine], [data-message] .line .notch')) {
        const colour = line.matches('.notch') ? style(line).borderTopColor : style(line).backgroundColor;
        const [more, less] = [bright(colour), ground].sort((a, b) => b - a);
        const contrast = (more + 0.05) / (less + 0.05);
        if (contrast < 3) faults.add(`the line of machine ${line.dataset.machine} has a contrast of ${contrast.toFixed(2)}`);
    }
    return [...faults]";

/// A view or a state of one: its name, how it is shown, and how it is left.
struct Place {
    name: &'static str,
    show: fn(&App),
    leave: fn(&App),
}

fn nothing(_: &App) {}

/// Shows a page by its place on the rail, whose words may be longer or not there.
fn page(app: &App, which: usize) {
    let body = "const page = document.querySelectorAll('nav button')[arguments[0]];
        page?.click();
        return page?.getAttribute('aria-current') === 'page'";
    patiently("the page", || app.script_with(body, &json!([which])) == true);
}

fn new_chat(app: &App) {
    page(app, 0);
    app.click("New chat");
    patiently("it is empty", || app.script("return document.querySelector('[data-message]') === null") == true);
}

fn key(app: &App, key: &str, with_control: bool) {
    app.script_with(
        "const at = document.querySelector('dialog[open]') ?? document.activeElement ?? document.body;
        at.dispatchEvent(new KeyboardEvent('keydown', { key: arguments[0], ctrlKey: arguments[1], bubbles: true, cancelable: true }))",
        &json!([key, with_control]),
    );
}

fn escape(app: &App) {
    patiently("no dialog is open", || {
        key(app, "Escape", false);
        app.script("return document.querySelector('dialog[open]') === null") == true
    });
}

/// Shows a conversation.
fn turn_to(app: &App, title: &str, there: &str) {
    page(app, 0);
    let body = "const entry = document.querySelector(`.list [title='${arguments[0]}']`);
        entry?.click();
        return entry !== null";
    patiently(title, || app.script_with(body, &json!([title])) == true);
    patiently_or(
        || format!("{there} in {title}: {}", app.text("main")),
        || app.script_with("return document.querySelector(arguments[0]) !== null", &json!([there])) == true,
    );
}

fn menu(app: &App, of: &str) {
    let body = "const place = document.querySelector(arguments[0]);
        const box = place.getBoundingClientRect();
        place.dispatchEvent(new MouseEvent('contextmenu', { bubbles: true, cancelable: true, clientX: box.left + 8, clientY: box.top + 8 }));
        return document.querySelector('[role=menuitem]') !== null";
    patiently("a menu", || app.script_with(body, &json!([of])) == true);
}

fn dialog(app: &App, shortcut: &str) {
    page(app, 0);
    patiently("a dialog", || {
        key(app, shortcut, true);
        app.script("return document.querySelector('dialog[open]') !== null") == true
    });
}

fn machines(app: &App) {
    page(app, 1);
    patiently("the plan", || app.text(".side").contains("tok/s") || app.text(".side").contains("GB"));
}

fn details(app: &App) {
    machines(app);
    app.script(
        "document.querySelector('.comb button, .comb [role=button]').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    patiently("what happened", || !app.text(".side dl, .side h2").is_empty());
}

const ALONE: [Place; 14] = [
    Place { name: "an empty chat", show: new_chat, leave: nothing },
    Place { name: "a long answer", show: |app| turn_to(app, "Everything", ".body .katex, .body math"), leave: nothing },
    Place { name: "branches", show: |app| turn_to(app, "Branches", ".branches"), leave: nothing },
    Place { name: "a failed answer", show: |app| turn_to(app, "Failed", ".problem"), leave: nothing },
    Place { name: "many machines", show: |app| turn_to(app, "Computed by six", ".line .notch"), leave: nothing },
    Place {
        name: "the options of a chat",
        show: |app| {
            new_chat(app);
            app.click("Instructions and sampling");
        },
        leave: |app| app.click("Instructions and sampling"),
    },
    Place {
        name: "a question about a link",
        show: |app| {
            turn_to(app, "Everything", ".body a");
            app.script("document.querySelector('.body a').click()");
            patiently("it asks", || app.text("dialog[open]").contains("browser"));
        },
        leave: escape,
    },
    Place {
        name: "a context menu",
        show: |app| {
            turn_to(app, "Everything", ".body a");
            menu(app, ".list li");
        },
        leave: escape,
    },
    Place { name: "Jump", show: |app| dialog(app, "k"), leave: escape },
    Place { name: "Shortcuts", show: |app| dialog(app, "/"), leave: escape },
    Place { name: "Models", show: |app| page(app, 2), leave: nothing },
    Place { name: "Machines, alone", show: machines, leave: nothing },
    Place { name: "a machine", show: details, leave: nothing },
    Place {
        name: "Settings",
        show: |app| {
            page(app, 3);
            patiently("the fields", || app.text(".settings").contains("Memory limit"));
        },
        leave: nothing,
    },
];

const TOGETHER: [Place; 2] = [
    Place { name: "Machines", show: machines, leave: nothing },
    Place { name: "a machine", show: details, leave: nothing },
];

const POPOVER: [Place; 1] = [Place { name: "the popover", show: nothing, leave: nothing }];

const TROUBLE: [Place; 1] = [Place { name: "a failed start", show: nothing, leave: nothing }];

fn xdotool(app: &App, arguments: &[&str]) -> String {
    let mut command = Command::new("xdotool");
    command.args(arguments).env("DISPLAY", &app.desktop.display).stderr(Stdio::null());
    String::from_utf8(command.output().expect("xdotool is installed").stdout).unwrap()
}

/// The walk, and what it found.
struct Walk {
    dresses: Vec<Dress>,
    axe: String,
    faults: usize,
}

impl Walk {
    fn new() -> Self {
        let axe = concat!(env!("CARGO_MANIFEST_DIR"), "/../node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(axe).expect("npm ci brings axe-core");
        let all = ["light", "dark"].into_iter().flat_map(|look| {
            [100, 150].into_iter().flat_map(move |text| SIZES.into_iter().map(move |size| (size, text, look)))
        });
        let long = std::env::var_os("HIVEMIND_TEST_LONG").is_some();
        Self { dresses: if long { all.collect() } else { FEW.to_vec() }, axe, faults: 0 }
    }

    #[allow(clippy::print_stderr, reason = "what is wrong is told where it is seen")]
    fn through(&mut self, app: &App, places: &[Place], sizes: Option<(u64, u64)>, about: &str) {
        // The window may show another page than before.
        app.script(&format!("{}; window.axe = axe", self.axe));
        for ((wide, high), text, look) in self.dresses.clone() {
            // The popover grows with its text.
            let (wide, high) = sizes.map_or((wide, high), |(wide, high)| (wide * text / 100, high * text / 100));
            dress(app, (wide, high), text, look);
            for Place { name, show, leave } in places {
                show(app);
                std::thread::sleep(REST);
                let mut found: Vec<Value> = app.script_later(AXE, &json!([])).as_array().unwrap().clone();
                found.extend(app.script(LAYOUT).as_array().unwrap().iter().cloned());
                let place = format!("{name}{about}, {wide} × {high}, {text} %, {look}");
                if !found.is_empty() {
                    app.picture(&place.replace([' ', ',', '%'], "-"));
                }
                for fault in found {
                    eprintln!("{place}: {}", fault.as_str().unwrap());
                    self.faults += 1;
                }
                leave(app);
            }
        }
    }
}

/// Gives the window a size, a look, and its text a size.
fn dress(app: &App, (wide, high): (u64, u64), text: u64, look: &str) {
    app.script_with(
        "window.__TAURI_INTERNALS__.invoke('text_size', { percent: arguments[0] });
        document.documentElement.dataset.theme = arguments[1]",
        &json!([text, look]),
    );
    let window = xdotool(app, &["search", "--onlyvisible", "--name", "^HiveMind$"]);
    let window = window.lines().next().expect("the window is on the screen").to_owned();
    xdotool(app, &["windowsize", "--sync", &window, &wide.to_string(), &high.to_string()]);
    let (wide, high) = (wide * 100 / text, high * 100 / text);
    let size = || app.script("return [innerWidth, innerHeight]");
    let near = |value: &Value, wanted: u64| value.as_u64().is_some_and(|value| value.abs_diff(wanted) <= 2);
    patiently_or(
        || format!("{wide} × {high}, and not {}", size()),
        || near(&size()[0], wide) && near(&size()[1], high),
    );
}

/// Asks the node, as the page does.
fn request(app: &App, method: &str, path: &str, body: &Value) -> Value {
    app.script_later(
        "const [method, path, body, done] = arguments;
        window.__TAURI_INTERNALS__.invoke('request', { method, path: `/hive/v1/conversations/${path}`, body: body && JSON.stringify(body) })
            .then((reply) => done(JSON.parse(reply)), (error) => done(String(error)))",
        &json!([method, path, body]),
    )
}

const EVERYTHING: &str = "Here is [a link](https://example.com/a/rather/long/address/that/goes/on) and a function.\n\n```python\n\
    def mean(values: list[float]) -> float:\n    \"\"\"The arithmetic mean of some numbers, which are not none.\"\"\"\n    \
    return sum(values) / len(values)  # nothing to divide by, if there are none\n```\n\n\
    | numbers | time | memory | machines that took part |\n|---|---:|---:|---|\n| 1,000 | 12 µs | 8 kB | Studio |\n\
    | 1,000,000 | 11 ms | 8 MB | Studio and Attic |\n\n> It reads every number once.\n\n1. **First** the sum\n2. then the *division*\n\n\
    - [x] done\n- [ ] to do\n\nIts sum is $\\sum_{i=1}^{n} x_i$, and\n\n$$\\bar{x} = \\frac{1}{n} \\sum_{i=1}^{n} x_i$$\n\n\
    ```mermaid\nflowchart LR\n  Studio -->|layers 1 to 18| Attic -->|layers 19 to 30| Studio\n```\n\n## And so on\n\n---\n\nThe end.";

/// Conversations of every kind.
fn fill(app: &App) {
    keep(app, "everything", "Everything", &json!([said("user", "Write a mean."), said("assistant", EVERYTHING)]));
    let names = ["Studio", "Attic", "Kitchen", "Garage", "Rack", "A machine with a rather long name"];
    let computed = json!({
        "tokens_per_s": 18.2, "first_s": 0.4, "context_tokens": 3600, "context_limit": 4096,
        "parts": [
            { "tokens": 40, "machines": names },
            { "tokens": 90, "machines": ["Studio"], "after": { "why": "Attic left", "pause_s": 1.7 } },
        ],
    });
    let mut answer = said("assistant", "Lisbon rewards slow mornings.");
    answer["computed"] = computed;
    keep(app, "six", "Computed by six", &json!([said("user", "Where to?"), answer]));
    keep(app, "branches", "Branches", &json!([said("user", "One?"), said("assistant", "Two.")]));
    let message = request(app, "GET", "branches", &json!(null))["messages"][0]["id"].clone();
    request(app, "POST", "branches/ask", &json!({ "text": "What is the capital of France?", "edited": message }));
    keep(app, "failed", "Failed", &json!([said("user", "One?"), said("assistant", "Two.")]));
    request(app, "POST", "failed/ask", &json!({ "text": "word ".repeat(12_000) }));
    app.show_main();
    for under_way in ["branches", "failed"] {
        patiently("its answer has ended", || {
            let list = app.script_later(
                "const done = arguments[arguments.length - 1];
                window.__TAURI_INTERNALS__.invoke('request', { method: 'GET', path: '/hive/v1/conversations', body: null })
                    .then((reply) => done(JSON.parse(reply)))",
                &json!([]),
            );
            let list = list.as_array().unwrap().clone();
            list.iter().any(|entry| entry["id"] == under_way && entry["answering"] == false)
        });
    }
}

#[test]
fn every_view_is_free_of_barriers_and_nothing_in_it_is_cut() {
    let home = tempfile::tempdir().unwrap();
    let studio = home.path().join("studio");
    settle(&studio, "Studio");
    let app = App::start(Desktop::new(Look::Light), &studio);
    let mut walk = Walk::new();
    fill(&app);
    walk.through(&app, &ALONE, None, "");
    assert!(hivemind(&studio, &["share", "on"]).stdout(Stdio::null()).status().unwrap().success());
    // A machine asks to join, is let in, and two more are.
    let mut others = Vec::new();
    for (number, name) in ["Attic", "Kitchen Mac mini", "Workshop with a rather long name"].into_iter().enumerate() {
        let other = Other::start(home.path().join(name), name);
        let (who, code) = other.join(&studio);
        if number == 0 {
            page(&app, 1);
            patiently("the request", || app.text("article").contains("wants to join"));
            walk.through(&app, &TOGETHER[..1], None, " with a request");
            app.show_popover();
            walk.through(&app, &POPOVER, Some((340, 580)), " with a request");
            app.show_main();
        }
        let mut approval = other.approve(&who, &code);
        patiently("it is approved", || {
            let mut approve = hivemind(&studio, &["approve", name, "--code", &code]);
            approve.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
        });
        approval.wait().unwrap();
        page(&app, 1);
        patiently_or(|| app.text(".picture"), || app.text(".comb").contains(name) && app.text("article").is_empty());
        if number != 1 {
            walk.through(&app, &TOGETHER, None, &format!(" with {}", number + 1));
        }
        others.push(other);
    }
    app.show_popover();
    walk.through(&app, &POPOVER, Some((340, 580)), " with three");
    app.show_main();
    let desktop = app.quit();
    std::fs::write(studio.join("config.toml"), "shaer = true\n").unwrap();
    let app = App::open(desktop, &studio, &[]);
    patiently("it says why", || app.text("main").contains("unknown field `shaer`"));
    walk.through(&app, &TROUBLE, None, "");
    assert_eq!(walk.faults, 0, "faults, as they are told above");
}
