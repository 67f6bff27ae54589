//! Malicious weight files and vocabularies: refused within moments, with no more memory than they take on disk.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use hive_text::Tokenizer;
use hive_weights::weights::Gguf;
use hive_weights::{ModelFiles, OpenError};
use serde_json::json;

/// Enough for debug builds on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A GGUF with metadata only: keys, types and values.
fn gguf(values: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let counts = [0u64.to_le_bytes(), (values.len() as u64).to_le_bytes()].concat();
    let values =
        values.iter().flat_map(|(key, kind, value)| [text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
    [b"GGUF", &3u32.to_le_bytes()[..], &counts, &values.collect::<Vec<u8>>()].concat()
}

fn array(kind: u32, count: usize, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), items].concat()
}

fn open(bytes: &[u8]) -> Result<Gguf, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path).map_err(|error| error.to_string())
}

/// This process's current memory; known on Linux only.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<usize>().ok()? << 10)
}

#[test]
fn metadata_takes_as_much_memory_as_the_file_has() {
    const BYTES: usize = 25 << 20;
    for (name, value) in [
        ("bytes", array(0, BYTES, &vec![7; BYTES])),
        ("truth values", array(7, BYTES, &vec![1; BYTES])),
        ("numbers", array(4, BYTES / 4, &vec![7; BYTES])),
        ("empty texts", array(8, BYTES / 8, &vec![0; BYTES])),
    ] {
        let (file, started) = (gguf(&[("general.data", 9, value)]), Instant::now());
        let before = resident_bytes();
        let gguf = open(&file).unwrap();
        assert!(started.elapsed() < SOON, "{name}: {:?}", started.elapsed());
        if let Some((before, after)) = before.zip(resident_bytes()) {
            let held = after.saturating_sub(before);
            assert!(held < BYTES + BYTES / 4, "{name}: {} MB", held >> 20);
        }
        assert!(gguf.value("general.data").is_some());
    }
}

