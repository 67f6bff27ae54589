//! Small models of many families, quantized here: under mlx-lm's names, in MLX's numbers, and computed as what they are.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../../hive-model/tests/common/checkpoint.rs"]
mod checkpoint;
#[path = "../../hive-model/tests/common/formula.rs"]
mod formula;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use checkpoint::Tensors;
use hive_model::{AtLoad, Compute, Footprint, Shard, ShardOptions};
use hive_quantize::{QuantizeError, Quantized, Recipe, quantize, quantize_in_files_of};
use hive_weights::ModelFiles;
use mlx_rs::{Array, Dtype};
use safetensors::Dtype as Kind;
use serde_json::{Value, json};

const TOKENS: [u32; 7] = [5, 17, 3, 44, 8, 29, 11];
const FOUR: Recipe = Recipe { bits: 4, group: 32, mixed: false };

fn variants(family: &str) -> Vec<Value> {
    let path = format!("{}/../../tests/oracle/families/{family}.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    fixture["variants"].as_array().unwrap().clone()
}

/// Every family with a fixture.
fn families() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/families");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
}

fn variant(family: &str, name: &str) -> Value {
    variants(family).into_iter().find(|variant| variant["name"] == name).unwrap()
}

/// Writes a folder as `formula.rs` does.
fn written(variant: &Value, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    formula::write(variant, to);
    to.to_owned()
}

