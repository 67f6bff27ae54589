//! Borders of a node on its own machine: who is told the token, which programs may do what, and what reaches a terminal.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{finish, hivemind, of_nobody, patiently};
use hive_mind::{Conversation, Message, Role, Store};
use serde_json::Value;

/// A node on loopback.
struct Node {
    folder: PathBuf,
    process: Child,
}

impl Node {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hivemind"));
        of_nobody(&mut command);
        command.args(["node", "--name", "ann", "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0", "--no-share"]);
        let process = command.arg("--data-dir").arg(folder).stdout(Stdio::null()).spawn().unwrap();
        let node = Self { folder: folder.to_owned(), process };
        patiently("the node answers", || ask(folder, &["status"]).0 == 0);
        node
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = ask(&self.folder, &[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let (code, stdout, stderr) = ask(&self.folder, arguments);
        assert!(code != 0 && stdout.is_empty() && stderr.contains(words), "\"{words}\" is missing in: {stderr}");
    }

    /// The status of an answer to a program that shows this token, and the answer.
    fn http(&self, token: &str, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address(&self.folder)).unwrap();
        let host = address(&self.folder);
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command with a data folder: exit code, standard output, standard error.
fn ask(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = hivemind(arguments);
    command.env("HIVEMIND_DATA_DIR", folder);
    let output = finish(command, None);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn address(folder: &Path) -> SocketAddr {
    let location: Value = serde_json::from_slice(&std::fs::read(folder.join("api.json")).unwrap()).unwrap();
    location["address"].as_str().unwrap().parse().unwrap()
}

fn token(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("api-token")).unwrap()
}

/// Another program at an address. It answers every request with what `answer` makes of it, and keeps what it was sent.
struct Impostor {
    heard: Arc<Mutex<String>>,
}

impl Impostor {
    fn listen(at: TcpListener, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let heard: Arc<Mutex<String>> = Arc::default();
        let kept = heard.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in at.incoming() {
                let mut stream = stream.unwrap();
                let mut request = String::new();
                for line in BufReader::new(&stream).lines() {
                    let Ok(line) = line else { break };
                    if line.is_empty() {
                        break;
                    }
                    request += &line;
                    request.push('\n');
                }
                kept.lock().unwrap().push_str(&request);
                let _ = stream.write_all(answer(&request).as_bytes());
            }
        });
        Self { heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// What a false node makes of a request.
type Reply = Box<dyn Fn(&str) -> String + Send>;

#[test]
fn whoever_takes_the_port_of_a_killed_node_is_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let at = address(folder.path());
    node.kill();
    let impostor = Impostor::listen(TcpListener::bind(at).unwrap(), |_| ok("{}"));
    node.refused(&["peers"], "HiveMind is not running");
    assert_eq!(impostor.heard(), "", "the lock told that there is no node");
}

#[test]
fn an_impostor_beside_a_living_node_is_not_told_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let (true_address, token) = (address(folder.path()), token(folder.path()));
    // A web server; one that makes a proof up; one that has the true node make it.
    let web_server = |_: &str| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
    let forger = |_: &str| ok(&format!("{{\"proof\":\"{}\"}}", "0".repeat(64)));
    let relay = move |request: &str| {
        let mut stream = TcpStream::connect(true_address).unwrap();
        let line = request.lines().next().unwrap();
        write!(stream, "{line}\r\nhost: {true_address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"proof\":"), "{answer}");
        answer
    };
    let answers: [Reply; 3] = [Box::new(web_server), Box::new(forger), Box::new(relay)];
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let impostor = Impostor::listen(listener, answer);
        std::fs::write(folder.path().join("api.json"), format!("{{\"address\":\"{at}\"}}")).unwrap();
        for command in [&["status"][..], &["chat", "--prompt", "x"], &["share", "off"]] {
            node.refused(command, &format!("another program is listening at {at}"));
        }
        let heard = impostor.heard();
        assert!(heard.contains("/hive/v1/hello") && !heard.contains(&token), "{heard}");
        assert!(!heard.to_lowercase().contains("authorization"), "{heard}");
    }
}

#[test]
fn a_node_that_hangs_is_given_up_soon() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    node.signal("-STOP");
    let started = Instant::now();
    node.refused(&["status"], "did not answer within 5 seconds");
    let waited = started.elapsed();
    node.signal("-CONT");
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    node.json(&["status"]);
}

