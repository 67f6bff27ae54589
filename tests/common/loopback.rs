//! Nodes on loopback, where there is nobody to find: they join by invitation.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{finish, hivemind, of_nobody, patiently};

/// A node on loopback, where there is nobody to find.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) process: Child,
}

impl Node {
    pub(crate) fn start(home: &Path, name: &str) -> Self {
        Self::start_with(home, name, &[])
    }

    pub(crate) fn start_with(home: &Path, name: &str, options: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_hivemind")), home, name, options)
    }

    /// A node on a machine whose clock is off by this many seconds.
    pub(crate) fn start_off(home: &Path, name: &str, seconds: i32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hivemind"));
        // The library itself: its wrapper would stay between this test and the node.
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).is_file(), "faketime is installed");
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME", format!("{seconds:+}s"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self::start_by(command, home, name, &[])
    }

    pub(crate) fn start_by(mut command: Command, home: &Path, name: &str, options: &[&str]) -> Self {
        let folder = home.join(name);
        of_nobody(&mut command);
        command.args(["node", "--name", name, "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        command.args(options).arg("--data-dir");
        let process = command.arg(&folder).stdout(Stdio::null()).spawn().unwrap();
        let node = Self { folder, process };
        patiently("the node answers", || node.run(&["status"], None).0 == 0);
        node
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success());
    }

    /// Until the node has ended by itself; gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        super::wait(&mut self.process);
        self.process.wait().unwrap().code()
    }

    pub(crate) fn run(&self, arguments: &[&str], input: Option<&str>) -> (i32, String, String) {
        let mut command = hivemind(arguments);
        command.env("HIVEMIND_DATA_DIR", &self.folder);
        let output = finish(command, input.map(str::as_bytes));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str], input: Option<&str>) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat(), input);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], input: Option<&str>, words: &str) {
        let (code, _, stderr) = self.run(arguments, input);
        assert!(code == 1 && stderr.contains(words), "\"{words}\" is missing in: {stderr}");
    }

    /// Runs a client program of other people's packages against the node.
    #[track_caller]
    pub(crate) fn satisfies(&self, client: &str) {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap();
        let location: Value = serde_json::from_str(&read("api.json")).unwrap();
        let python = std::env::var("HIVEMIND_TEST_PYTHON").expect("./dev test makes a Python with the client packages");
        let mut command = Command::new(python);
        command.arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients")).join(client));
        command.arg(format!("http://{}/v1", location["address"].as_str().unwrap())).arg(read("api-token"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = finish(command, None);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout.ends_with(b"done\n"), "{stderr}");
    }

    pub(crate) fn state(&self, name: &str) -> Option<String> {
        let peers = self.json(&["peers"], None);
        let peer = peers["peers"].as_array().unwrap().iter().find(|peer| peer["name"] == name)?;
        Some(peer["state"].as_str().unwrap().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The guest joins by the host's invitation, and both owners approve.
pub(crate) fn join(host: &Node, guest: &Node, ticket: &str) {
    // From standard input, where others cannot see it.
    let asked = guest.json(&["join"], Some(ticket));
    let code = asked["code"].as_str().unwrap();
    assert_eq!(host.state("guest").as_deref(), Some("pending"));
    let mut approve = hivemind(&["approve", "guest", "--code", code]);
    let approve = approve.env("HIVEMIND_DATA_DIR", &host.folder).spawn().unwrap();
    let (exit, _, stderr) = guest.run(&["approve", asked["id"].as_str().unwrap(), "--code", code], None);
    assert_eq!(exit, 0, "{stderr}");
    assert!(approve.wait_with_output().unwrap().status.success());
    patiently("they are connected", || {
        guest.state("host").as_deref() == Some("approved") && host.state("guest").as_deref() == Some("approved")
    });
}

pub(crate) fn pair(host: &Node, guest: &Node) {
    let ticket = host.json(&["invite"], None)["ticket"].as_str().unwrap().to_owned();
    join(host, guest, &ticket);
}