fn on(_: hive_quantize::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn quantized(model: &Path, to: &Path, recipe: Recipe) -> Quantized {
    quantize(model, to, recipe, &mut on).unwrap()
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// Every file of a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

fn array((kind, shape, bytes): &(Kind, Vec<usize>, Vec<u8>)) -> Array {
    let shape: Vec<i32> = shape.iter().map(|width| *width as i32).collect();
    let kind = match kind {
        Kind::F32 => Dtype::Float32,
        Kind::BF16 => Dtype::Bfloat16,
        Kind::U32 => Dtype::Uint32,
        other => panic!("{other:?}"),
    };
    hive_kernels::array_from_bytes(bytes, &shape, kind).unwrap()
}

/// The tensors of a folder in mlx-lm's form, quantized by MLX at once: what the made folder must hold.
fn expected(tensors: &Tensors, table: &Value) -> BTreeMap<String, Array> {
    let mut all = BTreeMap::new();
    for (name, tensor) in tensors {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let own = table.get(module).unwrap_or(table);
        let [bits, group] = ["bits", "group_size"].map(|key| own[key].as_i64().unwrap() as i32);
        let has_columns =
            tensor.1.len() > 1 && !name.contains("conv1d") && tensor.1.last().unwrap() % group as usize == 0;
        let is_kept = !name.ends_with(".weight") || !has_columns || is_plain_router(name, tensors);
        if is_kept {
            all.insert(name.clone(), array(tensor));
            continue;
        }
        let (words, scales, biases) = mlx_rs::ops::quantize(array(tensor), group, bits).unwrap();
        for (part, array) in [("weight", words), ("scales", scales), ("biases", biases)] {
            all.insert(format!("{module}.{part}"), array);
        }
    }
    all
}

/// The routers of `DeepSeek` and GLM are no linear layers in mlx-lm.
fn is_plain_router(name: &str, tensors: &Tensors) -> bool {
    name.strip_suffix(".weight")
        .is_some_and(|router| tensors.contains_key(&format!("{router}.e_score_correction_bias")))
}

/// Zeros of both signs are other numbers here.
fn has_same_bits(a: &Array, b: &Array) -> bool {
    let [a, b] = [a, b].map(|array| array.reshape(&[-1]).unwrap().view::<u8>().unwrap());
    a.eq(b).unwrap().all(None).unwrap().item_exact::<bool>()
}

fn assert_holds(folder: &Path, expected: &BTreeMap<String, Array>) {
    let found = checkpoint::read(folder);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in &found {
        let (found, expected) = (array(tensor), &expected[name]);
        assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}");
        assert!(has_same_bits(&found, expected), "{name} has other numbers than MLX's");
    }
}

fn logits(folder: &Path, compute: Compute) -> Vec<f32> {
    let files = ModelFiles::open(folder).unwrap();
    let options = ShardOptions { layers: 0..files.config().layers, compute };
    Shard::load(&files, &options, |_| ()).unwrap().logits_of(&TOKENS).unwrap()
}

/// The variants of all families that are not quantized, in mlx-lm's form and under its names.
#[test]
fn every_family_has_the_tensors_that_mlx_lm_writes_in_the_numbers_that_mlx_computes() {
    let mut count = 0;
    for family in families() {
        let plain =
            variants(&family).into_iter().filter(|variant| !variant["config"].to_string().contains("\"quantization\""));
        for variant in plain.take(2) {
            let folder = tempfile::tempdir().unwrap();
            let model = written(&variant, &folder.path().join("plain"));
            let to = folder.path().join("small");
            let made = quantized(&model, &to, FOUR);
            let table = config(&to)["quantization"].clone();
            assert_eq!(config(&to)["quantization_config"], table);
            assert_eq!(
                (&table["bits"], &table["group_size"], &table["mode"]),
                (&json!(4), &json!(32), &json!("affine"))
            );
            // What the model does not compute with is left behind.
            let layers = ModelFiles::open(&model).unwrap().config().layers;
            let mut tensors = checkpoint::read(&model);
            let wanted = checkpoint::read(&to);
            tensors.retain(|name, _| {
                let is_written = wanted.contains_key(name);
                assert!(is_written || is_without_use(name, layers), "{family}: {name} is missing");
                is_written
            });
            assert_holds(&to, &expected(&tensors, &table));
            assert!(made.quantized > 10 && made.bits_per_weight < 10.0, "{family}: {made:?}");
            let all = logits(&to, Compute::Auto);
            assert!(all.iter().all(|logit| logit.is_finite()), "{family}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// Every family can be quantized as it is loaded, and takes the memory that was planned. Dense ones compute what their
/// quantized folders compute.
#[test]
fn a_model_that_is_quantized_at_load_is_the_quantized_model() {
    let four = AtLoad::new(4).unwrap();
    let mut same = 0;
    for family in families() {
        let variants = variants(&family);
        let plain = variants.iter().filter(|variant| !variant["config"].to_string().contains("\"quantization\""));
        for variant in plain.take(2) {
            let folder = tempfile::tempdir().unwrap();
            let model = written(variant, &folder.path().join("plain"));
            let files = ModelFiles::open_for(&model, Some(four)).unwrap();
            assert!(files.has_plain_matrices());
            for at_load in AtLoad::all() {
                let files = ModelFiles::open_for(&model, Some(at_load)).unwrap();
                let options = ShardOptions { layers: 0..files.config().layers, compute: Compute::Fast };
                let held = Shard::load(&files, &options, |_| ()).unwrap().weight_bytes() as u64;
                let planned = Footprint::of(&files, Compute::Fast).unwrap();
                assert_eq!(held, planned.weight_bytes(options.layers), "{family}, {at_load:?}");
            }
            let to = folder.path().join("small");
            quantized(&model, &to, Recipe { group: 64, ..FOUR });
            for compute in [Compute::Fast, Compute::Plain] {
                let layers = 0..files.config().layers;
                let options = ShardOptions { layers: layers.clone(), compute };
                let mut shard = Shard::load(&files, &options, |_| ()).unwrap();
                let planned = Footprint::of(&files, compute).unwrap();
                assert_eq!(shard.weight_bytes() as u64, planned.weight_bytes(layers), "{family}, {compute:?}");
                let stored = Footprint::of(&ModelFiles::open(&model).unwrap(), compute).unwrap();
                assert!(planned.layer_bytes < stored.layer_bytes, "{family}, {compute:?}");
                let found = shard.logits_of(&TOKENS).unwrap();
                assert!(found.iter().all(|logit| logit.is_finite()), "{family}");
                if ["llama", "qwen2", "qwen3", "smollm3", "phi3", "mistral"].contains(&family.as_str()) {
                    // Where columns have whole groups of 32 only, they are quantized at load, and not by mlx-lm.
                    let mut matrices =
                        variant["tensors"].as_array().unwrap().iter().filter_map(|tensor| tensor[1][1].as_u64());
                    if matrices.all(|columns| columns % 64 == 0) {
                        assert!(found == logits(&to, compute), "{family}, {}, {compute:?}", variant["name"]);
                        same += 1;
                    }
                }
            }
        }
    }
    assert!(same >= 12, "{same}");
}

/// Parts that see and hear, and layers that predict further tokens.
fn is_without_use(name: &str, layers: usize) -> bool {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    let of_senses = ["vision", "visual", "audio", "mtp.", "projector"].iter().any(|part| name.contains(part));
    of_senses || layer.is_some_and(|layer| layer >= layers)
}

/// What mlx-lm quantizes otherwise than the rest, in its own fixtures.
#[test]
fn routers_have_the_bits_that_mlx_lm_gives_them() {
    for (family, quantized_variant) in [
        ("qwen3_moe", "4 bit, router 8 bit"),
        ("qwen3_next", "4 bit, routers 8 bit"),
        ("qwen3_5_moe", "4 bit, routers 8 bit"),
        ("gemma4_text", "experts, 4 bit, router 8 bit"),
        ("granite", "4 bit, two parts 8 bit"),
        ("gpt_oss", "4 bit"),
        ("mixtral", "8 bit in groups of 32"),
        ("llama", "4 bit, rope of Llama 3"),
    ] {
        let mut variant = variant(family, quantized_variant);
        let mut table = variant["config"]["quantization"].clone();
        if family == "gpt_oss" {
            // The fixture has them in 4 bits, and mlx-lm's `quant_predicate` in 8.
            for layer in 0..4 {
                table[format!("model.layers.{layer}.mlp.router")] = json!({ "group_size": 64, "bits": 8 });
            }
        }
        let mut names = Vec::new();
        for tensor in variant["tensors"].as_array_mut().unwrap() {
            if tensor[2].as_str().unwrap().starts_with("affine") {
                names.push(tensor[0].as_str().unwrap().to_owned());
                tensor[0] = format!("{}.weight", names.last().unwrap()).into();
                tensor[2] = "float 0.3 0".into();
            }
        }
        for key in ["quantization", "quantization_config"] {
            variant["config"].as_object_mut().unwrap().remove(key);
        }
        let folder = tempfile::tempdir().unwrap();
        let model = written(&variant, &folder.path().join("plain"));
        let to = folder.path().join("small");
        let [bits, group] = ["bits", "group_size"].map(|key| table[key].as_u64().unwrap() as usize);
        quantized(&model, &to, Recipe { bits, group, mixed: false });
        let found = checkpoint::read(&to);
        let scaled: Vec<&str> = found.keys().filter_map(|name| name.strip_suffix(".scales")).collect();
        names.sort();
        assert_eq!(scaled, names, "{family}");
        let mut made = config(&to)["quantization"].clone();
        made.as_object_mut().unwrap().remove("mode");
        table.as_object_mut().unwrap().remove("mode");
        assert_eq!(made, table, "{family}");
    }
}

/// `cast_predicate` of mlx-lm's families.
#[test]
fn numbers_take_the_type_that_the_configuration_names_but_for_a_few_vectors() {
    for (family, kept) in
        [("deepseek_v3", "e_score_correction_bias"), ("glm4_moe", "e_score_correction_bias"), ("qwen3_5", "A_log")]
    {
        let mut variant = variant(family, "unquantized");
        match variant["config"].get_mut("text_config") {
            Some(text) => text["dtype"] = "bfloat16".into(),
            None => variant["config"]["torch_dtype"] = "bfloat16".into(),
        }
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("small");
        quantized(&written(&variant, &folder.path().join("plain")), &to, FOUR);
        let kinds = |is_kept: bool| -> BTreeSet<String> {
            let tensors = checkpoint::read(&to).into_iter().filter(|(name, _)| name.ends_with(kept) == is_kept);
            tensors.map(|(_, tensor)| format!("{:?}", tensor.0)).collect()
        };
        assert_eq!(kinds(true), ["F32".to_owned()].into(), "{family}");
        assert_eq!(kinds(false), ["BF16".to_owned(), "U32".to_owned()].into(), "{family}");
    }
}

#[test]
fn what_config_json_said_of_the_original_weights_is_gone() {
    let mut variant = variant("qwen3_5", "unquantized");
    let fp8 = checkpoint::fp8_config([48, 40]);
    variant["config"]["quantization_config"] = fp8.clone();
    variant["config"]["text_config"]["quantization_config"] = fp8;
    variant["config"]["_name_or_path"] = "/home/author/checkpoint".into();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("small");
    quantized(&written(&variant, &folder.path().join("plain")), &to, FOUR);
    let made = config(&to);
    assert_eq!(made["quantization_config"], json!({ "group_size": 32, "bits": 4, "mode": "affine" }));
    assert_eq!(made["quantization"], made["quantization_config"]);
    for gone in ["_name_or_path", "vision_config"] {
        assert!(variant["config"].get(gone).is_some() && made.get(gone).is_none(), "{gone}");
    }
    // The rest stays.
    let mut text = variant["config"]["text_config"].clone();
    text.as_object_mut().unwrap().remove("quantization_config");
    assert_eq!(made["text_config"], text);
}

/// A checkpoint as authors publish it: in FP8 or bfloat16, with experts one by one and keys and values in one matrix.
fn original(family: &str, name: &str, to: &Path) -> [PathBuf; 3] {
    let variant = variant(family, name);
    let stacked = checkpoint::read(&written(&variant, &to.join("stacked")));
    let single = ["weight_scale_inv", "e_score_correction_bias"];
    let parts = if family == "mixtral" { ["w1", "w3", "w2"] } else { ["gate_proj", "up_proj", "down_proj"] };
    let mut apart = checkpoint::unstacked(stacked.clone(), parts);
    let mut plain = checkpoint::in_fp8(&mut apart, [48, 40], true, |name| name.contains("_proj.weight"));
    for tensors in [&mut apart, &mut plain] {
        checkpoint::in_bfloat16(tensors, &single);
    }
    let mut settings = variant["config"].clone();
    settings["torch_dtype"] = "bfloat16".into();
    checkpoint::write(&plain, &settings, &to.join("plain"));
    settings["quantization_config"] = checkpoint::fp8_config([48, 40]);
    checkpoint::write(&apart, &settings, &to.join("fp8"));
    ["stacked", "plain", "fp8"].map(|folder| to.join(folder))
}

#[test]
fn originals_with_experts_one_by_one_and_in_fp8_become_what_mlx_lm_makes_of_them() {
    for (family, name) in [
        ("qwen3_moe", "unquantized"),
        ("mixtral", "unquantized"),
        ("deepseek_v3", "keys and values of all heads in one matrix"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let [stacked, plain, fp8] = original(family, name, folder.path());
        let [from_plain, from_fp8] = ["a", "b"].map(|name| folder.path().join(name));
        quantized(&plain, &from_plain, FOUR);
        quantized(&fp8, &from_fp8, FOUR);
        assert_eq!(checkpoint::read(&from_plain), checkpoint::read(&from_fp8), "{family}: the numbers are the same");
        assert_eq!(config(&from_plain), config(&from_fp8), "{family}");
        // The names are those of mlx-lm's own folder, and kv_b_proj is in two parts.
        let names = |folder: &Path| -> Vec<String> {
            let names = checkpoint::read(folder).into_keys().filter(|name| name.ends_with(".weight"));
            names
                .filter(|name| !["kv_b_proj", "embed_q", "unembed_out"].iter().any(|part| name.contains(part)))
                .collect()
        };
        assert_eq!(names(&from_plain), names(&stacked), "{family}");
        assert!(logits(&from_fp8, Compute::Auto).iter().all(|logit| logit.is_finite()), "{family}");
        // In eight bits, what is computed is close to what was.
        let eight = folder.path().join("eight");
        quantized(&fp8, &eight, Recipe { bits: 8, group: 32, mixed: false });
        let (small, whole) = (logits(&eight, Compute::Auto), logits(&fp8, Compute::Auto));
        let largest = whole.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        let off = small.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.1 * largest, "{family}: off by {off} of {largest}");
    }
}

/// Keys and values of latent attention: what `sanitize` of mlx-lm's `DeepSeek` V3 does, here with MLX's own operations.
#[test]
fn keys_and_values_of_latent_attention_are_divided_as_mlx_lm_does() {
    let folder = tempfile::tempdir().unwrap();
    let variant = variant("deepseek_v3", "keys and values of all heads in one matrix");
    let model = written(&variant, &folder.path().join("plain"));
    let to = folder.path().join("small");
    quantized(&model, &to, FOUR);
    let (original, made) = (checkpoint::read(&model), checkpoint::read(&to));
    let [heads, unrotated] =
        ["num_attention_heads", "qk_nope_head_dim"].map(|key| variant["config"][key].as_i64().unwrap() as i32);
    let joined = array(&original["model.layers.0.self_attn.kv_b_proj.weight"]);
    let joined = joined.reshape(&[heads, -1, joined.dim(1)]).unwrap();
    let parts = mlx_rs::ops::split_at_indices(&joined, &[unrotated], 1).unwrap();
    let keys = parts[0].swap_axes(-1, -2).unwrap().contiguous().unwrap();
    for (name, wanted) in [("embed_q", &keys), ("unembed_out", &parts[1])] {
        let (words, scales, biases) = mlx_rs::ops::quantize(wanted, 32, 4).unwrap();
        for (part, wanted) in [("weight", words), ("scales", scales), ("biases", biases)] {
            let found = array(&made[&format!("model.layers.0.self_attn.{name}.{part}")]);
            assert_eq!(found.shape(), wanted.shape());
            assert!(has_same_bits(&found, &wanted), "{name}.{part}");
        }
    }
}

/// Qwen's own checkpoints store norms as the difference from one and convolutions turned; mlx-lm's have neither.
#[test]
fn norms_and_convolutions_of_originals_become_those_of_mlx_lm() {
    for family in ["qwen3_5", "qwen3_next"] {
        let converted = variants(family)[0].clone();
        let mut original = converted.clone();
        for tensor in original["tensors"].as_array_mut().unwrap() {
            let name = tensor[0].as_str().unwrap().to_owned();
            if name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight") {
                tensor[2] = "float 0.5 0".into();
            } else if name.ends_with("conv1d.weight") {
                tensor[1].as_array_mut().unwrap().swap(1, 2);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = [("a", &converted), ("b", &original)].map(|(name, variant)| {
            let to = folder.path().join(name);
            quantized(&written(variant, &folder.path().join(format!("{name}-plain"))), &to, FOUR);
            checkpoint::read(&to)
        });
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, tensor) in &a {
            assert_eq!(tensor.1, b[name].1, "{name}");
            let off = array(tensor).subtract(array(&b[name])).ok().filter(|_| tensor.0 == Kind::F32);
            let off = off.map_or(0.0, |off| off.abs().unwrap().max(None).unwrap().item_exact::<f32>());
            assert!(off < 1e-6, "{family} {name}: off by {off}");
            assert!(tensor.0 == Kind::F32 || tensor == &b[name], "{family} {name}");
        }
    }
}

#[test]
fn a_model_that_is_quantized_twice_is_the_same_in_every_file_however_it_is_divided() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(&variants("qwen3_moe")[0], &folder.path().join("model"));
    fs::write(model.join("tokenizer.json"), "{}").unwrap();
    fs::write(model.join("LICENSE"), "free").unwrap();
    fs::write(model.join("optimizer.pt"), "not of the model").unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    quantized(&model, &a, FOUR);
    quantized(&model, &b, FOUR);
    assert_eq!(contents(&a), contents(&b));
    let names: Vec<String> = contents(&a).into_keys().collect();
    let expected = ["LICENSE", "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"];
    assert_eq!(names, expected);
    // In files of at most 20 kB.
    quantize_in_files_of(20_000, &model, &c, FOUR, &mut on).unwrap();
    let files: Vec<(String, usize)> = contents(&c)
        .into_iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|(name, file)| (name, file.len()))
        .collect();
    assert!(files.len() > 2 && files[0].0 == format!("model-00001-of-{:05}.safetensors", files.len()), "{files:?}");
    assert!(files.iter().all(|(_, bytes)| *bytes < 25_000), "{files:?}");
    assert_eq!(checkpoint::read(&a), checkpoint::read(&c));
    assert_eq!(ModelFiles::open(&a).unwrap().digest().unwrap(), ModelFiles::open(&c).unwrap().digest().unwrap());
    let index: Value = serde_json::from_slice(&fs::read(c.join("model.safetensors.index.json")).unwrap()).unwrap();
    let listed: Vec<&String> = index["weight_map"].as_object().unwrap().keys().collect();
    assert_eq!(listed, checkpoint::read(&c).keys().collect::<Vec<_>>());
    let bytes: u64 = checkpoint::read(&c).values().map(|(_, _, bytes)| bytes.len() as u64).sum();
    assert_eq!(index["metadata"]["total_size"], bytes);
}

#[test]
fn every_width_and_group_that_mlx_has_is_written_and_computed_and_a_mixture_has_more_bits_where_it_matters() {
    let folder = tempfile::tempdir().unwrap();
    let mut wide = variants("llama")[1].clone();
    // As wide as the largest group.
    for tensor in wide["tensors"].as_array_mut().unwrap() {
        let name = tensor[0].as_str().unwrap().to_owned();
        for side in tensor[1].as_array_mut().unwrap() {
            *side = if *side == 64 { json!(128) } else { side.clone() };
        }
        if tensor[2].as_str().unwrap().starts_with("affine") {
            tensor[0] = format!("{name}.weight").into();
            tensor[2] = "float 0.3 0".into();
        }
    }
    wide["config"].as_object_mut().unwrap().remove("quantization");
    for (key, wanted) in
        [("hidden_size", 128), ("num_attention_heads", 4), ("num_key_value_heads", 4), ("head_dim", 32)]
    {
        wide["config"][key] = wanted.into();
    }
    let widths =
        |tensor: &Value| tensor[1].as_array().unwrap().iter().map(|side| side.as_u64().unwrap()).collect::<Vec<_>>();
    for tensor in wide["tensors"].as_array_mut().unwrap() {
        if ["q_proj", "k_proj", "v_proj", "o_proj"].iter().any(|part| tensor[0].as_str().unwrap().contains(part))
            && widths(tensor).len() == 2
        {
            tensor[1] = json!([128, 128]);
        }
    }
    let model = written(&wide, &folder.path().join("plain"));
    let mut sizes = Vec::new();
    for group in hive_quantize::GROUPS {
        for bits in hive_quantize::BITS {
            let to = folder.path().join(format!("{bits}-{group}"));
            let made = quantized(&model, &to, Recipe { bits, group, mixed: false });
            assert_holds(&to, &expected(&checkpoint::read(&model), &config(&to)["quantization"]));
            for compute in [Compute::Plain, Compute::Fast] {
                assert!(logits(&to, compute).iter().all(|logit| logit.is_finite()), "{bits} {group}");
            }
            sizes.push((group, bits, made.bytes));
        }
    }
    assert!(sizes.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 < pair[1].2), "{sizes:?}");
    let mixed = folder.path().join("mixed");
    quantized(&model, &mixed, Recipe { bits: 4, group: 64, mixed: true });
    let table = config(&mixed)["quantization"].clone();
    assert_holds(&mixed, &expected(&checkpoint::read(&model), &table));
    let six = json!({ "group_size": 64, "bits": 6 });
    assert_eq!((&table["model.embed_tokens"], &table["lm_head"]), (&six, &six));
    assert_eq!((&table["model.layers.2.mlp.down_proj"], &table["model.layers.0.mlp.up_proj"]), (&six, &Value::Null));
    assert!(logits(&mixed, Compute::Fast).iter().all(|logit| logit.is_finite()));
}

#[test]
fn what_cannot_be_quantized_is_refused_in_a_sentence_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plain = written(&variants("qwen3")[1], &at("plain"));
    let small = at("small");
    quantized(&plain, &small, FOUR);
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("model.gguf"), "x").unwrap();
    let configured = |name: &str, change: &dyn Fn(&mut Value)| {
        let to = written(&variants("qwen3")[1], &at(name));
        let mut config = config(&to);
        change(&mut config);
        fs::write(to.join("config.json"), config.to_string()).unwrap();
        to
    };
    let unknown = configured("unknown", &|config| config["model_type"] = "mamba9".into());
    let gptq = configured("gptq", &|config| config["quantization_config"] = json!({ "quant_method": "gptq" }));
    let without = configured("without", &|_| {});
    for entry in fs::read_dir(&without).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            fs::remove_file(path).unwrap();
        }
    }
    let mut narrow = variants("llama")[0].clone();
    narrow["config"]["intermediate_size"] = 96.into();
    for side in
        narrow["tensors"].as_array_mut().unwrap().iter_mut().flat_map(|tensor| tensor[1].as_array_mut().unwrap())
    {
        *side = if *side == 128 { 96.into() } else { side.clone() };
    }
    let narrow = written(&narrow, &at("narrow"));
    let starter = PathBuf::from(std::env::var_os("HIVEMIND_STARTER").unwrap());
    let before = fs::read_dir(folder.path()).unwrap().count();
    for (model, recipe, words) in [
        (at("nowhere"), FOUR, "there is no model at"),
        (at("empty"), FOUR, "neither a .gguf file nor a folder with config.json"),
        (at("model.gguf"), FOUR, "the file ends inside its header"),
        (starter, FOUR, "is a GGUF file; only folders of safetensors files"),
        (small.clone(), FOUR, "is quantized already"),
        (unknown, FOUR, "the architecture \"mamba9\" is not supported"),
        (gptq, FOUR, "weights quantized by gptq"),
        (without, FOUR, "holds no .safetensors file"),
        (narrow, Recipe { group: 128, ..FOUR }, "has a column count divisible by 128; choose a smaller group size"),
    ] {
        let why = quantize(&model, &at("to"), recipe, &mut on).unwrap_err().to_string();
        assert!(why.contains(words) && !why.contains('\n'), "{why}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before, "{why}: something was written");
    }
    for taken in [&small, &plain.join("config.json"), &at("empty")] {
        let kept = taken.is_dir().then(|| contents(taken));
        let why = quantize(&plain, taken, FOUR, &mut on).unwrap_err().to_string();
        assert!(why.contains("exists already"), "{why}");
        assert_eq!(taken.is_dir().then(|| contents(taken)), kept);
    }
}

