//! GGUF models in several files: opened as one from any of them, or refused with the name of the one that is at fault.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use hive_weights::ModelFiles;
use hive_weights::weights::Gguf;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integer(key: &str, number: u32) -> Vec<u8> {
    [text(key), 4u32.to_le_bytes().to_vec(), number.to_le_bytes().to_vec()].concat()
}

/// The metadata of a model.
fn model() -> Vec<Vec<u8>> {
    vec![
        [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat(),
        integer("llama.block_count", 2),
        integer("llama.embedding_length", 64),
        integer("llama.feed_forward_length", 128),
        integer("llama.attention.head_count", 4),
        integer("llama.vocab_size", 100),
        [text("llama.attention.layer_norm_rms_epsilon"), 6u32.to_le_bytes().to_vec(), 1e-5f32.to_le_bytes().to_vec()]
            .concat(),
    ]
}

/// A file with norms: each has 64 times this number.
fn file(metadata: &[Vec<u8>], norms: &[(&str, f32)]) -> Vec<u8> {
    let counts = [norms.len(), metadata.len()].map(|count| (count as u64).to_le_bytes()).concat();
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts, &metadata.concat()].concat();
    for (place, (name, _)) in norms.iter().enumerate() {
        let shape = [&1u32.to_le_bytes()[..], &64u64.to_le_bytes(), &0u32.to_le_bytes()].concat();
        file.extend([text(name), shape, (256 * place as u64).to_le_bytes().to_vec()].concat());
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(norms.iter().flat_map(|(_, number)| number.to_le_bytes().repeat(64)));
    file
}

fn split(place: u32, count: u32, tensors: u32) -> Vec<Vec<u8>> {
    vec![integer("split.no", place), integer("split.count", count), integer("split.tensors.count", tensors)]
}

const NORMS: [&str; 3] = ["blk.0.attn_norm.weight", "blk.1.attn_norm.weight", "output_norm.weight"];

fn part(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("model-0000{number}-of-00003.gguf"))
}

/// A model in three files, with a norm in each.
fn three() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (place, norm) in NORMS.iter().enumerate() {
        let described = if place == 0 { model() } else { Vec::new() };
        let metadata = [described, split(place as u32, 3, 3)].concat();
        std::fs::write(part(folder.path(), place + 1), file(&metadata, &[(norm, place as f32)])).unwrap();
    }
    folder
}

fn why(path: &Path) -> String {
    ModelFiles::open(path).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = three();
    let whole = folder.path().join("whole.gguf");
    let norms: Vec<_> = NORMS.iter().enumerate().map(|(place, norm)| (*norm, place as f32)).collect();
    std::fs::write(&whole, file(&model(), &norms)).unwrap();
    let digest = ModelFiles::open(&whole).unwrap().digest().unwrap();
    for number in 1..=3 {
        let files = ModelFiles::open(&part(folder.path(), number)).unwrap();
        assert_eq!((files.name(), files.config().layers), ("model".to_owned(), 2));
        assert_eq!(files.digest().unwrap(), digest, "the same model as in one file");
        for (place, norm) in
            ["model.layers.0.input_layernorm", "model.layers.1.input_layernorm", "model.norm"].iter().enumerate()
        {
            let values = files.weights().vector(&format!("{norm}.weight"), 64).unwrap().to_f32();
            assert_eq!(values, [place as f32; 64], "{norm}");
        }
        assert_eq!(Gguf::open(&part(folder.path(), number)).unwrap().path(), part(folder.path(), 1));
    }
    // So is a model in one part.
    let only = folder.path().join("other-00001-of-00001.gguf");
    std::fs::write(&only, file(&[model(), split(0, 1, 3)].concat(), &norms)).unwrap();
    assert_eq!(ModelFiles::open(&only).unwrap().name(), "other");
}

