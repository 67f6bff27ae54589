//! Wrong input gets a clear error: what happened, why, what to do; exit code 1 or 2, and nothing hangs.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{finish, hivemind, run};

#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let (found, stdout, stderr) = run(arguments, None);
    assert_eq!(found, code, "{stderr}");
    assert!(stdout.is_empty(), "{stdout}");
    for word in words {
        assert!(stderr.contains(word), "\"{word}\" is missing in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn starter() -> PathBuf {
    std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model").into()
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn settings_out_of_range() {
    refused(&["chat", "--prompt", "x", "--temperature", "-1"], 2, &["temperature is -1", "between 0 and 100"]);
    refused(&["chat", "--prompt", "x", "--top-p", "0"], 2, &["top_p is 0"]);
    refused(&["chat", "--prompt", "x", "--max-tokens", "0"], 2, &["0 tokens"]);
    refused(&["chat", "--prompt", "x", "--stages", "0"], 2, &["at least one stage"]);
    refused(&["chat", "--prompt", "x", "--stages", "31"], 2, &["31 stages", "30 layers", "at most 30"]);
    refused(&["chat", "--prompt", "x", "--stages", "-2"], 2, &["-2"]);
    refused(&["chat", "--prompt", "x", "--compute", "magic"], 2, &["plain, fast, auto"]);
    refused(&["bench", "--threads", "0"], 2, &["not a number of threads from 1 to 1024"]);
    refused(&["plan", "--stages", "99"], 2, &["99 stages"]);
    refused(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn models_that_are_not_there_or_not_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| file(folder.path(), name, bytes);
    refused(&["chat", "--prompt", "x", "no/such/model"], 1, &["no model \"no/such/model\""]);
    // A name that a hub may have.
    refused(
        &["chat", "--prompt", "x", "no/such:Q4_0"],
        1,
        &["no model \"no/such:Q4_0\"", "`hivemind models get no/such:Q4_0`"],
    );
    refused(&["chat", "--prompt", "x", "../../etc"], 1, &["no model"]);
    refused(&["chat", "--prompt", "x", &at("empty.gguf", b"")], 1, &["ends inside its header"]);
    refused(&["chat", "--prompt", "x", &at("text.gguf", b"hello, I am text")], 1, &["neither a .gguf file"]);
    refused(
        &["chat", "--prompt", "x", folder.path().to_str().unwrap()],
        1,
        &["config.json", "name one of them", "text.gguf"],
    );

    std::fs::write(folder.path().join("config.json"), r#"{"model_type":"mamba"}"#).unwrap();
    refused(&["chat", "--prompt", "x", folder.path().to_str().unwrap()], 1, &["\"mamba\"", "llama, mistral"]);
    std::fs::write(folder.path().join("config.json"), "{ not json").unwrap();
    refused(&["chat", "--prompt", "x", folder.path().to_str().unwrap()], 1, &["config.json"]);

    let mut command = hivemind(&["chat", "--prompt", "x"]);
    command.env_remove("HIVEMIND_STARTER").env("HIVEMIND_CACHE_DIR", folder.path());
    let output = finish(command, None);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && stderr.contains("starter model") && stderr.contains("./dev setup"),
        "{stderr}"
    );
}

#[test]
fn a_truncated_and_a_damaged_model() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(starter()).unwrap();
    let at = |name: &str, bytes: &[u8]| file(folder.path(), name, bytes);
    refused(
        &["chat", "--prompt", "x", &at("half.gguf", &whole[..whole.len() / 2])],
        1,
        &["past the end", "only in part"],
    );
    refused(&["chat", "--prompt", "x", &at("head.gguf", &whole[..5000])], 1, &["more than the file"]);

    let mut huge = whole[..1 << 20].to_vec();
    huge[16..24].copy_from_slice(&(1u64 << 60).to_le_bytes());
    refused(&["chat", "--prompt", "x", &at("huge.gguf", &huge)], 1, &["metadata values", "1152921504606846976"]);

    let rename = |from: &[u8], to: &[u8]| {
        let mut bytes = whole.clone();
        let found = bytes.windows(from.len()).position(|part| part == from).expect("the name is in the header");
        bytes[found..found + to.len()].copy_from_slice(to);
        bytes
    };
    let name = b"blk.7.ffn_up.weight";
    let missing = rename(name, b"blk.7.ffn_xx.weight");
    refused(&["chat", "--prompt", "x", &at("missing.gguf", &missing)], 1, &["blk.7.ffn_xx.weight", "do not have"]);
    // What no machine could load is not planned. This name is one of those that may be left out.
    let without = rename(name, b"rotary_emb.inv_freq");
    refused(&["plan", &at("without.gguf", &without)], 1, &["no tensor blk.7.ffn_up.weight", "incomplete"]);
    let mut foreign = whole.clone();
    let shape = foreign.windows(name.len()).position(|part| part == name).expect("it is in the header") + name.len();
    let kind = shape + 4 + 2 * 8;
    foreign[kind..kind + 4].copy_from_slice(&18u32.to_le_bytes());
    let words = ["blk.7.ffn_up.weight has type IQ3_XXS", "supported are F32, F16"];
    refused(&["plan", &at("foreign.gguf", &foreign)], 1, &words);
    refused(&["chat", "--prompt", "x", &at("foreign.gguf", &foreign)], 1, &words);
}

#[test]
fn a_folder_with_damaged_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type":"llama","hidden_size":64,"num_hidden_layers":1,"intermediate_size":64,
        "num_attention_heads":2,"vocab_size":8,"rms_norm_eps":1e-5}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let path = folder.path().to_str().unwrap();
    refused(&["plan", path], 1, &["no .safetensors file"]);
    let with = |header: &str, data: usize| {
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    };
    std::fs::write(folder.path().join("model.safetensors"), (1u64 << 60).to_le_bytes()).unwrap();
    refused(&["plan", path], 1, &["header claims 1152921504606846976"]);
    with("{ not json", 0);
    refused(&["plan", path], 1, &["header is corrupt"]);
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    with(overlapping, 12);
    refused(&["plan", path], 1, &["header is corrupt"]);
    with(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4);
    refused(&["plan", path], 1, &["4 bytes of tensors", "truncated"]);
    with(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    refused(&["plan", path], 1, &["a tensor \"a\" that models of its architecture do not have"]);
    with(r#"{"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    refused(&["plan", path], 1, &["no tensor model.layers.0.input_layernorm.weight"]);
    with(r#"{"model.layers.0.input_layernorm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    refused(&["plan", path], 1, &["shape [2], expected [64]"]);
    let wrong_type = r#"{"model.layers.0.input_layernorm.weight":{"dtype":"I64","shape":[64],"data_offsets":[0,512]}}"#;
    with(wrong_type, 512);
    refused(&["plan", path], 1, &["type I64", "supported"]);
}

#[test]
fn prompts_that_cannot_be_read() {
    let long = "word ".repeat(9000);
    let (code, _, stderr) = run(&["chat"], Some(long.as_bytes()));
    assert_eq!(code, 1);
    assert!(stderr.contains("of 8,192 tokens"), "{stderr}");

    let (code, _, stderr) = run(&["chat"], Some(b"\xff\xfe\xfa\n"));
    assert_eq!(code, 1);
    assert!(stderr.contains("not UTF-8"), "{stderr}");
}

#[test]
fn output_that_is_lost_is_a_failure() {
    let to = |stdout: Stdio, arguments: &[&str]| {
        let mut command = hivemind(arguments);
        command.stdout(stdout);
        let output = finish(command, None);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in
        [&["chat", "--prompt", "Hello.", "--max-tokens", "3"][..], &["plan", "--json"], &["--help"], &["--version"]]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, stderr) = to(full.into(), arguments);
        assert!(
            code == Some(1) && stderr.contains("cannot write the output: No space left"),
            "{arguments:?}: {stderr}"
        );
        // A reader who has seen enough loses nothing.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, stderr) = to(writer.into(), arguments);
        assert!(code == Some(0) && !stderr.contains("cannot write"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_prompt_may_begin_with_a_dash_an_empty_setting_is_none_and_a_file_is_found_from_where_the_user_stands() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(starter(), folder.path().join("m.gguf")).unwrap();
    let mut command =
        hivemind(&["chat", "m.gguf", "--prompt", "-5 + 3?", "--system", "- Be brief.", "--max-tokens", "3"]);
    command.env("HIVEMIND_COMPUTE", "").env("HIVEMIND_THREADS", "").current_dir(folder.path());
    let output = finish(command, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    refused(&["share", "--memory", "8"], 2, &["include a unit, as in 8GB"]);
}

#[test]
fn a_port_in_use() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["chat", "--prompt", "x", "--bind", &address], 1, &[&address, "in use", "--bind"]);
}

#[test]
fn a_worker_started_manually_says_what_it_is() {
    refused(&["worker"], 2, &["starts its workers itself"]);
}

#[test]
fn the_starter_model_without_a_network_or_a_place_to_put_it() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/fetch-starter");
    let folder = tempfile::tempdir().unwrap();
    let fetch = |to: &Path| {
        let mut command = std::process::Command::new(script);
        // pip with nothing to ask is pip without a network.
        command.arg(to).env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", "").stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let output = finish(command, None);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stderr = fetch(&folder.path().join("starter/model.gguf"));
    assert!(stderr.contains("could not download") && stderr.contains("hint: check the network"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path().join("starter")).unwrap().count(), 0, "nothing half done is left");
    let stderr = fetch(Path::new("/proc/nowhere/model.gguf"));
    assert!(stderr.contains("cannot create /proc/nowhere"), "{stderr}");
}

#[test]
fn whom_the_api_cannot_let_in_is_refused_before_the_node_starts() {
    let folder = tempfile::tempdir().unwrap();
    let node = |options: &[&str], words: &[&str]| {
        let data = ["node", "--bind", "127.0.0.1:0", "--data-dir", folder.path().to_str().unwrap()];
        refused(&[&data, options].concat(), 2, words);
    };
    node(&["--allow-origin", "*"], &["every page", "one by one"]);
    node(&["--allow-origin", "https://a.example/path"], &["https://a.example/path", "without a path"]);
    node(&["--allow-host", "*.example.org"], &["\"*.example.org\" is no host"]);
    std::fs::write(folder.path().join("config.toml"), "allow_origins = [\"obsidian\"]\n").unwrap();
    node(&[], &["\"obsidian\" is no origin", "app://obsidian.md"]);
}

#[test]
fn a_node_that_does_not_start_says_why_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sharing.json"), "{ half").unwrap();
    let start = |variables: &[(&str, &str)]| {
        let mut command = hivemind(&["node", "--bind", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
        command.env("HIVEMIND_DATA_DIR", folder.path()).envs(variables.iter().copied());
        let output = finish(command, None);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = start(&[]);
    assert!(stderr.starts_with("error: ") && stderr.contains("sharing.json"), "{stderr}");
    // What the log says beside it has colours on a terminal only, or where somebody wants them.
    let escapes = |variables: &[(&str, &str)]| {
        let stderr = start(&[&[("RUST_LOG", "trace")], variables].concat());
        assert!(stderr.contains("TRACE"), "{stderr}");
        stderr.contains('\u{1b}')
    };
    let forced = ("CLICOLOR_FORCE", "1");
    assert_eq!((escapes(&[]), escapes(&[forced]), escapes(&[forced, ("NO_COLOR", "1")])), (false, true, false));

    // Nor does the first of two nodes leave words behind when the second one cannot start.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let before = taken.local_addr().unwrap().port() - 1;
    let bind = format!("127.0.0.1:{before}");
    let (code, _, stderr) = run(&["chat", "--prompt", "x", "--stages", "2", "--bind", &bind], None);
    assert!(code == 1 && stderr.contains("in use") && !stderr.contains("ungracefully"), "{stderr}");
}
