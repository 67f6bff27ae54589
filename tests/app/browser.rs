//! HiveMind in a real Chromium: let in by a link over TLS with a pinned key, chatting, and locked out again.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Ends, Look, hivemind, patiently, settle};

/// A Chromium without a screen, the size of a phone.
struct Chromium {
    url: String,
    client: reqwest::blocking::Client,
    _driver: Ends,
}

impl Chromium {
    /// `pin` is the SHA-256 of the public key that it takes for known, in base64.
    fn start(folder: &Path, pin: Option<&str>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new("chromedriver");
        driver.arg(format!("--port={port}")).env("HOME", folder).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = Ends(driver.spawn().expect("chromium-driver is installed"));
        let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
        let base = format!("http://127.0.0.1:{port}");
        patiently("the driver answers", || client.get(format!("{base}/status")).send().is_ok());
        let profile = format!("--user-data-dir={}", folder.join("chromium").display());
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--window-size=390,844".to_owned(),
            // Nothing leaves this machine.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".to_owned(),
            profile,
        ];
        arguments.extend(pin.map(|pin| format!("--ignore-certificate-errors-spki-list={pin}")));
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let made: Value = client.post(format!("{base}/session")).json(&wanted).send().unwrap().json().unwrap();
        let session = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        Self { url: format!("{base}/session/{session}"), client, _driver: driver }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer: Value = self.client.post(format!("{}/{path}", self.url)).json(body).send().unwrap().json().unwrap();
        answer["value"].clone()
    }

    fn open(&self, url: &str) -> Value {
        self.post("url", &json!({ "url": url }))
    }

    fn script(&self, body: &str) -> Value {
        self.post("execute/sync", &json!({ "script": body, "args": [] }))
    }

    fn says(&self, words: &str) -> bool {
        self.script("return document.body.innerText").as_str().is_some_and(|text| text.contains(words))
    }

    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("HIVEMIND_SCREENS") else { return };
        std::thread::sleep(std::time::Duration::from_millis(400));
        let answer: Value = self.client.get(format!("{}/screenshot", self.url)).send().unwrap().json().unwrap();
        let picture = data_encoding::BASE64.decode(answer["value"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.client.delete(&self.url).send();
    }
}

fn link(folder: &Path) -> Value {
    let made = hivemind(folder, &["browser", "--json"]).output().unwrap();
    serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&made.stderr)))
}

#[test]
fn a_phone_is_let_in_by_a_link_and_chats_until_its_key_is_revoked() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("node");
    settle(&folder, "Studio");
    let file = folder.join("config.toml");
    let settings = std::fs::read_to_string(&file).unwrap() + "browser_bind = \"127.0.0.1:0\"\n";
    std::fs::write(&file, settings).unwrap();
    let app = App::start(Desktop::new(Look::Light), &folder);

    app.click("Settings");
    let choose = |place: &str| {
        let body = format!(
            "const choice = document.querySelector('[aria-label=\"Browser and phone\"] select');
            if (!choice) return false;
            choice.value = '{place}';
            choice.dispatchEvent(new Event('change', {{ bubbles: true }}));
            return true"
        );
        patiently("the choice", || app.script(&body) == true);
    };
    choose("network");
    app.click("Make a link");
    let shown = || app.text("[aria-label='Browser and phone'] .link");
    patiently("the link and what to compare", || shown().contains("https://127.0.0.1:") && shown().contains("SHA-256"));
    app.script("document.querySelector('[aria-label=\"Browser and phone\"]').scrollIntoView()");
    app.picture("browser-link");

    // Without the pinned key, Chromium takes the machine for a stranger's.
    let made = link(&folder);
    let url = made["url"].as_str().unwrap();
    let careful = home.path().join("careful");
    let stranger = Chromium::start(&careful, None);
    stranger.open(url);
    patiently("the warning", || stranger.script("return document.title") == "Privacy error");
    drop(stranger);

    let pin = made["certificate"]["public_key_sha256"].as_str().unwrap();
    assert!(shown().contains(made["certificate"]["sha256"].as_str().unwrap()), "the owner sees what the browser does");
    let phone = Chromium::start(&home.path().join("phone"), Some(pin));
    phone.open(url);
    patiently("the chat", || phone.script("return document.querySelector('.field textarea') !== null") == true);
    assert!(phone.says("Machines") && !phone.says("Settings"), "a browser is a client");
    assert_eq!(phone.script("return location.hash"), "", "the code does not stay in the address");
    phone.script(
        "const field = document.querySelector('.field textarea');
        field.value = 'What is the capital of France?';
        field.dispatchEvent(new Event('input', { bubbles: true }));",
    );
    let send = "const send = [...document.querySelectorAll('button')].find((button) =>
            button.innerText.trim() === 'Send' || button.getAttribute('aria-label') === 'Send');
        if (!send || send.disabled) return false;
        send.click();
        return true";
    patiently("it can be sent", || phone.script(send) == true);
    let words = "return document.querySelector('.body .prose, .body')?.innerText.length ?? 0";
    patiently("an answer", || phone.script(words).as_u64().is_some_and(|letters| letters > 20));
    let is_done =
        "return [...document.querySelectorAll('button')].every((button) => button.innerText.trim() !== 'Stop')";
    patiently("its end", || phone.script(is_done) == true);
    phone.picture("phone-chat");
    let barriers = phone.script("return document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(barriers, true, "nothing is wider than the screen");
    // The same conversation is in the app.
    app.click("Chat");
    patiently("the chat in the app", || app.text(".list").contains("What is the capital of France?"));

    phone.script(
        "[...document.querySelectorAll('nav button')].find((each) => each.innerText.trim() === 'Machines').click()",
    );
    patiently("the machines", || phone.says("This machine") || phone.says("Studio"));
    phone.picture("phone-machines");
    // It comes back without a link.
    phone.open(url.split('#').next().unwrap());
    patiently("the chat again", || phone.says("What is the capital of France?"));

    assert!(hivemind(&folder, &["tokens", "remove", "Chrome on Linux"]).status().unwrap().success());
    patiently("it is out", || phone.says("This browser is not connected"));
    phone.picture("phone-out");
    phone.open("about:blank");
    phone.open(url);
    patiently("a used link", || phone.says("used before"));

    app.click("Settings");
    choose("off");
    patiently("the pages are closed", || {
        !hivemind(&folder, &["browser", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    });
}
