//! One model on two machines: found by what it is, and said by machine where it is missing or another; and what can be asked
//! at all is the same in lists, plans, chats and the API.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use common::lab::{Host, Lab, pair};
use common::loopback::Node;
use common::{http, patiently};
use serde_json::{Value, json};

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Where the norm of the starter's first layer begins: numbers in single precision.
const FIRST_NORM_AT: u64 = 31_866_688;

fn starter() -> PathBuf {
    std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model").into()
}

/// Another model: the starter with one number a little different. It says the same.
fn write_model(to: &Path, which: u8) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(starter(), to).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(to).unwrap();
    file.seek(SeekFrom::Start(FIRST_NORM_AT)).unwrap();
    file.write_all(&[which]).unwrap();
}

/// Where a file of a repository lies in a model cache, which says that it was downloaded.
fn in_cache(cache: &Path, repository: &str, file: &str) -> PathBuf {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let snapshot = folder.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(folder.join("refs")).unwrap();
    std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
    snapshot.join(file)
}

/// Two machines in one swarm, each with a model cache of its own.
fn two() -> (Lab, Host, Host) {
    let mut lab = Lab::new();
    lab.network("switch", &["alpha", "beta"], "10.77.0");
    let [alpha, beta] = ["alpha", "beta"].map(|name| {
        let mut host = lab.host(name, "");
        host.environment = vec![("HF_HUB_CACHE", cache_of(&lab, name))];
        std::fs::create_dir_all(&host.folder).unwrap();
        std::fs::write(host.folder.join("config.toml"), "fetch_models = false\n").unwrap();
        host.start(&lab);
        host
    });
    pair(&lab, &alpha, &beta);
    patiently("each has said which models it has", || {
        let says = |host: &Host, other: &str| host.peer(&lab, other).unwrap()["profile"]["copies"].is_array();
        says(&alpha, "beta") && says(&beta, "alpha")
    });
    (lab, alpha, beta)
}

fn cache_of(lab: &Lab, name: &str) -> PathBuf {
    lab.scratch().join(format!("cache-{name}"))
}

fn asked<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["chat", model, "--prompt", QUESTION, "--max-tokens", "20"], more].concat()
}

/// Who has computed it, and what was said.
fn answered(host: &Host, lab: &Lab, model: &str) -> (Vec<String>, String) {
    let answer = host.json(lab, &asked(model, &["--stages", "2"]));
    let stages = answer["stages"].as_array().unwrap().iter();
    (
        stages.map(|stage| stage["node"].as_str().unwrap().to_owned()).collect(),
        answer["text"].as_str().unwrap().to_owned(),
    )
}

fn by_both() -> (Vec<String>, String) {
    (vec!["alpha".to_owned(), "beta".to_owned()], ANSWER.to_owned())
}

#[test]
fn a_machine_without_the_model_is_named_with_what_to_do_and_used_for_others() {
    let (lab, alpha, _beta) = two();
    write_model(&in_cache(&cache_of(&lab, "alpha"), "owner/name", "name-Q4_1.gguf"), 1);
    let over_two = asked("owner/name", &["--stages", "2"]);
    let words = "2 machines were asked for, but only alpha can take a part: beta does not have owner/name";
    let (code, _, refusal) = alpha.try_run(&lab, &over_two);
    assert!(code == 1 && refusal.contains(words) && refusal.contains("`hf download owner/name"), "{refusal}");
    let (code, _, no_plan) = alpha.try_run(&lab, &["plan", "owner/name", "--stages", "2"]);
    assert!(code == 1 && no_plan.contains(words), "{no_plan}");
    // Alone, alpha can; the plan and the list say what beta lacks.
    assert_eq!(alpha.json(&lab, &asked("owner/name", &[]))["text"], ANSWER);
    assert!(alpha.run(&lab, &["plan", "owner/name"]).contains("beta does not have owner/name"));
    patiently("the list says so", || {
        alpha.run(&lab, &["models", "list"]).contains("    beta does not have owner/name")
    });
    // It has done nothing wrong: what it has, it computes.
    assert_eq!(answered(&alpha, &lab, "SmolLM2-135M-Instruct.Q4_1"), by_both());
    assert!(!alpha.run(&lab, &["plan"]).contains("quarantined for"), "{}", alpha.run(&lab, &["plan"]));

    // There under another name, it is the same model.
    write_model(&in_cache(&cache_of(&lab, "beta"), "else/where", "model.gguf"), 1);
    patiently("beta has it", || alpha.try_run(&lab, &over_two).0 == 0);
    assert_eq!(answered(&alpha, &lab, "owner/name"), by_both());
    assert!(!alpha.run(&lab, &["models", "list"]).contains("beta does not have"));
}

