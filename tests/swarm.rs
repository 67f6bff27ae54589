//! Swarms of real nodes on this machine, asked through the command line.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{children, hivemind, run};
use serde_json::Value;

const QUESTION: &str = "What is the capital of France?";

fn answer(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(&[&["chat", "--json"], arguments].concat(), None);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "one object and nothing else: {stdout}");
    serde_json::from_str(&stdout).expect("standard output is JSON")
}

fn reference() -> Value {
    serde_json::from_str(include_str!("oracle/reference.json")).expect("the reference is JSON")
}

#[test]
fn the_answer_is_mlx_lms_on_any_number_of_stages() {
    let reference = reference();
    for (index, stages) in [1, 2, 3, 5].into_iter().enumerate() {
        let case = &reference["greedy"][index];
        let prompt = case["prompt"].as_str().unwrap();
        let answer = answer(&["--prompt", prompt, "--max-tokens", "64", "--stages", &stages.to_string()]);
        assert_eq!(answer["tokens"], case["tokens"], "{stages} stages");
        assert_eq!(answer["prompt_tokens"], case["prompt_tokens"].as_array().unwrap().len());
        assert_eq!(answer["completion_tokens"], case["tokens"].as_array().unwrap().len());
        let placed = answer["stages"].as_array().unwrap();
        assert_eq!(placed.len(), stages);
        // Every layer once, in order.
        let mut next = 0;
        for stage in placed {
            assert_eq!(stage["layers"][0], next);
            next = stage["layers"][1].as_u64().unwrap();
        }
        assert_eq!(next, 30);
        assert!(answer["ttft_ms"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_plain_kernels_answer_the_same_over_two_stages() {
    let answer = answer(&["--prompt", QUESTION, "--stages", "2", "--compute", "plain"]);
    assert_eq!(answer["text"], "The capital of France is Paris.");
    assert_eq!(answer["finish_reason"], "stop");
}

#[test]
fn a_seeded_sample_is_the_same_text_on_one_and_three_stages() {
    let ask = |stages: &str, seed: &str| {
        let sampling = ["--temperature", "0.8", "--seed", seed, "--max-tokens", "40", "--stages", stages];
        answer(&[&["--prompt", "Tell me a story."], &sampling[..]].concat())["text"].clone()
    };
    let one = ask("1", "7");
    assert_eq!(ask("3", "7"), one);
    assert_ne!(ask("1", "8"), one, "another seed, another text");
}

#[test]
fn a_long_prompt_travels_in_chunks_and_gives_the_same_answer() {
    let prompt =
        format!("Repeat the last word. {} Which city is the capital of France?", "Bees make honey. ".repeat(150));
    let ask = |stages: &str| answer(&["--prompt", &prompt, "--max-tokens", "12", "--stages", stages]);
    let one = ask("1");
    assert!(one["prompt_tokens"].as_u64().unwrap() > 512, "{one}");
    assert_eq!(ask("3")["tokens"], one["tokens"]);
}

#[test]
fn a_pipe_gets_an_answer_to_each_line_and_the_conversation_is_kept() {
    let input = b"What is the capital of France?\n\nAnd of Germany?\n";
    let (code, stdout, stderr) = run(&["chat", "--lines", "--stages", "2", "--json"], Some(input));
    assert_eq!(code, 0, "{stderr}");
    let answers: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2, "an empty line asks nothing");
    assert!(answers[0]["text"].as_str().unwrap().contains("Paris"));
    assert!(answers[1]["text"].as_str().unwrap().contains("Berlin"), "{}", answers[1]);
    assert!(answers[1]["prompt_tokens"].as_u64() > answers[0]["prompt_tokens"].as_u64());
}

#[test]
fn what_is_piped_in_is_one_question_with_the_prompt_before_it() {
    for (arguments, input) in [
        (&["chat", "--stages", "2"][..], "What is the\ncapital of France?\n"),
        (&["chat", "--prompt", "What is the"], "capital of France?"),
        (&["chat", "--prompt", "What is the capital of France?"], ""),
    ] {
        let (code, stdout, stderr) = run(arguments, Some(input.as_bytes()));
        assert_eq!((code, stdout.as_str()), (0, "The capital of France is Paris.\n"), "{stderr}");
    }
    // A program that leaves its pipe open is not waited for.
    let mut command = hivemind(&["chat", "--prompt", "What is the capital of France?"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let _open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "The capital of France is Paris.\n");
    let (code, _, stderr) = run(&["chat"], Some(b" \n"));
    assert!(code == 2 && stderr.contains("no question was given"), "{code} {stderr}");
}

#[test]
fn stop_texts_and_lengths_end_an_answer() {
    let stopped = answer(&["--prompt", QUESTION, "--stop", "France"]);
    assert_eq!(stopped["text"], "The capital of ");
    assert_eq!(stopped["finish_reason"], "stop");
    let cut = answer(&["--prompt", QUESTION, "--max-tokens", "3", "--stages", "2"]);
    assert_eq!(cut["text"], "The capital of");
    assert_eq!(cut["finish_reason"], "length");
}

/// The workers of one `hivemind` process.
fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().expect("kill runs").success());
}

#[test]
fn an_answer_goes_on_when_a_worker_dies_again_and_again() {
    let ask = || {
        hivemind(&[
            "chat",
            "--stages",
            "3",
            "--prompt",
            common::LONG,
            "--temperature",
            "0",
            "--max-tokens",
            "400",
            "--json",
        ])
        .spawn()
        .unwrap()
    };
    let answer = |child: std::process::Child| -> serde_json::Value {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let undisturbed = answer(ask());
    let child = ask();
    let mut killed = Vec::new();
    // The first stage, the last one, and the one between; each time another set of workers.
    for which in [0, 2, 1] {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let mut workers = children(child.id());
        workers.sort_unstable();
        if let Some(worker) = workers.get(which) {
            signal("-KILL", *worker);
            killed.push(*worker);
        }
    }
    assert!(!killed.is_empty(), "the answer was over before a worker could be killed");
    let disturbed = answer(child);
    assert_eq!(disturbed["tokens"], undisturbed["tokens"]);
    assert_eq!(disturbed["stages"], undisturbed["stages"], "each worker was started again where it was");
    assert_gone(&killed);
}

#[test]
fn a_worker_that_dies_between_two_questions_or_while_it_loads_is_started_again() {
    let mut command = hivemind(&["chat", "--lines", "--stages", "2", "--temperature", "0"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let (mut questions, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    common::patiently("a worker starts", || !children(id).is_empty());
    signal("-KILL", children(id)[0]);
    let mut ask = |question: &str| {
        let mut answer = String::new();
        writeln!(questions, "{question}").unwrap();
        answers.read_line(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask(QUESTION), "The capital of France is Paris.\n");
    let first = children(id);
    assert_eq!(first.len(), 2);
    signal("-KILL", first[0]);
    common::patiently("it is started again", || {
        let now = children(id);
        now.len() == 2 && now.contains(&first[1]) && !now.contains(&first[0])
    });
    assert!(ask("And of Germany?").contains("Berlin"));
    drop(questions);
    assert!(child.wait().unwrap().success());
}

#[test]
fn workers_end_with_their_node_even_if_it_is_killed() {
    let mut child =
        hivemind(&["chat", "--stages", "3", "--prompt", common::LONG, "--max-tokens", "4000"]).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let workers = children(child.id());
    let texts = common::text_workers(child.id());
    assert_eq!((workers.len(), texts.len()), (3, 1));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&workers);
    assert_gone(&texts);
}

/// Much of the speed is owed to these, and nothing but a benchmark would miss them.
#[test]
fn a_workers_weights_lie_in_large_pages_and_its_helpers_keep_off_the_core_of_the_one_they_help() {
    let arguments = ["chat", "--threads", "2", "--prompt", common::LONG, "--max-tokens", "4000"];
    let mut child = hivemind(&arguments).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let worker = children(child.id())[0];
    let environment = std::fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    assert!(environment.contains("GLIBC_TUNABLES=glibc.malloc.hugetlb=1"), "{environment}");
    let cores = |status: &Path| {
        let status = std::fs::read_to_string(status).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap_or_default().to_owned();
        mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum::<u32>()
    };
    let all = cores(Path::new(&format!("/proc/{worker}/status")));
    assert!(all > 1, "this machine has one core, and nothing to keep apart");
    common::patiently("its helper has all cores but one", || {
        let threads = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap();
        threads.filter_map(Result::ok).any(|thread| cores(&thread.path().join("status")) == all - 1)
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[track_caller]
fn assert_gone(workers: &[u32]) {
    for _ in 0..500 {
        let alive = |worker: &&u32| {
            // A zombie is gone; whoever adopted it has not looked yet.
            let state = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            !state.is_empty() && !state.contains(") Z ")
        };
        if workers.iter().filter(alive).count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("workers are left: {workers:?}");
}

#[test]
fn ctrl_c_in_a_pipe_stops_the_answer_and_keeps_what_came() {
    let mut child = hivemind(&["chat", "--prompt", common::LONG, "--max-tokens", "4000"]).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    signal("-INT", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bench_reports_every_figure() {
    let arguments =
        ["--stages", "2", "--beside", "1", "--prompt-tokens", "40", "--tokens", "8", "--repeat", "2", "--json"];
    let (code, stdout, stderr) = run(&[&["bench"], arguments.as_slice()].concat(), None);
    assert_eq!(code, 0, "{stderr}");
    let bench: Value = serde_json::from_str(&stdout).unwrap();
    let beside = &bench["beside"];
    assert_eq!((bench["stages"].as_array().unwrap().len(), beside["stages"].as_array().unwrap().len()), (2, 1));
    assert!(
        beside["decode_ratio"].as_f64().unwrap() > 0.0 && beside["prefill_ratio"].as_f64().unwrap() > 0.0,
        "{beside}"
    );
    for key in ["prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "hop_us", "link_round_trip_us"] {
        assert!(bench[key].as_f64().unwrap() > 0.0, "{key}: {bench}");
    }
    for stage in bench["stages"].as_array().unwrap() {
        // A stage's memory: its own weights, its cache, and a fixed base.
        let allowed = stage["weight_bytes"].as_u64().unwrap() + stage["kv_bytes"].as_u64().unwrap() + 150 * 1_000_000;
        let peak = stage["peak_bytes"].as_u64().unwrap();
        assert!(peak > 0 && peak <= allowed, "{stage}");
    }
}

#[test]
fn plan_places_every_layer_once() {
    let (code, stdout, _) = run(&["plan", "--stages", "7", "--json"], None);
    assert_eq!(code, 0);
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    let mut next = 0;
    for stage in plan["stages"].as_array().unwrap() {
        assert_eq!(stage["layers"][0], next);
        next = stage["layers"][1].as_u64().unwrap();
    }
    assert_eq!(next, 30);
}

#[test]
fn doctor_finds_this_machine_in_order() {
    let (code, stdout, stderr) = run(&["doctor", "--json"], None);
    assert_eq!(code, 0, "{stderr}{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let subjects: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|c| c["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["MLX", "compute", "sandbox", "memory", "model", "network"]);
}

#[test]
fn an_answer_streams_while_it_is_computed() {
    let mut child = hivemind(&["chat", "--prompt", common::LONG, "--max-tokens", "200"]).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(child.try_wait().unwrap().is_none(), "the first line comes before the end: {first}");
    child.kill().unwrap();
    child.wait().unwrap();
}
