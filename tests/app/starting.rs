//! A start that does not succeed, and a newer version.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::driver::{App, Desktop, Ends, Look, hivemind, patiently, patiently_or, settle};
use crate::releases::Releases;

/// What the page of a failed start says, once it says this.
fn trouble(app: &App, title: &str) -> String {
    let said = || app.text("main");
    patiently_or(said, || said().contains(title));
    said()
}

/// Clicks a button that restarts the app, waits until its node answers, then quits it.
fn restart_by(app: App, button: &str) {
    let holder = || std::fs::read_to_string(app.folder.join("lock")).unwrap_or_default();
    let before = holder();
    // The window may be gone before the driver could tell about the click.
    let body = "const named = [...document.querySelectorAll('button')].find((button) => button.innerText.trim() === arguments[0]);
        setTimeout(() => named?.click(), 200);
        return named !== undefined";
    patiently(&format!("a button {button:?}"), || app.script_with(body, &json!([button])) == true);
    patiently("another process holds the folder", || holder() != before);
    patiently("the node answers", || !app.status().is_null());
    app.quit();
}

#[test]
fn damaged_settings_are_named_with_what_is_wrong_in_them() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "shaer = true\n").unwrap();
    let app = App::open(Desktop::new(Look::Light), home.path(), &[]);
    let said = trouble(&app, "HiveMind can’t read your settings");
    assert!(said.contains("unknown field `shaer`"), "{said}");
    for button in ["Move It Aside and Start", "Open Folder", "Try Again", "Quit"] {
        assert!(said.contains(button), "{button}: {said}");
    }
    app.picture("not-started");
}

#[test]
fn a_damaged_database_is_moved_aside_and_the_app_starts() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let file = home.path().join("conversations.sqlite");
    std::fs::write(&file, "no database").unwrap();
    let app = App::open(Desktop::new(Look::Light), home.path(), &[]);
    trouble(&app, "HiveMind can’t read your chats");
    restart_by(app, "Move It Aside and Start");
    assert_eq!(std::fs::read(home.path().join("conversations.sqlite.aside")).unwrap(), b"no database");
    assert!(std::fs::read(file).unwrap().starts_with(b"SQLite format 3"));
}

/// An empty database of one page, with a version of its layout that is yet to come.
fn newer_database() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    // Page size, versions of the format, and fractions that are always the same.
    page[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
    for (at, value) in [(24, 1), (28, 1), (44, 4), (56, 1), (60, 1_000_000_u32), (92, 1), (96, 3_045_000)] {
        page[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    // An empty table of contents.
    page[100] = 0x0d;
    page[105] = 0x10;
    page
}

#[test]
fn chats_of_a_newer_version_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let file = home.path().join("conversations.sqlite");
    std::fs::write(&file, newer_database()).unwrap();
    let app = App::open(Desktop::new(Look::Dark), home.path(), &[]);
    let said = trouble(&app, "A newer HiveMind wrote your chats");
    assert!(said.contains("Move It Aside and Start") && said.contains("Nothing is deleted."), "{said}");
    app.picture("newer");
    assert_eq!(std::fs::read(file).unwrap(), newer_database());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let home = tempfile::tempdir().unwrap();
    let app = App::open(Desktop::new(Look::Light), home.path(), &[("HIVEMIND_DATA_DIR", "/proc/nowhere")]);
    let said = trouble(&app, "HiveMind can’t write its data");
    assert!(said.contains("/proc/nowhere") && said.contains("Try Again"), "{said}");
}

#[test]
fn a_full_disk_is_called_full() {
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    inside.args(["--exact", "starting::on_a_full_disk", "--ignored", "--nocapture"]);
    let output = inside.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
#[ignore = "run by the test above, in a mount namespace"]
fn on_a_full_disk() {
    let home = tempfile::tempdir().unwrap();
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    settle(&disk.join("data"), "Studio");
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let data = disk.join("data");
    let app = App::open(Desktop::new(Look::Light), home.path(), &[("HIVEMIND_DATA_DIR", data.to_str().unwrap())]);
    let said = trouble(&app, "The disk is full");
    assert!(said.contains("Free some space") && said.contains("Try Again"), "{said}");
}

#[test]
fn a_node_of_the_command_line_is_stopped_for_the_app_at_a_click() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let mut node = hivemind(home.path(), &["node"]);
    let mut node = Ends(node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let runs = || hivemind(home.path(), &["status", "--json"]).output().unwrap().status.success();
    patiently("the node runs", runs);
    let app = App::open(Desktop::new(Look::Light), home.path(), &[]);
    let said = trouble(&app, "HiveMind is already running");
    assert!(said.contains(&format!("process {}, hivemind", node.0.id())), "{said}");
    app.picture("already-running");
    // It is still there for whoever changes their mind.
    assert!(runs());
    restart_by(app, "Stop It and Start");
    assert_eq!(node.0.wait().unwrap().code(), Some(0), "it was not killed");
}

#[test]
fn a_taken_port_for_other_machines_is_left_for_another() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    set(home.path(), "bind", &taken.local_addr().unwrap().to_string());
    let app = App::open(Desktop::new(Look::Light), home.path(), &[]);
    trouble(&app, "The port for other machines is taken");
    restart_by(app, "Use Another Port");
    assert!(settings(home.path()).contains("bind = \"127.0.0.1:0\""), "{}", settings(home.path()));
}

fn settings(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("config.toml")).unwrap()
}

