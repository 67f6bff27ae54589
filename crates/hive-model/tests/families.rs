//! Model families against mlx-lm: tiny models by formula, with every kernel, on every cut into stages, in chunks, rolled
//! back and carried elsewhere. `tests/oracle/families.py` made the references.
//!
//! `./dev agreement` prints how far the logits are from mlx-lm's.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

#[path = "common/agreement.rs"]
mod agreement;
#[path = "common/formula.rs"]
mod formula;

use std::ops::Range;
use std::path::Path;

use agreement::{Fixture, check};
use hive_model::shard::{Input, Output};
use hive_model::{Compute, Footprint, Hidden, LoadError, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;

/// Families that must open. Every other one with a fixture must be refused by name.
const SUPPORTED: &[&str] = &[
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_floats",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5",
    "qwen3_5_moe",
    "mixtral",
    "gemma3_text",
    "gemma3",
    "gemma4_text",
    "gemma4",
    "gpt_oss",
    "phi3",
    "smollm3",
    "granite",
    "olmo2",
    "ministral3",
    "mistral3",
    "glm4_moe",
    "glm4_moe_lite",
    "deepseek_v3",
];

/// Supported families that the fast kernels cannot compute.
const PLAIN_ONLY: &[&str] = &[];

macro_rules! families {
    ($($family:ident)*) => {
        const FAMILIES: &[&str] = &[$(stringify!($family)),*];

        mod answers_like_mlx_lm_or_is_refused_by_name {
            $(
                #[test]
                fn $family() {
                    super::agrees_or_is_refused(stringify!($family));
                }
            )*
        }
    };
}

families! {
    llama qwen2 qwen3 qwen3_floats qwen3_moe mixtral gemma3_text gemma3 gpt_oss
    phi3 smollm3 granite olmo2 ministral3 mistral3 glm4_moe glm4_moe_lite deepseek_v3
    qwen3_next qwen3_5 qwen3_5_moe gemma4_text gemma4
}

fn agrees_or_is_refused(family: &str) {
    let fixture = Fixture::read(family);
    let mut is_fast = false;
    for variant in fixture.variants() {
        let folder = tempfile::tempdir().unwrap();
        let digest = formula::write(variant, folder.path());
        assert_eq!(digest, variant["sha256"], "{}: the weights are not those of mlx-lm", variant["name"]);
        match hive_weights::ModelFiles::open(folder.path()) {
            Ok(files) if SUPPORTED.contains(&family) => {
                is_fast |= check(&files, variant).iter().any(|agreement| agreement.compute == Compute::Fast);
            }
            Ok(_) => panic!("{} of {family} opens; add it to SUPPORTED", variant["name"]),
            Err(error) if SUPPORTED.contains(&family) => panic!("{}: {error}", variant["name"]),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(variant["config"]["model_type"].as_str().unwrap()), "{message}");
            }
        }
    }
    let must_be_fast = SUPPORTED.contains(&family) && !PLAIN_ONLY.contains(&family) && !hive_model::device::is_gpu();
    assert!(is_fast || !must_be_fast, "{family} has no fast kernels");
}

/// The fast kernels want the experts' width to be a multiple of theirs.
#[test]
fn experts_of_any_width_are_computed_whichever_kernels_are_asked_for() {
    let mut variant = Fixture::read("qwen3_moe").variants()[0].clone();
    variant["config"]["moe_intermediate_size"] = 24.into();
    for tensor in variant["tensors"].as_array_mut().unwrap() {
        let name = tensor[0].as_str().unwrap().to_owned();
        if name.contains("switch_mlp") {
            tensor[1][if name.contains("down_proj") { 2 } else { 1 }] = 24.into();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    formula::write(&variant, folder.path());
    let files = hive_weights::ModelFiles::open(folder.path()).unwrap();
    let logits = |compute| {
        let layers = 0..files.config().layers;
        let mut shard = hive_model::Shard::load(&files, &hive_model::ShardOptions { layers, compute }, |_| ()).unwrap();
        shard.logits_of(&[5, 17, 3, 44, 8, 29, 11]).unwrap()
    };
    let (plain, fast) = (logits(Compute::Plain), logits(Compute::Fast));
    let off = plain.iter().zip(&fast).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "off by {off}");
}

/// Hugging Face's own checkpoints of Qwen 3.5: norms are stored as the difference from one, and convolutions turned.
#[test]
fn a_checkpoint_that_is_not_converted_for_mlx_has_the_logits_of_one_that_is() {
    for family in ["qwen3_5", "qwen3_next"] {
        let fixture = Fixture::read(family);
        let variant = &fixture.variants()[0];
        let mut original = variant.clone();
        for tensor in original["tensors"].as_array_mut().unwrap() {
            let name = tensor[0].as_str().unwrap().to_owned();
            if name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight") {
                tensor[2] = "float 0.5 0".into();
            } else if name.ends_with("conv1d.weight") {
                tensor[1].as_array_mut().unwrap().swap(1, 2);
            }
        }
        let [converted, original] = [variant, &original].map(|variant| {
            let folder = tempfile::tempdir().unwrap();
            formula::write(variant, folder.path());
            let files = hive_weights::ModelFiles::open(folder.path()).unwrap();
            let options = hive_model::ShardOptions { layers: 0..files.config().layers, compute: Compute::Plain };
            let mut shard = hive_model::Shard::load(&files, &options, |_| ()).unwrap();
            shard.logits_of(&[5, 17, 3, 44, 8, 29, 11]).unwrap()
        });
        let off = converted.iter().zip(&original).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{family}: off by {off}");
    }
}

