//! A start that does not succeed, and a newer version.

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};
use crate::releases::Releases;

#[test]
fn a_node_that_cannot_start_says_why_in_a_window() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "shaer = true\n").unwrap();
    let app = App::open(Desktop::new(Look::Light), home.path(), &[]);
    patiently("it says why", || app.text("main").contains("unknown field `shaer`"));
    for button in ["Try Again", "Open Folder", "Quit"] {
        assert!(app.text("main").contains(button), "{button}");
    }
    app.picture("not-started");
}

#[test]
fn a_taken_port_keeps_programs_out_and_not_the_owner() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let settings = std::fs::read_to_string(home.path().join("config.toml")).unwrap_or_default();
    let others: String =
        settings.lines().filter(|line| !line.starts_with("api")).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(home.path().join("config.toml"), format!("{others}api = \"{address}\"\n")).unwrap();
    let app = App::start(Desktop::new(Look::Light), home.path());
    app.tray().click("Settings…");
    let (said, taken) = (|| app.text(".settings"), format!("cannot listen on {address}"));
    patiently_or(said, || said().contains(&taken));
    assert!(app.text(".settings").contains("Save another API address below, then restart."));
    app.picture("port-taken");
    // And the rest is there.
    app.click("Chat");
    app.click("Instructions and sampling");
    patiently("the model's options are offered", || app.text(".panel").contains("Thinking"));
    app.picture("chat-options");
    app.quit();
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