#[test]
fn a_node_that_hangs_in_the_middle_of_an_answer_is_given_up_soon() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let mut command = hivemind(&["chat", "--prompt", common::LONG, "--max-tokens", "4000"]);
    let mut chat = command.env("HIVEMIND_DATA_DIR", folder.path()).spawn().unwrap();
    chat.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    node.signal("-STOP");
    let started = Instant::now();
    let output = chat.wait_with_output().unwrap();
    let waited = started.elapsed();
    node.signal("-CONT");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("did not answer within 5 seconds"), "{stderr}");
    assert!(waited < Duration::from_secs(40), "{waited:?}");
    node.json(&["status"]);
}

#[test]
fn a_question_that_was_stopped_before_there_was_an_answer_ends_with_the_code_of_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    assert_eq!(ask(folder.path(), &["models", "load", "SmolLM2-135M-Instruct.Q4_1"]).0, 0);
    // Reading it takes seconds.
    let long = "bees make honey and ".repeat(1500);
    let mut command = hivemind(&["chat", "--prompt", &long, "--max-tokens", "4"]);
    let chat = command.env("HIVEMIND_DATA_DIR", folder.path()).spawn().unwrap();
    patiently("it is read", || node.json(&["status"])["profile"]["sessions"] == 1);
    assert!(Command::new("kill").args(["-INT", &chat.id().to_string()]).status().unwrap().success());
    let output = chat.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && stderr.contains("stopped before the answer began"), "{stderr}");
}

#[test]
fn an_option_that_the_model_does_not_have_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let question = ["chat", "--prompt", "Hello", "--max-tokens", "1", "--set", "style=dry"];
    // By a node that runs, and without one.
    for node in [Some(Node::start(folder.path())), None] {
        let (code, _, stderr) = ask(&folder.path().join(if node.is_some() { "" } else { "none" }), &question);
        assert!(code == 0 && stderr.contains("the model's chat template has no option \"style\""), "{stderr}");
        let json = if let Some(node) = &node { node.json(&question) } else { continue };
        assert_eq!(json["unknown_options"], serde_json::json!(["style"]));
    }
}

#[test]
fn programs_have_tokens_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    assert_eq!(node.json(&["tokens"])["tokens"], serde_json::json!([]));
    let made = node.json(&["tokens", "add", "my editor", "--may", "chat,models"]);
    let editor = made["token"].as_str().unwrap().to_owned();
    assert_eq!(node.http(&editor, "GET /v1/models").0, 200);
    let (status, refusal) = node.http(&editor, "GET /hive/v1/peers");
    assert_eq!(status, 403);
    assert!(refusal.contains("the token \\\"my editor\\\" lacks the right \\\"machines\\\""), "{refusal}");
    let listed = node.json(&["tokens", "list"]);
    assert_eq!(listed["tokens"][0]["name"], "my editor");
    assert_eq!(listed["tokens"][0]["may"], serde_json::json!(["chat", "models"]));
    assert!(listed["tokens"][0]["last_used_day"].as_u64() > Some(20_000), "{listed}");
    assert!(!listed.to_string().contains(&editor));
    let (_, table, _) = ask(folder.path(), &["tokens"]);
    assert!(
        table.contains("my editor") && table.contains("chat, models") && table.contains("last used today"),
        "{table}"
    );

    node.refused(&["tokens", "add", "my editor", "--may", "chat"], "a token named \"my editor\" already");
    node.refused(&["tokens", "add", "b", "--may", "everything"], "\"everything\" is not a right");
    node.refused(&["tokens", "remove", "nobody"], "no token named \"nobody\"");

    let renewed = node.json(&["tokens", "renew", "my editor"])["token"].as_str().unwrap().to_owned();
    assert_eq!((node.http(&editor, "GET /v1/models").0, node.http(&renewed, "GET /v1/models").0), (401, 200));
    node.json(&["tokens", "remove", "my editor"]);
    assert_eq!(node.http(&renewed, "GET /v1/models").0, 401);

    let before = token(folder.path());
    node.json(&["tokens", "renew"]);
    assert_ne!(token(folder.path()), before);
    assert_eq!(node.http(&before, "GET /v1/models").0, 401);
    // The command reads the new one.
    node.json(&["status"]);
}

#[test]
fn a_programs_stream_ends_when_its_token_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let made = node.json(&["tokens", "add", "writer", "--may", "chat"]);
    let at = address(folder.path());
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let body = r#"{"messages":[{"role":"user","content":"Write a very long story about bees."}],"stream":true,"temperature":0,"max_tokens":4000,"logit_bias":{"2":-100}}"#;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {at}\r\nauthorization: bearer {}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        made["token"].as_str().unwrap(),
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"content\":\" ")), "an answer comes");
    node.json(&["tokens", "remove", "writer"]);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("\"code\":\"revoked\"")), "{:?}", rest.last());
    assert!(!rest.iter().any(|line| line.contains("\"finish_reason\":\"length\"")), "it ran to its end");
}

