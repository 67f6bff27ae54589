//! What a model of the Hugging Face cache is called: the same name in lists, on the command line and in the API.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::loopback::Node;
use common::{finish, hivemind};
use serde_json::Value;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.\n";

fn starter() -> PathBuf {
    std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model").into()
}

/// A cache with the starter model under these names, all in one repository.
fn cache(files: &[&str]) -> tempfile::TempDir {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--someone--tiny-GGUF");
    let snapshot = folder.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(folder.join("blobs")).unwrap();
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
    for file in files {
        let blob = folder.join("blobs").join(file);
        std::fs::copy(starter(), &blob).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(file), snapshot.join(file)).unwrap();
    }
    cache
}

/// Runs a command without a node, with a model cache: exit code, standard output, standard error.
fn run(cache: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = hivemind(arguments);
    command.env("HF_HUB_CACHE", cache);
    let output = finish(command, None);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn a_downloaded_gguf_is_asked_by_the_name_of_its_repository() {
    let one = cache(&["tiny.Q4_1.gguf"]);
    let folder = one.path().join("models--someone--tiny-GGUF/snapshots").join(COMMIT);
    let commit = format!("someone/tiny-GGUF@{}", &COMMIT[..8]);
    for name in ["someone/tiny-GGUF", "hf.co/someone/tiny-GGUF:Q4_1", &commit, folder.to_str().unwrap()] {
        let (code, stdout, stderr) = run(one.path(), &["chat", name, "--prompt", QUESTION]);
        assert_eq!((code, stdout.as_str()), (0, ANSWER), "{name}: {stderr}");
    }
    let (_, plan, _) = run(one.path(), &["plan", "someone/tiny-GGUF:Q4_1"]);
    assert!(plan.starts_with("someone/tiny-GGUF: 30 layers"), "{plan}");

    let two = cache(&["tiny.Q4_1.gguf", "tiny.Q8_0.gguf"]);
    let (code, _, stderr) = run(two.path(), &["chat", "someone/tiny-GGUF", "--prompt", QUESTION]);
    let choices = "say which one: someone/tiny-GGUF:Q4_1, someone/tiny-GGUF:Q8_0";
    assert!(code == 1 && stderr.contains(choices), "{stderr}");
    let (code, _, stderr) = run(two.path(), &["chat", "someone/tiny-GGUF:Q5_K", "--prompt", QUESTION]);
    assert!(code == 1 && stderr.contains("there is someone/tiny-GGUF:Q4_1"), "{stderr}");
    let (code, stdout, stderr) = run(two.path(), &["chat", "someone/tiny-GGUF:Q8_0", "--prompt", QUESTION]);
    assert_eq!((code, stdout.as_str()), (0, ANSWER), "{stderr}");
}

#[test]
fn a_file_is_looked_for_from_where_the_user_stands_and_not_from_where_the_node_was_started() {
    let home = tempfile::tempdir().unwrap();
    let [desk, elsewhere] = ["desk", "elsewhere"].map(|name| {
        let folder = home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    });
    std::os::unix::fs::symlink(starter(), desk.join("mine.gguf")).unwrap();
    std::os::unix::fs::symlink(starter(), elsewhere.join("other.gguf")).unwrap();
    std::fs::create_dir(elsewhere.join("owner")).unwrap();
    std::os::unix::fs::symlink(starter(), elsewhere.join("owner/name")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hivemind"));
    command.current_dir(&elsewhere).env("HF_HUB_CACHE", home.path().join("cache"));
    let node = Node::start_by(command, home.path(), "ann", &["--no-share"]);
    let ask = |arguments: &[&str]| {
        let mut command = hivemind(arguments);
        command.env("HIVEMIND_DATA_DIR", &node.folder).current_dir(&desk);
        let output = finish(command, None);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for path in ["./mine.gguf", "mine.gguf", "../desk/mine.gguf"] {
        let (code, stdout, stderr) = ask(&["chat", path, "--prompt", QUESTION]);
        assert_eq!((code, stdout.as_str()), (Some(0), ANSWER), "{path}: {stderr}");
        for command in [&["plan", path][..], &["models", "load", path]] {
            let (code, _, stderr) = ask(command);
            assert_eq!(code, Some(0), "{command:?}: {stderr}");
        }
    }
    for path in ["./other.gguf", "other.gguf", "owner/name"] {
        let (code, _, stderr) = ask(&["plan", path]);
        assert!(code == Some(1) && stderr.contains(&format!("no model \"{path}\"")), "{path}: {stderr}");
    }
}

#[test]
fn a_model_has_one_name_wherever_it_is_named() {
    let two = cache(&["tiny.Q4_1.gguf", "tiny.Q8_0.gguf"]);
    let home = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hivemind"));
    command.env("HF_HUB_CACHE", two.path());
    let node = Node::start_by(command, home.path(), "ann", &["--no-share"]);
    let names = || -> Vec<String> {
        let listed = node.json(&["models", "list"], None);
        let listed = listed["models"].as_array().unwrap().iter();
        listed
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .filter(|name| name.starts_with("someone"))
            .collect()
    };
    assert_eq!(names(), ["someone/tiny-GGUF:Q4_1", "someone/tiny-GGUF:Q8_0"]);
    for name in ["someone/tiny-GGUF:Q4_1", "someone/tiny-GGUF/tiny.Q4_1.gguf", "hf.co/someone/tiny-GGUF:q4_1"] {
        let (code, stdout, stderr) = node.run(&["chat", name, "--prompt", QUESTION], None);
        assert_eq!((code, stdout.as_str()), (0, ANSWER), "{name}: {stderr}");
    }
    // All of these are one model, which is in memory once.
    assert_eq!(common::children(node.process.id()).len(), 1);
    let status = node.json(&["status"], None);
    assert_eq!(status["model"]["name"], "someone/tiny-GGUF:Q4_1");
    let in_memory = |listed: &Value| -> Vec<Value> {
        let models = listed["models"].as_array().unwrap().iter().filter(|model| model["loaded"] == true);
        models.map(|model| model["name"].clone()).collect()
    };
    assert_eq!(in_memory(&node.json(&["models", "list"], None)), ["someone/tiny-GGUF:Q4_1"]);
    // What is removed takes nothing else with it, and the other one needs no more than the repository's name.
    assert_eq!(node.run(&["models", "remove", "someone/tiny-GGUF:Q4_1"], None).0, 0);
    assert_eq!(names(), ["someone/tiny-GGUF"]);
    let left = std::fs::read_dir(two.path().join("models--someone--tiny-GGUF/blobs")).unwrap().count();
    assert_eq!(left, 1);
    assert_eq!(node.run(&["models", "remove", "someone/tiny-GGUF"], None).0, 0);
    assert!(names().is_empty() && !two.path().join("models--someone--tiny-GGUF").exists());
}
