//! Machines that have only parts of a model's files: every family's stages load from a copy with garbage wherever a stage
//! does not say that it needs the bytes, and the digest is that of the whole.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, dead_code)]

#[path = "common/agreement.rs"]
mod agreement;
#[path = "common/formula.rs"]
mod formula;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use agreement::Fixture;
use hive_model::shard::{Input, Output};
use hive_model::{Compute, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::{Extent, ModelFiles};

const TOKENS: [u32; 7] = [5, 17, 3, 44, 8, 29, 11];

/// A copy of a model with only these bytes of its weights; the others are as far from zero as can be.
fn copy_of(model: &Path, extents: &[Extent], to: &Path) -> PathBuf {
    let folder = if model.is_dir() { model } else { model.parent().unwrap() };
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_weights = path.extension().is_some_and(|kind| kind == "safetensors" || kind == "gguf");
        if !is_weights {
            fs::copy(&path, to.join(&name)).unwrap();
            continue;
        }
        let whole = fs::read(&path).unwrap();
        fs::write(to.join(&name), vec![0xff; whole.len()]).unwrap();
        let part = fs::OpenOptions::new().write(true).open(to.join(&name)).unwrap();
        for extent in extents.iter().filter(|extent| extent.file == name) {
            let bytes = extent.bytes.start as usize..extent.bytes.end as usize;
            part.write_all_at(&whole[bytes], extent.bytes.start).unwrap();
        }
    }
    if model.is_dir() { to.to_owned() } else { to.join(model.file_name().unwrap()) }
}

fn bytes(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.bytes.end - extent.bytes.start).sum()
}

fn forward(shard: &mut Shard, input: Input) -> Output {
    let session = SessionId(1);
    shard.open(session, SessionOptions::default()).unwrap();
    shard.forward(&[Slot { session, position: 0, input, sample: true }]).remove(0).unwrap()
}

/// What the model's stages give from copies that have only their own bytes, beside what the whole gives.
fn compared(model: &Path, compute: Compute) {
    let whole = ModelFiles::open(model).unwrap();
    let layers = whole.config().layers;
    let uncut = whole.config().uncut();
    let cut = (1..layers).find(|cut| !uncut.contains(cut));
    let stages =
        [0..cut.unwrap_or(layers), cut.unwrap_or(layers)..layers].into_iter().filter(|stage| !stage.is_empty());
    let mut inputs: [Input; 2] = std::array::from_fn(|_| Input::Tokens(TOKENS.to_vec()));
    for stage in stages {
        let folder = tempfile::tempdir().unwrap();
        let outline = whole.outline();
        let own = whole.extents(&stage);
        let part = ModelFiles::open(&copy_of(model, &[outline.clone(), own.clone()].concat(), folder.path())).unwrap();
        assert_eq!(part.digest().unwrap(), whole.digest().unwrap(), "{stage:?}");
        // What is missing can be asked of a copy that does not have it.
        assert_eq!((part.outline(), part.extents(&(0..layers))), (outline, whole.extents(&(0..layers))));
        assert!(stage.len() == layers || bytes(&own) < bytes(&whole.extents(&(0..layers))));
        let mut outputs = Vec::new();
        for (files, input) in [&whole, &part].into_iter().zip(&inputs) {
            let options = ShardOptions { layers: stage.clone(), compute };
            let mut shard = Shard::load(files, &options, |_| ()).unwrap();
            outputs.push(forward(&mut shard, input.clone()));
        }
        inputs = match <[Output; 2]>::try_from(outputs).unwrap() {
            [Output::Hidden(a), Output::Hidden(b)] => {
                assert_eq!(a, b, "{} {stage:?}", model.display());
                [a, b].map(Input::Hidden)
            }
            [Output::Token(a), Output::Token(b)] => return assert_eq!(a.token, b.token),
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn a_stage_needs_no_byte_beyond_its_outline_and_its_own_layers_in_any_family() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/families");
    let mut families = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(family) = name.strip_suffix(".json") else { continue };
        let fixture = Fixture::read(family);
        // The first is plain; the last has most of what the family has.
        for variant in [fixture.variants().first(), fixture.variants().last()].into_iter().flatten() {
            let folder = tempfile::tempdir().unwrap();
            formula::write(variant, folder.path());
            compared(folder.path(), Compute::Auto);
        }
        families += 1;
    }
    assert!(families > 20, "{families}");
}

#[test]
fn a_stage_of_a_gguf_file_needs_no_other_bytes_either() {
    let starter = PathBuf::from(std::env::var_os("HIVEMIND_STARTER").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("starter.gguf");
    fs::copy(starter, &alone).unwrap();
    compared(&alone, Compute::Auto);
}