#[test]
fn what_belongs_to_a_model_is_copied_and_programs_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(&variants("qwen3")[1], &folder.path().join("model"));
    let templates = "additional_chat_templates";
    fs::create_dir(model.join(templates)).unwrap();
    let belong = ["tokenizer.json", "Notice.txt", "chat_template.jinja", "additional_chat_templates/tools.jinja"];
    let others = ["tokenizer.py", "tokenizer.pkl", "modeling_qwen3.py", "additional_chat_templates/tools.py", "notes"];
    for name in belong.iter().chain(&others) {
        fs::write(model.join(name), name).unwrap();
    }
    // A folder is no file, whatever it is called.
    fs::create_dir(model.join("tokenizer.model")).unwrap();
    let to = folder.path().join("to");
    quantized(&model, &to, FOUR);
    for name in belong {
        assert_eq!(fs::read(to.join(name)).unwrap(), name.as_bytes());
    }
    let found = fs::read_dir(&to).unwrap().chain(fs::read_dir(to.join(templates)).unwrap()).count();
    // The folder itself, the weights, their index and `config.json`.
    assert_eq!(found, belong.len() + 4);
}

#[test]
fn a_file_beside_the_weights_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(&variants("qwen3")[1], &folder.path().join("model"));
    let (tokenizer, to) = (model.join("tokenizer.json"), folder.path().join("to"));
    let refused = |heard: &mut dyn FnMut()| {
        let made = quantize(&model, &to, FOUR, &mut |_| {
            heard();
            ControlFlow::Continue(())
        });
        let why = made.unwrap_err();
        assert!(matches!(why, QuantizeError::Read { .. }), "{why}");
        assert!(why.to_string().starts_with(&format!("cannot read {}: No such file", tokenizer.display())), "{why}");
        assert!(!to.exists() && !folder.path().join("to.partial").exists());
    };
    std::os::unix::fs::symlink("nowhere", &tokenizer).unwrap();
    refused(&mut || panic!("it is known before anything is computed"));
    fs::remove_file(&tokenizer).unwrap();
    // One that vanishes meanwhile.
    fs::write(&tokenizer, "{}").unwrap();
    refused(&mut || drop(fs::remove_file(&tokenizer)));
}