/// Gemma 4 with inputs to each layer, and layers that share keys and values.
fn gemma4_small() -> serde_json::Value {
    let fixture = Fixture::read("gemma4_text");
    fixture.variants().iter().find(|variant| variant["name"] == "small, unquantized").unwrap().clone()
}

fn load(files: &ModelFiles, layers: Range<usize>) -> Result<Shard, LoadError> {
    Shard::load(files, &ShardOptions { layers, compute: Compute::Fast }, |_| ())
}

#[test]
fn a_model_is_not_cut_between_keys_and_the_layers_that_share_them() {
    let folder = tempfile::tempdir().unwrap();
    formula::write(&gemma4_small(), folder.path());
    let files = ModelFiles::open(folder.path()).unwrap();
    assert_eq!(Footprint::of(&files, Compute::Fast).unwrap().uncut, [2, 3, 4]);
    for layers in [0..2, 0..4, 2..5, 4..5, 3..4] {
        let message = load(&files, layers.clone()).err().unwrap().to_string();
        assert!(message.starts_with("the model cannot be cut before layer"), "{layers:?}: {message}");
    }
    // Layers that keep nothing take nothing.
    let states = Footprint::of(&files, Compute::Fast).unwrap().states;
    assert_eq!(states.iter().map(|state| state.per_token > 0).collect::<Vec<_>>(), [true, true, true, false, false]);
}

#[test]
fn hidden_states_without_the_inputs_of_later_layers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    formula::write(&gemma4_small(), folder.path());
    let files = ModelFiles::open(folder.path()).unwrap();
    let (mut first, mut last) = (load(&files, 0..1).unwrap(), load(&files, 1..5).unwrap());
    let session = SessionId(1);
    for stage in [&mut first, &mut last] {
        stage.open(session, SessionOptions::default()).unwrap();
    }
    let slot = |input| Slot { session, position: 0, input, sample: true };
    let output = first.forward(&[slot(Input::Tokens(vec![5, 17, 3]))]).remove(0).unwrap();
    let Output::Hidden(hidden) = output else { panic!("{output:?}") };
    assert_eq!(hidden.width, files.config().boundary_width());
    let bytes = hidden.bytes.chunks_exact(4 * hidden.width).flat_map(|row| &row[..4 * 64]).copied().collect();
    let narrow = Hidden { width: 64, bytes, ..hidden.clone() };
    let message = last.forward(&[slot(Input::Hidden(narrow))]).remove(0).unwrap_err().to_string();
    assert!(message.ends_with("where the width is 192"), "{message}");
    assert!(last.forward(&[slot(Input::Hidden(hidden))]).remove(0).is_ok());
}

#[test]
fn keys_that_a_layer_does_not_use_change_nothing() {
    let logits = |variant: &serde_json::Value| {
        let folder = tempfile::tempdir().unwrap();
        formula::write(variant, folder.path());
        let files = ModelFiles::open(folder.path()).unwrap();
        load(&files, 0..5).unwrap().logits_of(&[5, 17, 3, 44, 8, 29, 11]).unwrap()
    };
    let mut variant = gemma4_small();
    let without = logits(&variant);
    for (name, shape) in [("k_proj", vec![64, 64]), ("v_proj", vec![64, 64]), ("k_norm", vec![32])] {
        let tensor = serde_json::json!([format!("model.layers.3.self_attn.{name}.weight"), shape, "float 0.5 1"]);
        variant["tensors"].as_array_mut().unwrap().push(tensor);
    }
    assert_eq!(logits(&variant), without);
}

#[test]
fn every_fixture_has_a_test() {
    let names = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_str().unwrap().strip_suffix(".json").map(str::to_owned)
    };
    let folder = Path::new(agreement::FIXTURES);
    let fixtures: Vec<String> = std::fs::read_dir(folder).unwrap().filter_map(names).collect();
    let without: Vec<_> = fixtures.iter().filter(|family| !FAMILIES.contains(&family.as_str())).collect();
    assert!(without.is_empty(), "{without:?}");
    assert!(SUPPORTED.iter().all(|family| FAMILIES.contains(family)));
}

/// The table of `./dev agreement`.
#[test]
#[ignore = "prints a table; run by `./dev agreement`"]
fn the_agreement_of_all_families() {
    agreement::print_table(SUPPORTED);
}