#[test]
fn a_copy_that_differs_is_said_to_differ() {
    let (lab, alpha, _beta) = two();
    for (machine, which) in [("alpha", 1), ("beta", 2)] {
        write_model(&in_cache(&cache_of(&lab, machine), "owner/name", "name-Q4_1.gguf"), which);
    }
    patiently("beta has looked at it", || {
        let (code, _, refusal) = alpha.try_run(&lab, &asked("owner/name", &["--stages", "2"]));
        code == 1
            && refusal.contains("only alpha can take a part: beta's copy of owner/name")
            && refusal.contains("differs")
    });
    assert!(alpha.run(&lab, &["plan", "owner/name"]).contains("differs from yours"));
    assert!(!alpha.run(&lab, &["plan"]).contains("quarantined for"));
}

#[test]
fn a_file_of_another_folder_is_the_same_model_once_its_machine_knows_it() {
    let (lab, alpha, beta) = two();
    let (here, there) = (lab.scratch().join("a/tuned.gguf"), lab.scratch().join("b/elsewhere/other.gguf"));
    write_model(&here, 3);
    write_model(&there, 3);
    let (code, _, refusal) = alpha.try_run(&lab, &asked(here.to_str().unwrap(), &["--stages", "2"]));
    assert!(code == 1 && refusal.contains("beta does not have tuned: copy it there"), "{refusal}");
    assert!(!refusal.contains(lab.scratch().to_str().unwrap()), "no path is told: {refusal}");
    beta.run(&lab, &["models", "load", there.to_str().unwrap()]);
    patiently("alpha knows", || alpha.try_run(&lab, &asked(here.to_str().unwrap(), &["--stages", "2"])).0 == 0);
    assert_eq!(answered(&alpha, &lab, here.to_str().unwrap()), by_both());
    // What was opened by its path is listed from then on.
    assert!(alpha.run(&lab, &["models", "list"]).contains(here.to_str().unwrap()));
}

#[test]
fn what_cannot_be_asked_is_offered_nowhere_and_has_one_reason_everywhere() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("cache");
    let config = |repository: &str, config: &Value| {
        std::fs::write(in_cache(&cache, repository, "config.json"), config.to_string()).unwrap();
    };
    config("some/embedding", &json!({ "model_type": "bert", "hidden_size": 384 }));
    std::fs::write(in_cache(&cache, "some/embedding", "model.safetensors"), "").unwrap();
    write_model(&in_cache(&cache, "some/model", "model-Q4_1.gguf"), 1);
    let cut = in_cache(&cache, "some/half", "half-Q4_1.gguf");
    write_model(&cut, 1);
    std::fs::OpenOptions::new().write(true).open(&cut).unwrap().set_len(50_000_000).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hivemind"));
    command.env("HF_HUB_CACHE", &cache);
    let node = Node::start_by(command, home.path(), "alpha", &[]);

    let (status, listed) = http::answer(&node.folder, "GET", "/v1/models", &Value::Null);
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((status, &*ids), (200, &["SmolLM2-135M-Instruct.Q4_1", "some/model"][..]));
    let listed = node.json(&["models", "list"], None);
    let list = node.run(&["models", "list"], None).1;
    for (name, why) in [("some/embedding", "\"bert\" is not supported"), ("some/half", "half-Q4_1.gguf")] {
        let model = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == name);
        let reason = model.unwrap_or_else(|| panic!("{name} is missing in {listed}"))["unusable"].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
        assert!(list.contains(&format!("cannot be loaded: {reason}")), "{list}");
        let (code, _, plan) = node.run(&["plan", name], None);
        assert!(code == 1 && plan.contains(reason), "{name}: {plan}");
        let (code, _, chat) = node.run(&["chat", name, "--prompt", QUESTION], None);
        assert!(code == 1 && chat.contains(reason) && !chat.contains("alpha"), "{name}: {chat}");
        let messages = json!([{ "role": "user", "content": QUESTION }]);
        let body = json!({ "model": name, "messages": messages });
        let (status, refused) = http::answer(&node.folder, "POST", "/v1/chat/completions", &body);
        let error = &refused["error"];
        assert_eq!(
            (status, &error["code"], &error["type"]),
            (400, &json!("model_unusable"), &json!("invalid_request_error"))
        );
        assert!(error["message"].as_str().unwrap().contains(reason), "{error}");
        let (status, refused) = http::answer(&node.folder, "GET", &format!("/v1/models/{name}"), &Value::Null);
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("model_unusable")));
    }
    let (status, _) = http::answer(&node.folder, "GET", "/v1/models/some/model", &Value::Null);
    assert_eq!(status, 200);
}
