//! Checkpoints in FP8: what is computed with them is what is computed with the numbers that they stand for, to the bit, on
//! all kernels and for every stage by itself.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::single_range_in_vec_init, unreachable_pub, dead_code)]

#[path = "common/agreement.rs"]
mod agreement;
#[path = "common/checkpoint.rs"]
mod checkpoint;
#[path = "common/formula.rs"]
mod formula;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use agreement::Fixture;
use checkpoint::{Tensors, fp8_config};
use hive_model::shard::{Input, Output};
use hive_model::{Compute, Footprint, Sampling, SessionId, SessionOptions, Shard, ShardOptions, Slot, device};
use hive_weights::ModelFiles;
use serde_json::Value;

const TOKENS: [u32; 7] = [5, 17, 3, 44, 8, 29, 11];
/// No matrix of the fixtures has a multiple of these.
const BLOCK: [usize; 2] = [48, 40];

/// A variant of a family that is not quantized, with experts one by one as authors have them.
fn original(family: &str, name: &str) -> (Tensors, Value) {
    let fixture = Fixture::read(family);
    let variant = fixture.variants().iter().find(|variant| variant["name"] == name).unwrap().clone();
    let folder = tempfile::tempdir().unwrap();
    formula::write(&variant, folder.path());
    (
        checkpoint::unstacked(checkpoint::read(folder.path()), ["gate_proj", "up_proj", "down_proj"]),
        variant["config"].clone(),
    )
}

fn is_projection(name: &str) -> bool {
    name.contains("_proj") && name.ends_with(".weight") && !name.contains("layernorm")
}

/// The same model twice: in FP8, and in the numbers that this stands for.
fn both(family: &str, name: &str, block: [usize; 2], has_single: bool, to: &Path) -> [ModelFiles; 2] {
    let (mut tensors, mut config) = original(family, name);
    let mut plain = checkpoint::in_fp8(&mut tensors, block, !has_single, is_projection);
    if !has_single {
        let single = ["weight_scale_inv", "e_score_correction_bias"];
        for tensors in [&mut tensors, &mut plain] {
            checkpoint::in_bfloat16(tensors, &single);
        }
    }
    checkpoint::write(&plain, &config, &to.join("plain"));
    config["quantization_config"] = fp8_config(block);
    checkpoint::write(&tensors, &config, &to.join("fp8"));
    ["fp8", "plain"].map(|folder| ModelFiles::open(&to.join(folder)).unwrap())
}

/// What two models give, stage after stage, which must be the same; and what each stage takes in memory, which must be
/// what was planned.
fn assert_same(models: &[ModelFiles; 2], compute: Compute) {
    let layers = models[0].config().layers;
    for stages in [vec![0..layers], vec![0..1, 1..layers]] {
        let mut inputs: [Input; 2] = std::array::from_fn(|_| Input::Tokens(TOKENS.to_vec()));
        for stage in stages {
            let mut outputs = Vec::new();
            for (files, input) in models.iter().zip(inputs) {
                let options = ShardOptions { layers: stage.clone(), compute };
                let mut shard = Shard::load(files, &options, |_| ()).unwrap();
                let planned = Footprint::of(files, compute).unwrap().weight_bytes(stage.clone());
                assert_eq!(shard.weight_bytes() as u64, planned, "{stage:?} of {}", files.path().display());
                let session = SessionId(1);
                let sampling = Sampling { logprobs: Some(20), ..Sampling::default() };
                shard.open(session, SessionOptions { sampling, ..SessionOptions::default() }).unwrap();
                let slot = Slot { session, position: 0, input, sample: true };
                outputs.push((shard.forward(&[slot]).remove(0).unwrap(), shard.activation()));
            }
            let [fp8, plain] = <[_; 2]>::try_from(outputs).unwrap();
            assert_eq!(fp8, plain, "{stage:?} with {compute:?}");
            inputs = match (fp8.0, plain.0) {
                (Output::Hidden(a), Output::Hidden(b)) => [a, b].map(Input::Hidden),
                _ => break,
            };
        }
    }
    let footprints = [0, 1].map(|model| Footprint::of(&models[model], compute).unwrap());
    assert_eq!(footprints[0], footprints[1], "memory is that of the numbers that are held");
}