#[test]
fn a_run_that_was_killed_leaves_no_model_and_the_next_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = written(&variants("qwen3")[1], &at("plain"));
    // What `kill -9` leaves: read in the middle of a run.
    let mut left = BTreeMap::new();
    let mut steps = 0;
    let stopped = quantize(&model, &at("to"), FOUR, &mut |progress| {
        steps += 1;
        assert!(progress.done_bytes <= progress.total_bytes);
        if steps < 5 {
            return ControlFlow::Continue(());
        }
        left = contents(&at("to.partial"));
        let other = quantize(&model, &at("to"), FOUR, &mut on).unwrap_err();
        assert!(matches!(other, QuantizeError::Busy(_)), "{other}");
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(QuantizeError::Stopped)), "{stopped:?}");
    assert!(!at("to").exists() && !at("to.partial").exists(), "Ctrl-C leaves nothing");
    assert!(left.len() > 1 && !left.contains_key("config.json"), "{:?}", left.keys());
    fs::create_dir(at("to.partial")).unwrap();
    for (name, bytes) in &left {
        fs::write(at("to.partial").join(name), bytes).unwrap();
    }
    fs::write(at("to.partial/model-00001-of-00009.safetensors"), "of another run").unwrap();
    assert!(ModelFiles::open(&at("to.partial")).is_err());
    quantized(&model, &at("to"), FOUR);
    quantized(&model, &at("fresh"), FOUR);
    assert_eq!(contents(&at("to")), contents(&at("fresh")));
    assert!(!at("to.partial").exists());
    // A folder of someone else's by that name stays.
    fs::create_dir(at("mine.partial")).unwrap();
    fs::write(at("mine.partial/notes"), "dear").unwrap();
    let why = quantize(&model, &at("mine"), FOUR, &mut on).unwrap_err();
    assert!(matches!(why, QuantizeError::InTheWay(_)), "{why}");
    assert_eq!(fs::read(at("mine.partial/notes")).unwrap(), b"dear");
}

#[test]
fn codes_that_stand_for_no_number_leave_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let [_, _, fp8] = original("qwen3_moe", "unquantized", folder.path());
    let file = fp8.join("model.safetensors");
    let mut tensors = checkpoint::read(&fp8);
    let codes = &mut tensors.get_mut("model.layers.2.self_attn.o_proj.weight").unwrap().2;
    *codes.last_mut().unwrap() = 0xff;
    checkpoint::write(&tensors, &config(&fp8), &fp8);
    assert!(file.is_file());
    let why = quantize(&fp8, &folder.path().join("to"), FOUR, &mut on).unwrap_err().to_string();
    assert!(
        why.contains("model.layers.2.self_attn.o_proj.weight or its scales hold codes that stand for no number"),
        "{why}"
    );
    assert!(!folder.path().join("to").exists() && !folder.path().join("to.partial").exists());
}