/// Changes one line of the settings.
fn set(folder: &Path, name: &str, value: &str) {
    let others: String =
        settings(folder).lines().filter(|line| !line.starts_with(name)).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(folder.join("config.toml"), format!("{others}{name} = \"{value}\"\n")).unwrap();
}

#[test]
fn a_taken_port_keeps_programs_out_and_not_the_owner() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    set(home.path(), "api", &address.to_string());
    let app = App::start(Desktop::new(Look::Light), home.path());
    app.tray().click("Settings…");
    let (said, taken) = (|| app.text(".settings"), format!("cannot listen on {address}"));
    patiently_or(said, || said().contains(&taken));
    app.picture("port-taken");
    // And the rest is there.
    app.click("Chat");
    app.click("Instructions and sampling");
    patiently("the model's options are offered", || app.text(".panel").contains("Thinking"));
    app.picture("chat-options");
    app.click("Settings");
    restart_by(app, "Use Another Port and Restart");
    assert!(!settings(home.path()).contains(&address.to_string()));
}

#[test]
fn a_newer_version_is_found_checked_and_installed() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let installed = home.path().join("installed");
    std::fs::write(&installed, "\x7fELF old").unwrap();
    let releases = Releases::new();
    let app_file = |what: &str| [b"\x7fELF", what.as_bytes(), &[0; 64]].concat();
    let (new, evil) = (app_file("new"), app_file("evil"));
    let (url, key) = (releases.url(), releases.key());
    let over = installed.to_str().unwrap();
    let environment =
        [("HIVEMIND_UPDATE_URL", url.as_str()), ("HIVEMIND_UPDATE_KEY", &key), ("HIVEMIND_UPDATE_OVER", over)];
    let app = App::start_with(Desktop::new(Look::Light), home.path(), &environment);
    let said = || app.text("[aria-label=Updates]");
    let tray = app.tray();
    tray.click("Settings…");
    // Nothing is there.
    tray.click("Check for Updates…");
    patiently("why it did not work", || said().contains("Could not check for updates"));
    // The version that runs is the newest.
    releases.offer("0.0.1", b"", ("0.0.1", b""));
    app.click("Check for Updates");
    patiently("it is the newest", || said().contains("HiveMind is up to date."));
    // One that somebody else has tampered with is not installed.
    releases.offer("9.9.9", &evil, ("9.9.9", &new));
    tray.click("Check for Updates…");
    patiently("it is found", || said().contains("Version 9.9.9 is available.") && said().contains("Faster."));
    app.picture("update");
    tray.click("Update to 9.9.9…");
    patiently("it is refused", || said().contains("Could not install 9.9.9"));
    assert_eq!(std::fs::read(&installed).unwrap(), b"\x7fELF old");
    // Nor is an old build of the publisher's that somebody offers as a newer one, nor one whose signature names no version.
    for signed_as in ["0.0.1", ""] {
        releases.offer("9.9.9", &evil, (signed_as, &evil));
        app.click("Check for Updates");
        patiently("it is found", || said().contains("Version 9.9.9 is available."));
        app.click("Install");
        patiently("it is refused", || said().contains("Could not install 9.9.9"));
        assert_eq!(std::fs::read(&installed).unwrap(), b"\x7fELF old");
    }
    // The publisher's is: the one that was shown, whatever is offered meanwhile.
    releases.offer("9.9.9", &new, ("9.9.9", &new));
    app.click("Check for Updates");
    patiently("it is found", || said().contains("Version 9.9.9 is available."));
    releases.offer("9.9.10", &evil, ("9.9.10", &evil));
    app.click("Install");
    patiently("it runs after a restart", || said().contains("Version 9.9.9 is ready."));
    assert_eq!(std::fs::read(&installed).unwrap(), new);
    releases.offer("9.9.9", &new, ("9.9.9", &new));
    // The one that runs is still the old one, and finds it again after a restart.
    let app = App::start_with(app.quit().looking(Look::Dark), home.path(), &environment);
    app.tray().click("Check for Updates…");
    patiently("it is found", || app.text("[aria-label=Updates]").contains("Version 9.9.9 is available."));
    app.picture("update");
    app.quit();
}