#[test]
fn counts_and_names_beyond_any_real_file_are_refused() {
    let many: Vec<(String, u32, Vec<u8>)> = (0..20_000).map(|n| (n.to_string(), 0, vec![1])).collect();
    let many: Vec<_> = many.iter().map(|(key, kind, value)| (key.as_str(), *kind, value.clone())).collect();
    assert!(open(&gguf(&many)).unwrap_err().contains("20000 metadata values"));
    let name = "k".repeat(2000);
    assert!(open(&gguf(&[(&name, 0, vec![1])])).unwrap_err().contains("2000 bytes"));
    let nested = array(9, 1, &array(0, 1, &[1]));
    assert!(open(&gguf(&[("a", 9, nested)])).unwrap_err().contains("the metadata value a is of type 9"));
    // Half a character in each of two texts.
    let halves = array(8, 2, &[&1u64.to_le_bytes()[..], &[0xC3], &1u64.to_le_bytes(), &[0xA9]].concat());
    assert!(open(&gguf(&[("tokenizer.ggml.tokens", 9, halves)])).unwrap_err().contains("UTF-8"));
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused_by_name_before_anything_is_read() {
    for (number, name, together) in [(12u32, "Q4_K", 256u64), (14, "Q6_K", 256), (23, "IQ4_XS", 256), (39, "MXFP4", 32)]
    {
        for row in [together - 1, together + together / 2, u64::MAX - 1] {
            let tensor =
                [&text("blk.0.attn_q.weight")[..], &2u32.to_le_bytes(), &row.to_le_bytes(), &2u64.to_le_bytes()];
            let tensor = [&tensor.concat()[..], &number.to_le_bytes(), &0u64.to_le_bytes()].concat();
            let file = [b"GGUF", &3u32.to_le_bytes()[..], &1u64.to_le_bytes(), &0u64.to_le_bytes(), &tensor].concat();
            let why = open(&file).unwrap_err();
            let expected =
                format!("blk.0.attn_q.weight has rows of {row} numbers, but {name} stores {together} together");
            assert!(why.contains(&expected), "{why}");
        }
    }
}

#[test]
fn one_token_of_400_kb_does_not_keep_a_sentencepiece_vocabulary_from_being_read_or_refused() {
    for long in [1000, 400_000, 10_000_000] {
        let tokens = ["<unk>", "a", "aa", &"a".repeat(long)];
        let scores: Vec<u8> = [0f32; 4].iter().flat_map(|score| score.to_le_bytes()).collect();
        let file = gguf(&[
            ("tokenizer.ggml.model", 8, text("llama")),
            ("tokenizer.ggml.tokens", 9, array(8, 4, &tokens.map(text).concat())),
            ("tokenizer.ggml.scores", 9, array(6, 4, &scores)),
        ]);
        let started = Instant::now();
        let tokenizer = Tokenizer::from_gguf(&open(&file).unwrap());
        assert!(started.elapsed() < SOON, "{long}: {:?}", started.elapsed());
        assert_eq!(tokenizer.is_ok(), long == 1000, "{tokenizer:?}");
    }
}

#[test]
fn a_vocabulary_of_millions_of_empty_tokens_is_refused() {
    let file = gguf(&[
        ("tokenizer.ggml.model", 8, text("gpt2")),
        ("tokenizer.ggml.tokens", 9, array(8, 4 << 20, &vec![0; 32 << 20])),
        ("tokenizer.ggml.merges", 9, array(8, 0, &[])),
    ]);
    let why = Tokenizer::from_gguf(&open(&file).unwrap()).unwrap_err().to_string();
    assert!(why.contains("more than 1048576 tokens"), "{why}");
}

fn folder_with(name: &str, make: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32,
        "num_attention_heads": 2, "vocab_size": 4, "rms_norm_eps": 1e-5
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), [&2u64.to_le_bytes()[..], b"{}"].concat()).unwrap();
    let tokenizer = json!({ "version": "1.0", "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] } });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let _ = std::fs::remove_file(folder.path().join(name));
    make(&folder.path().join(name));
    folder
}

/// Opens everything of a model, on a thread, so that a hang cannot keep the test from failing.
fn opened(folder: &tempfile::TempDir) -> Result<(), String> {
    let (path, (done, result)) = (folder.path().to_owned(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let files = ModelFiles::open(&path).map_err(|error: OpenError| error.to_string());
        let all = files.and_then(|files| {
            let _ = files.chat_template();
            files.tokenizer().map(|_| ()).map_err(|error| error.to_string())
        });
        let _ = done.send(all);
    });
    result.recv_timeout(SOON).unwrap_or_else(|_| Err("it waits for ever".to_owned()))
}

#[test]
fn pipes_devices_and_made_up_files_in_a_models_folder_are_refused_without_waiting() {
    opened(&folder_with("none", |_| ())).unwrap();
    let names = [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "chat_template.jinja",
    ];
    for name in names.into_iter().chain(["model.safetensors", "other.safetensors"]) {
        let pipe = folder_with(name, |path| {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        });
        let why = opened(&pipe).err().unwrap_or_default();
        assert!(!why.contains("waits for ever"), "{name}: a pipe");
        for target in ["/dev/zero", "/dev/tty", "/proc/kmsg", "/proc/self/mem", "/proc/self/environ"] {
            let link = folder_with(name, |path| std::os::unix::fs::symlink(target, path).unwrap());
            let why = opened(&link).err().unwrap_or_default();
            assert!(!why.contains("waits for ever"), "{name}: {target}");
            assert!(!why.contains("PATH="), "{name}: {why}");
        }
    }
}

#[test]
fn json_nested_without_end_and_files_of_gigabytes_are_refused() {
    let deep = format!("{{\"model_type\":{}", "[".repeat(1 << 20));
    for name in ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"] {
        assert!(opened(&folder_with(name, |path| std::fs::write(path, &deep).unwrap())).is_err(), "{name}");
        // Sparse: nothing on disk, but four gigabytes for its reader.
        let hole = |path: &Path| std::fs::File::create(path).unwrap().set_len(4 << 30).unwrap();
        assert!(opened(&folder_with(name, hole)).unwrap_err().contains("not accepted"), "{name}");
    }
    let header = |path: &Path| {
        std::fs::write(path, (4u64 << 30).to_le_bytes()).unwrap();
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(8 << 30).unwrap();
    };
    assert!(opened(&folder_with("model.safetensors", header)).unwrap_err().contains("header claims"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let text_of_gigabytes = [&text("a")[..], &8u32.to_le_bytes(), &(4u64 << 30).to_le_bytes()].concat();
    let counts = [0u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
    std::fs::write(&path, [b"GGUF", &3u32.to_le_bytes()[..], &counts, &text_of_gigabytes].concat()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 30).unwrap();
    assert!(Gguf::open(&path).unwrap_err().to_string().contains("claims"));
}