/// A family with the name of one of its variants.
const CASES: [(&str, &str); 3] = [
    ("qwen3", "unquantized, narrow heads"),
    ("qwen3_moe", "unquantized"),
    ("deepseek_v3", "keys and values of all heads in one matrix"),
];

#[test]
fn a_checkpoint_in_fp8_is_computed_as_the_numbers_that_it_stands_for() {
    // No matrix is as large as the second block, as in the smallest models.
    for (block, has_single) in [(BLOCK, false), ([128, 128], false), (BLOCK, true)] {
        for (family, name) in CASES {
            let folder = tempfile::tempdir().unwrap();
            let models = both(family, name, block, has_single, folder.path());
            // On a CPU, MLX picks experts in single precision only.
            let has_plain = has_single || family == "qwen3" || device::is_gpu();
            for compute in [Compute::Fast].into_iter().chain(has_plain.then_some(Compute::Plain)) {
                assert_same(&models, compute);
            }
        }
    }
}

#[test]
fn a_stage_reads_its_own_codes_and_scales_only_and_one_byte_for_each_number() {
    let folder = tempfile::tempdir().unwrap();
    let [fp8, plain] = both("qwen3_moe", "unquantized", BLOCK, false, folder.path());
    let file = folder.path().join("fp8/model.safetensors");
    let whole = fs::read(&file).unwrap();
    let tensors = checkpoint::read(&folder.path().join("fp8"));
    for layer in 0..fp8.config().layers {
        let stage = layer..layer + 1;
        let own = fp8.extents(&stage);
        let bytes =
            |files: &ModelFiles| files.extents(&stage).iter().map(|own| own.bytes.end - own.bytes.start).sum::<u64>();
        let of_tensors = |wanted: &dyn Fn(&str) -> bool| -> u64 {
            let own =
                tensors.iter().filter(|(name, _)| name.starts_with(&format!("model.layers.{layer}.")) && wanted(name));
            own.map(|(_, (_, _, bytes))| bytes.len() as u64).sum()
        };
        // On disk, a weight has one byte where the other model's has two.
        let codes = of_tensors(&is_projection);
        let scales = of_tensors(&|name| name.ends_with("weight_scale_inv"));
        assert!(codes > 8 * scales && scales > 0, "{codes} {scales}");
        assert_eq!(bytes(&fp8), bytes(&plain) - codes + scales, "layer {layer}");
        // Every other byte stands for no number.
        fs::write(&file, vec![0xff; whole.len()]).unwrap();
        let part = fs::OpenOptions::new().write(true).open(&file).unwrap();
        // The outline has such small tensors whole, so only the header of it.
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap());
        for bytes in own.into_iter().map(|own| own.bytes).chain(std::iter::once(0..header)) {
            part.write_all_at(&whole[bytes.start as usize..bytes.end as usize], bytes.start).unwrap();
        }
        let options = ShardOptions { layers: stage.clone(), compute: Compute::Fast };
        Shard::load(&ModelFiles::open(&folder.path().join("fp8")).unwrap(), &options, |_| ()).unwrap();
        let other = ShardOptions { layers: (layer + 1) % 3..(layer + 1) % 3 + 1, compute: Compute::Fast };
        let why = Shard::load(&ModelFiles::open(&folder.path().join("fp8")).unwrap(), &other, |_| ()).err().unwrap();
        assert!(why.to_string().contains("stand for no number"), "{why}");
    }
}

#[test]
fn scales_in_a_folder_that_does_not_say_how_to_read_them_are_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let [fp8, _] = both("qwen3", "unquantized, narrow heads", BLOCK, false, folder.path());
    let path = fp8.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config");
    fs::write(&path, config.to_string()).unwrap();
    let why = ModelFiles::open(fp8.path()).unwrap_err().to_string();
    assert!(why.contains("weight_scale_inv"), "{why}");
}
