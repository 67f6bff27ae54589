//! What strangers wrote is read in processes that may die and reach nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::lab::Lab;
use common::{children, finish, gguf, hivemind, patiently, text_workers};
use serde_json::Value;

const STORY: &str = "Write a long story about a bear.";

fn starter() -> PathBuf {
    std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model").into()
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().expect("kill runs").success());
}

fn long_answer() -> Child {
    let arguments = ["chat", "--prompt", STORY, "--max-tokens", "400", "--json"];
    hivemind(&arguments).env("HF_TOKEN", "secret").spawn().unwrap()
}

#[track_caller]
fn answered(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_worker_that_tries_to_break_out_reaches_nothing() {
    // With a file open that is nobody's business, and a secret in the environment.
    let mut command = Command::new("sh");
    let line = format!("exec 7</etc/hostname; exec {} doctor --json", env!("CARGO_BIN_EXE_hivemind"));
    command.args(["-c", &line]).env("HF_TOKEN", "secret").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command, None);
    let found = String::from_utf8(output.stdout).unwrap();
    let sandbox = found.lines().find(|line| line.contains("sandbox")).unwrap_or_else(|| panic!("{found}"));
    assert!(sandbox.contains("reach nothing else"), "{sandbox}");
}

#[test]
fn no_worker_of_a_node_has_its_environment_its_files_or_the_network() {
    let mut child = long_answer();
    patiently("both kinds of worker run", || !children(child.id()).is_empty() && !text_workers(child.id()).is_empty());
    for worker in [children(child.id())[0], text_workers(child.id())[0]] {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{worker}/{name}")).unwrap();
        patiently("it is confined", || read("status").contains("Seccomp:\t2"));
        assert!(read("status").contains("NoNewPrivs:\t1"));
        let environment = read("environ");
        let names = ["HOME=", "HIVEMIND_", "HF_TOKEN="];
        assert!(!names.iter().any(|name| environment.contains(name)), "{environment}");
        let core = read("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        assert_eq!(core.split_whitespace().rev().nth(1), Some("0"), "{core}");
        let open = std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
        let open: Vec<_> = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        let is_own = |file: &PathBuf| file.to_string_lossy().starts_with("pipe:") || *file == starter();
        assert!(open.iter().all(is_own), "{open:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_answer_goes_on_when_the_process_that_spells_it_dies_or_hangs() {
    let tell = || hivemind(&["chat", "--prompt", STORY, "--max-tokens", "400"]).spawn().unwrap();
    let undisturbed = tell().wait_with_output().unwrap().stdout;
    assert!(undisturbed.len() > 1200, "the story is too short to be disturbed");
    let mut child = tell();
    let (mut said, mut heard) = (child.stdout.take().unwrap(), Vec::new());
    for (name, bytes) in [("-KILL", 100), ("-KILL", 400), ("-STOP", 800)] {
        let mut more = vec![0; bytes - heard.len()];
        said.read_exact(&mut more).unwrap();
        heard.extend(more);
        // While it writes, the one process that spells is there.
        signal(name, text_workers(child.id())[0]);
    }
    said.read_to_end(&mut heard).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&undisturbed));
}

#[test]
fn a_model_that_brings_its_reader_down_costs_one_clear_error_and_nobody_elses_answer() {
    let mut lab = Lab::new();
    lab.machine("ann");
    let ann = lab.node("ann", "");
    let undisturbed = ann.ask(&lab, STORY, 200, 1);
    let folder = lab.scratch();
    let hostile = [
        ("minus", format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
        ("deep", format!("{{{{ {}{} }}}}", "[".repeat(90_000), "]".repeat(90_000))),
        ("wide", "{{ '{:>2000000000}'.format(1) }}".to_owned()),
        (
            "twice",
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}"
                .to_owned(),
        ),
    ];
    let arguments = ["chat", "--prompt", STORY, "--max-tokens", "200", "--json"];
    let mut answering = ann.command(&lab, &arguments);
    let answering = answering.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for (name, template) in hostile {
        let model = folder.join(format!("{name}.gguf"));
        gguf::with_template(&starter(), &model, &template);
        let (code, stdout, stderr) = ann.try_run(&lab, &["chat", "--prompt", "x", model.to_str().unwrap()]);
        assert_eq!(code, 1, "{name}: {stdout} {stderr}");
        assert!(stderr.contains("template") || stderr.contains("damaged or hostile"), "{name}: {stderr}");
        std::fs::remove_file(model).unwrap();
    }
    assert_eq!(answered(answering)["tokens"], undisturbed["tokens"]);
    // The very process, and it still answers.
    assert_eq!(ann.ask(&lab, STORY, 200, 1)["tokens"], undisturbed["tokens"]);
}

#[test]
fn a_model_in_several_files_answers_as_in_one_and_confined_workers_reach_all_of_them() {
    let lab = Lab::new();
    let parts = gguf::in_two(&starter(), &lab.scratch(), "bear");
    let ask = |model: &str| {
        let arguments = ["chat", "--prompt", STORY, "--max-tokens", "20", "--temperature", "0", "--json", model];
        answered(hivemind(&arguments).spawn().unwrap())
    };
    let expected = ask(starter().to_str().unwrap());
    assert_eq!(expected["tokens"].as_array().map(Vec::len), Some(20), "{expected}");
    for part in &parts {
        assert_eq!(ask(part.to_str().unwrap())["tokens"], expected["tokens"]);
    }
    std::fs::remove_file(&parts[1]).unwrap();
    let output = hivemind(&["chat", "--prompt", "x", parts[0].to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("bear-00002-of-00002.gguf is missing"), "{said}");
}

#[test]
fn a_node_whose_executable_was_replaced_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (exe, data) = (folder.path().join("hivemind"), folder.path().join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_hivemind"), &exe).unwrap();
    let mut node = Command::new(&exe);
    node.args(["node", "--lan-only", "--api", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let mut node = node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    patiently("the node answers", || data.join("api.json").exists());
    // As an update does it: another file under the same name.
    std::fs::write(folder.path().join("new"), "#!/bin/false\n").unwrap();
    std::fs::rename(folder.path().join("new"), &exe).unwrap();
    let mut ask = hivemind(&["chat", "--prompt", "What is the capital of France?"]);
    ask.env("HIVEMIND_DATA_DIR", &data);
    let output = finish(ask, None);
    node.kill().unwrap();
    node.wait().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "The capital of France is Paris.\n", "{output:?}");
}

/// What reads a model's files stands in `serve.rs` of each worker, which runs nowhere else.
#[test]
fn the_node_itself_parses_no_file_of_strangers() {
    fn look(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            let runs_in_workers = ["worker/serve", "worker/serve.rs", "worker/text/serve.rs", "worker/text/card.rs"];
            let runs_in_workers = runs_in_workers.iter().any(|file| entry.ends_with(file));
            if entry.is_dir() && !runs_in_workers {
                look(&entry, found);
            } else if entry.extension().is_some_and(|kind| kind == "rs") && !runs_in_workers {
                let source = std::fs::read_to_string(&entry).unwrap();
                let names = source.split(|c: char| !c.is_alphanumeric() && c != '_');
                let parsers = names.filter(|name| ["ModelFiles", "ChatTemplate", "Tokenizer"].contains(name));
                found.extend(parsers.map(|name| format!("{name} in {entry:?}")));
                let modules = ["hive_text::tokenizer", "hive_weights::weights"].into_iter();
                found.extend(modules.filter(|name| source.contains(name)).map(|name| format!("{name} in {entry:?}")));
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    // Every crate but those that workers are made of, and the one that only a command calls, in its own process.
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let reads =
            ["hive-model", "hive-weights", "hive-text", "hive-worker", "hive-kernels", "hive-quantize", "mlx-sys"];
        if !reads.iter().any(|name| folder.ends_with(name)) {
            look(&folder.join("src"), &mut found);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for entry in std::fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([root.join("src-tauri")])
    {
        if !["hivemind", "hive-node", "hive-quantize"].iter().any(|name| entry.ends_with(name)) {
            who_names("hive_quantize", &entry.join("src"), &mut found);
            who_names("hive_node::quantize", &entry.join("src"), &mut found);
        }
    }
    assert!(found.is_empty(), "only a command quantizes: {found:#?}");
}

/// The Rust files of a folder that have these words.
fn who_names(words: &str, folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if entry.is_dir() {
            who_names(words, &entry, found);
        } else if std::fs::read_to_string(&entry).is_ok_and(|source| source.contains(words)) {
            found.push(format!("{words} in {}", entry.display()));
        }
    }
}