#[test]
fn a_part_that_is_missing_truncated_or_a_pointer_is_named() {
    let folder = three();
    let second = std::fs::read(part(folder.path(), 2)).unwrap();
    std::fs::remove_file(part(folder.path(), 2)).unwrap();
    for number in [1, 3] {
        let why = why(&part(folder.path(), number));
        assert!(why.contains("model-00002-of-00003.gguf is missing: the model is in 3 files"), "{why}");
    }
    std::os::unix::fs::symlink("../../blobs/gone", part(folder.path(), 2)).unwrap();
    assert!(why(&part(folder.path(), 1)).contains("model-00002-of-00003.gguf is missing"), "a link to nothing");
    std::fs::remove_file(part(folder.path(), 2)).unwrap();
    std::fs::write(part(folder.path(), 2), &second[..second.len() - 1]).unwrap();
    let truncated = why(&part(folder.path(), 1));
    let said = "model-00002-of-00003.gguf: tensor blk.1.attn_norm.weight reaches past the end of the file";
    assert!(truncated.contains(said), "{truncated}");
    std::fs::write(part(folder.path(), 2), &second[..20]).unwrap();
    assert!(why(&part(folder.path(), 1)).contains("model-00002-of-00003.gguf: "), "inside its header");
    std::fs::write(part(folder.path(), 2), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        .unwrap();
    assert!(why(&part(folder.path(), 1)).contains("model-00002-of-00003.gguf: it is a Git LFS pointer"));
    std::fs::remove_file(part(folder.path(), 2)).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(part(folder.path(), 2)).status().unwrap().success());
    assert!(why(&part(folder.path(), 1)).contains("model-00002-of-00003.gguf: "), "a pipe");
}

#[test]
fn a_part_of_another_model_is_named() {
    for (metadata, norm, said) in [
        (split(1, 3, 4), NORMS[1], "model-00002-of-00003.gguf is of a model with another number of tensors"),
        (split(1, 2, 3), NORMS[1], "model-00002-of-00003.gguf is one of 2 parts, but the others are of 3"),
        (split(2, 3, 3), NORMS[1], "model-00002-of-00003.gguf is named as part 2, but is another"),
        (Vec::new(), NORMS[1], "model-00002-of-00003.gguf is one of 1 parts, but the others are of 3"),
        (
            split(1, 3, 3),
            NORMS[0],
            "model-00002-of-00003.gguf and model-00001-of-00003.gguf both have tensor blk.0.attn_norm.weight",
        ),
    ] {
        let folder = three();
        std::fs::write(part(folder.path(), 2), file(&metadata, &[(norm, 1.0)])).unwrap();
        let why = why(&part(folder.path(), 1));
        assert!(why.contains(said), "{why}");
    }
    let folder = three();
    let two = [(NORMS[1], 1.0), ("blk.1.ffn_norm.weight", 1.0)];
    std::fs::write(part(folder.path(), 2), file(&split(1, 3, 3), &two)).unwrap();
    let why = why(&part(folder.path(), 1));
    assert!(why.contains("the 3 parts have 4 tensors, but the model has 3: one is of another model"), "{why}");
}

#[test]
fn a_count_that_lies_and_a_name_that_was_changed_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, count: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, file(&[model(), split(0, count, 1)].concat(), &[(NORMS[0], 1.0)])).unwrap();
        why(&path)
    };
    let lie = refused("model-00001-of-00002.gguf", 3);
    assert!(lie.contains("its name says that it is one of 2 parts, but its metadata says 3"), "{lie}");
    let renamed = refused("model.gguf", 3);
    assert!(renamed.contains("its name does not end in -00001-of-00003.gguf or the like"), "{renamed}");
    for many in [129, 65_535, u32::MAX] {
        let many = refused("model-00001-of-99999.gguf", many);
        assert!(many.contains("more than 128 are not accepted"), "{many}");
    }
}

#[test]
fn a_type_that_is_not_read_is_named_in_any_part() {
    let folder = three();
    let mut third = std::fs::read(part(folder.path(), 3)).unwrap();
    let name = third.windows(NORMS[2].len()).position(|bytes| bytes == NORMS[2].as_bytes()).unwrap();
    // After one dimension.
    let kind = name + NORMS[2].len() + 4 + 8;
    third[kind..kind + 4].copy_from_slice(&16u32.to_le_bytes());
    std::fs::write(part(folder.path(), 3), third).unwrap();
    let why = why(&part(folder.path(), 1));
    assert!(why.contains("tensor output_norm.weight has type IQ2_XXS, which is not supported"), "{why}");
}
