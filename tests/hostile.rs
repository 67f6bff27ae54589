//! A machine that is approved and hostile, with a client of its own against the real executable: what it can take, and what it
//! cannot keep.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{children, finish, hivemind, patiently};
use hive_net::{Endpoint, EndpointOptions, Identity, PeerAddr, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What it asks, as it travels: only the place of a variant does, so those between need no content.
#[derive(Serialize)]
#[allow(dead_code, reason = "they keep the places of the others")]
enum Question {
    Greet,
    Measure,
    Load(u128, u32, Spec),
}

#[derive(Serialize)]
struct Spec {
    source: Source,
    layers: std::ops::Range<usize>,
    compute: Compute,
    threads: usize,
    bytes: u64,
    standby: bool,
    at_load: Option<u8>,
}

#[derive(Serialize)]
#[allow(dead_code, reason = "they keep the places of the others")]
enum Source {
    Path,
    Named(Option<String>, String),
}

#[derive(Serialize)]
#[allow(dead_code, reason = "they keep the places of the others")]
enum Compute {
    Plain,
    Fast,
    Auto,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Answer {
    Greeting(String),
    Progress(usize),
    Loaded(String),
    Done,
    Report,
    Refused(String),
    Declined(String),
    At(u32),
    Taken(u32),
    Full(String),
}

struct Node {
    folder: PathBuf,
    process: Child,
}

impl Node {
    /// A node that approved `guest` before it was started.
    fn start(folder: PathBuf, guest: &Endpoint, memory: &str) -> Self {
        let entry = json!({ "standing": "approved", "name": "guest", "since": 1, "sockets": guest.addr().sockets() });
        std::fs::create_dir_all(&folder).unwrap();
        let book = json!({ "peers": { guest.id().to_text(): entry } });
        std::fs::write(folder.join("peers.json"), book.to_string()).unwrap();
        let mut command = hivemind(&["node", "--name", "ann", "--memory", memory]);
        command.args(["--bind", "127.0.0.1:0", "--api", "127.0.0.1:0", "--data-dir"]).arg(&folder);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let node = Self { folder, process };
        patiently("the node answers", || node.run(&["status"]).0 == 0);
        node
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = hivemind(arguments);
        command.env("HIVEMIND_DATA_DIR", &self.folder);
        let output = finish(command, None);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
    }

    fn addr(&self) -> PeerAddr {
        let status: Value = serde_json::from_str(&self.run(&["status", "--json"]).1).unwrap();
        let sockets = status["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().parse().unwrap());
        PeerAddr::new(status["id"].as_str().unwrap().parse().unwrap(), sockets)
    }

    #[track_caller]
    fn answer(&self) -> String {
        let (code, said) = self.run(&["chat", "--prompt", "Name three rivers.", "--max-tokens", "24"]);
        assert_eq!(code, 0, "{said}");
        said
    }

    fn workers(&self) -> usize {
        children(self.process.id()).len()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has the node load the whole starter model, and claims that it takes nothing.
async fn load(guest: &Endpoint, node: &PeerAddr, ring: u128, digest: &str) -> Answer {
    let spec = Spec {
        source: Source::Named(None, digest.to_owned()),
        layers: 0..30,
        compute: Compute::Auto,
        threads: 0,
        bytes: 0,
        standby: false,
        at_load: None,
    };
    let mut channel = guest.open(node, Protocol::Control).await.unwrap();
    channel.write_message(&Question::Load(ring, 0, spec)).await.unwrap();
    loop {
        match channel.read_message().await.unwrap().expect("it answers") {
            Answer::Progress(_) => {}
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_claims_does_not_count_and_what_it_has_ends_with_sharing() {
    let folder = tempfile::tempdir().unwrap();
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (guest, _) = Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)).await.unwrap();
    // Room for this machine's own model, one guest's, and not two.
    let node = Node::start(folder.path().join("ann"), &guest, "950MB");
    let addr = node.addr();
    guest.admission().approve(addr.id());
    let before = node.answer();
    // A node that has just been started measures its speed, in a worker that ends by itself.
    patiently("its speed is measured", || node.folder.join("speed.json").is_file() && node.workers() == 1);
    let starter = std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model");
    let digest = hive_weights::ModelFiles::open(starter.as_ref()).unwrap().digest().unwrap();
    let mut loaded = 0;
    for ring in 0..6 {
        match load(&guest, &addr, ring, &digest).await {
            Answer::Loaded(_) => loaded += 1,
            Answer::Full(why) => assert!(why.contains("950 MB given"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((loaded, node.workers()), (1, 2), "six models were asked for, for nothing each");
    assert_eq!(node.answer(), before, "the owner's conversation is as it was");

    // It stays connected and frees nothing, and the owner wants the machine back.
    let (code, said) = node.run(&["share", "off"]);
    assert_eq!(code, 0, "{said}");
    let started = Instant::now();
    patiently("the guest's stage has ended", || node.workers() == 1);
    assert!(started.elapsed() < Duration::from_secs(14), "{:?}", started.elapsed());
    assert_eq!(node.answer(), before);
}