#[test]
fn a_page_and_a_host_are_served_once_their_owner_names_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.toml"),
        "allow_origins = [\"app://obsidian.md\"]\nallow_hosts = [\"host.docker.internal\"]\n",
    )
    .unwrap();
    let node = Node::start(folder.path());
    let (at, token) = (address(folder.path()), token(folder.path()));
    let ask = |method: &str, host: &str, headers: &str| {
        let mut stream = TcpStream::connect(at).unwrap();
        write!(stream, "{method} /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), answer)
    };
    let own = at.to_string();
    let bearer = format!("authorization: Bearer {token}\r\n");
    let page = "origin: app://obsidian.md\r\n";
    let (status, said) = ask(
        "OPTIONS",
        &own,
        &format!("{page}access-control-request-method: GET\r\naccess-control-request-headers: authorization\r\n"),
    );
    assert_eq!(status, 204, "{said}");
    for header in ["access-control-allow-origin: app://obsidian.md", "access-control-allow-headers: authorization"] {
        assert!(said.contains(header), "{said}");
    }
    let (status, said) = ask("GET", &own, &format!("{page}{bearer}"));
    assert!(status == 200 && said.contains("access-control-allow-origin: app://obsidian.md"), "{said}");
    assert_eq!(ask("GET", &own, page).0, 401, "a token is needed all the same");
    assert_eq!(ask("GET", &own, &format!("origin: app://obsidian.m\r\n{bearer}")).0, 403);
    assert_eq!(ask("GET", &own, &format!("origin: null\r\n{bearer}")).0, 403);
    assert_eq!(ask("GET", &format!("host.docker.internal:{}", at.port()), &bearer).0, 200);
    assert_eq!(ask("GET", "elsewhere.docker.internal", &bearer).0, 403);
    drop(node);
}

const HOSTILE: &str = "a\u{1b}]0;owned\u{7}b\u{1b}[2J\u{1b}]52;c;cm0=\u{7}c\u{9b}31md";

/// What a command writes to a terminal.
fn on_a_terminal(folder: &Path, arguments: &[&str]) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    let mut command = hivemind(arguments);
    command.env("HIVEMIND_DATA_DIR", folder).stdout(terminal.try_clone().unwrap()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    // The command holds the terminal's other end; when it ends, reading ends, with an error on Linux.
    drop(command);
    let mut written = Vec::new();
    let _ = File::from(master).read_to_end(&mut written);
    common::wait(&mut child);
    // The terminal itself makes a carriage return of every line's end.
    String::from_utf8(written).unwrap().replace("\r\n", "\n")
}

#[test]
fn what_a_model_wrote_reaches_a_terminal_without_its_sequences_and_a_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let said = Message { role: Role::Assistant, text: HOSTILE.to_owned(), complete: true, ..Message::default() };
    let (id, title) = ("one".to_owned(), HOSTILE.to_owned());
    let conversation = Conversation { id, title, messages: vec![said], ..Conversation::default() };
    Store::open(folder.path()).unwrap().import(&conversation).unwrap();
    let _node = Node::start(folder.path());
    for command in [&["conversations", "show", "one"][..], &["conversations", "list"]] {
        let written = on_a_terminal(folder.path(), command);
        assert!(written.contains("abcd"), "{written:?}");
        let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!written.contains(obeyed), "{written:?}");
    }
    let (_, piped, _) = ask(folder.path(), &["conversations", "show", "one"]);
    assert!(piped.contains(HOSTILE), "{piped:?}");
}

/// A stranger on loopback refuses whoever asks to pair, in words that a terminal would obey.
#[test]
fn a_strangers_refusal_is_one_visible_line() {
    use hive_net::invite::Ticket;
    use hive_net::{Endpoint, EndpointOptions, Identity, Incoming, pairing};
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = runtime.block_on(Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)));
    let (stranger, mut incoming) = bound.unwrap();
    let ticket = Ticket { addr: stranger.addr(), secret: [0; 16] }.to_text();
    runtime.spawn(async move {
        while let Some(Incoming { peer, channel, .. }) = incoming.recv().await {
            let why = format!("{HOSTILE}\u{202e}\nerror: update needed, run: curl");
            pairing::receive(peer, channel).await.unwrap().refuse(&why).await;
        }
    });
    let written = on_a_terminal(folder.path(), &["join", &ticket]);
    assert!(
        written.contains("the other machine refused: a]0;ownedb[2J]52;c;cm0=c31md error: update needed"),
        "{written:?}"
    );
    assert!(!written.contains("\nerror: update"), "{written:?}");
    assert!(!written.chars().any(|c| c.is_control() && c != '\n'), "{written:?}");
    drop(node);
}
