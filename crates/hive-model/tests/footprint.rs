//! The predicted memory of a model against the actual one, in every format and with both kinds of kernels.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use hive_model::shard::Input;
use hive_model::{Compute, Footprint, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The shortest row that every type has.
const HIDDEN: usize = 256;
const INNER: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 64;
const LAYERS: usize = 2;
/// Not a multiple of the kernels' lanes.
const VOCABULARY: usize = 50;

/// Matrices by their names in both formats, with rows and columns; the output matrix only if it is not the embedding.
fn matrices(tied: bool) -> Vec<(String, String, usize, usize)> {
    let mut all = Vec::new();
    for layer in 0..LAYERS {
        for (name, stored, rows, columns) in [
            ("self_attn.q_proj", "attn_q", HEADS * HEAD, HIDDEN),
            ("self_attn.k_proj", "attn_k", KV_HEADS * HEAD, HIDDEN),
            ("self_attn.v_proj", "attn_v", KV_HEADS * HEAD, HIDDEN),
            ("self_attn.o_proj", "attn_output", HIDDEN, HEADS * HEAD),
            ("mlp.gate_proj", "ffn_gate", INNER, HIDDEN),
            ("mlp.up_proj", "ffn_up", INNER, HIDDEN),
            ("mlp.down_proj", "ffn_down", HIDDEN, INNER),
        ] {
            all.push((format!("model.layers.{layer}.{name}"), format!("blk.{layer}.{stored}"), rows, columns));
        }
    }
    all.push(("model.embed_tokens".to_owned(), "token_embd".to_owned(), VOCABULARY, HIDDEN));
    if !tied {
        all.push(("lm_head".to_owned(), "output".to_owned(), VOCABULARY, HIDDEN));
    }
    all
}

fn norms() -> Vec<(String, String)> {
    let of_layer = |layer: usize| {
        [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]
            .map(|(name, stored)| (format!("model.layers.{layer}.{name}"), format!("blk.{layer}.{stored}")))
    };
    let last = ("model.norm".to_owned(), "output_norm".to_owned());
    (0..LAYERS).flat_map(of_layer).chain([last]).collect()
}

/// A ggml type by number, with the elements and bytes of a block.
type Block = (u32, usize, usize);

fn write_gguf(to: &Path, (kind, elements, bytes): Block, tied: bool) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |key: &str, value: usize| {
        [text(key), 4u32.to_le_bytes().to_vec(), (value as u32).to_le_bytes().to_vec()].concat()
    };
    let metadata = [
        [text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat(),
        number("llama.block_count", LAYERS),
        number("llama.embedding_length", HIDDEN),
        number("llama.feed_forward_length", INNER),
        number("llama.attention.head_count", HEADS),
        number("llama.attention.head_count_kv", KV_HEADS),
        number("llama.vocab_size", VOCABULARY),
        [text("llama.attention.layer_norm_rms_epsilon"), 6u32.to_le_bytes().to_vec(), 1e-5f32.to_le_bytes().to_vec()]
            .concat(),
    ];
    let (mut infos, mut data, mut count) = (Vec::new(), Vec::new(), 0u64);
    let mut tensor = |name: &str, dims: &[usize], kind: u32, bytes: Vec<u8>| {
        infos.extend(text(&format!("{name}.weight")));
        infos.extend((dims.len() as u32).to_le_bytes());
        infos.extend(dims.iter().flat_map(|dim| (*dim as u64).to_le_bytes()));
        infos.extend(kind.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
        count += 1;
    };
    for (_, stored, rows, columns) in matrices(tied) {
        // A small number in all of these formats.
        tensor(&stored, &[columns, rows], kind, vec![0x21; rows * columns / elements * bytes]);
    }
    for (_, stored) in norms() {
        tensor(&stored, &[HIDDEN], 0, 1f32.to_le_bytes().repeat(HIDDEN));
    }
    let head =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &count.to_le_bytes(), &(metadata.len() as u64).to_le_bytes()].concat();
    let mut file = [head, metadata.concat(), infos].concat();
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    std::fs::write(to, file).unwrap();
}

/// Bits and group of a quantized folder.
type Quantized = Option<(usize, usize)>;

fn write_folder(to: &Path, float: Dtype, quantized: Quantized, biases: bool, tied: bool) {
    let size = if float == Dtype::F32 { 4 } else { 2 };
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, dtype: Dtype, shape: Vec<usize>| {
        let size = if dtype == Dtype::U32 { 4 } else { size };
        let bytes = vec![0x11; shape.iter().product::<usize>() * size];
        tensors.push((name, dtype, shape, bytes));
    };
    for (name, _, rows, columns) in matrices(tied) {
        match quantized {
            Some((bits, group)) => {
                add(format!("{name}.weight"), Dtype::U32, vec![rows, columns * bits / 32]);
                add(format!("{name}.scales"), float, vec![rows, columns / group]);
                add(format!("{name}.biases"), float, vec![rows, columns / group]);
            }
            None => add(format!("{name}.weight"), float, vec![rows, columns]),
        }
        if biases && name.contains("self_attn") {
            add(format!("{name}.bias"), float, vec![rows]);
        }
    }
    for (name, _) in norms() {
        add(format!("{name}.weight"), float, vec![HIDDEN]);
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    let mut config = serde_json::json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": INNER,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "tie_word_embeddings": tied
    });
    if let Some((bits, group)) = quantized {
        config["quantization"] = serde_json::json!({ "bits": bits, "group_size": group });
    }
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

fn compare(path: &Path, what: &str) {
    let files = ModelFiles::open(path).unwrap();
    for kernels in [Compute::Fast, Compute::Plain] {
        let planned = Footprint::of(&files, kernels).unwrap();
        for layers in [0..LAYERS, 0..1, 1..LAYERS] {
            let options = ShardOptions { layers: layers.clone(), compute: kernels };
            let mut shard = Shard::load(&files, &options, |_| ()).unwrap();
            let held = shard.weight_bytes() as u64;
            assert_eq!(held, planned.weight_bytes(layers.clone()), "{what}, {kernels:?}, layers {layers:?}");
            if layers == (0..LAYERS) {
                let session = SessionId(1);
                shard.open(session, SessionOptions::default()).unwrap();
                let input = Input::Tokens(vec![1; 2]);
                let _ = shard.forward(&[Slot { session, position: 0, input, sample: false }]);
                // Caches grow in blocks of 256 tokens.
                assert_eq!(
                    shard.kv_bytes() as u64,
                    planned.states.iter().map(|state| state.per_token).sum::<u64>() * 256,
                    "{what}, {kernels:?}"
                );
            }
        }
    }
}

#[test]
fn planned_is_what_is_held_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = [
        ("F32", (0, 1, 4)),
        ("F16", (1, 1, 2)),
        ("BF16", (30, 1, 2)),
        ("Q4_0", (2, 32, 18)),
        ("Q4_1", (3, 32, 20)),
        ("Q5_0", (6, 32, 22)),
        ("Q5_1", (7, 32, 24)),
        ("Q8_0", (8, 32, 34)),
        ("Q2_K", (10, 256, 84)),
        ("Q3_K", (11, 256, 110)),
        ("Q4_K", (12, 256, 144)),
        ("Q5_K", (13, 256, 176)),
        ("Q6_K", (14, 256, 210)),
        ("IQ4_NL", (20, 32, 18)),
        ("IQ4_XS", (23, 256, 136)),
        ("MXFP4", (39, 32, 17)),
    ];
    for (name, block) in blocks {
        for tied in [false, true] {
            let path = folder.path().join(format!("{name}-{tied}.gguf"));
            write_gguf(&path, block, tied);
            compare(&path, &format!("{name}, tied {tied}"));
        }
    }
    for float in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        // Groups of 32 and 64; the fast kernels have 2 and 3 bits in 4, and 5 and 6 in 8.
        for quantized in [None, Some((4, 32)), Some((8, 32))].into_iter().chain([2, 3, 4, 5, 6].map(|b| Some((b, 64))))
        {
            for (biases, tied) in [(false, false), (true, true)] {
                let what = format!("{float:?}, {quantized:?}, biases {biases}, tied {tied}");
                let path = folder.path().join(what.replace([' ', ',', '(', ')'], "-"));
                std::fs::create_dir(&path).unwrap();
                write_folder(&path, float, quantized, biases, tied);
                compare(&path, &what);
            }
        }
    }
}

#[test]
fn a_part_that_is_not_found_by_its_name_weighs_nothing_in_no_plan() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path(), Dtype::F16, None, false, false);
    let path = folder.path().join("model.safetensors");
    let original = std::fs::read(&path).unwrap();
    // As many bytes as before, so that the rest stays where it is.
    let renamed = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&original[8..]).into_owned();
        assert_eq!((from.len(), text.contains(from)), (to.len(), true));
        let mut file = original.clone();
        for at in (0..file.len() - from.len()).rev() {
            if &file[at..at + from.len()] == from.as_bytes() {
                file[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
        }
        std::fs::write(&path, file).unwrap();
        ModelFiles::open(folder.path()).map_err(|error| error.to_string()).and_then(|files| {
            let sizes = [Compute::Fast, Compute::Plain].map(|kernels| Footprint::of(&files, kernels));
            sizes.into_iter().collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
        })
    };
    assert!(renamed("mlp.up_proj", "mlp.up_proj").is_ok());
    for (from, to) in [
        ("model.layers.1", "trans.blocks.1"),
        ("mlp.up_proj", "mlp.up_conv"),
        ("self_attn.q_proj", "attention.q_proj"),
        ("model.embed_tokens", "model.token_lookup"),
        ("lm_head.weight", "output.weights"),
    ] {
        let message = renamed(from, to).unwrap_err();
        assert!(message.contains(to), "{message}");
    }
    // Not refused, as it is known, but needed.
    let message = renamed("model.layers.1.mlp.up_proj", "model.mtp.aaaaa.mlp.up_pro").unwrap_err();
    assert!(message.contains("no tensor model.layers.1.mlp.up_proj"), "{message}");
}

#[test]
fn every_tensor_of_a_gguf_tells_a_model_from_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Nothing is padded in this format.
    write_gguf(&path, (0, 1, 4), false);
    let digest = || ModelFiles::open(&path).unwrap().digest().unwrap();
    let (original, file) = (digest(), std::fs::read(&path).unwrap());
    let sizes = matrices(false).into_iter().map(|(.., rows, columns)| rows * columns * 4);
    let sizes: Vec<usize> = sizes.chain(norms().iter().map(|_| HIDDEN * 4)).collect();
    let mut start = file.len() - sizes.iter().sum::<usize>();
    for size in sizes {
        for at in [start, start + size / 2, start + size - 1] {
            let mut other = file.clone();
            other[at] ^= 1;
            std::fs::write(&path, other).unwrap();
            assert_ne!(digest(), original, "byte {at}");
        }
        start += size;
    }
    std::fs::write(&path, file).unwrap();
    assert_eq!(digest(), original);
}

#[test]
fn the_fast_kernels_hold_no_more_than_the_file_has() {
    let folder = tempfile::tempdir().unwrap();
    for (block, name) in [((2, 32, 18), "q4_0"), ((3, 32, 20), "q4_1"), ((8, 32, 34), "q8_0"), ((1, 1, 2), "f16")] {
        let path = folder.path().join(format!("{name}.gguf"));
        write_gguf(&path, block, false);
        let files = ModelFiles::open(&path).unwrap();
        let planned = Footprint::of(&files, Compute::Fast).unwrap();
        let (_, elements, bytes) = block;
        let weights = (2 * HEADS * HEAD + 2 * KV_HEADS * HEAD + 3 * INNER) * HIDDEN / elements * bytes;
        // Two norms, and the rotation's periods.
        assert_eq!(planned.layer_bytes, [(weights + 2 * HIDDEN * 4 + HEAD / 2 * 4) as u64; LAYERS], "{name}");
        assert_eq!(planned.embedding_bytes, (VOCABULARY * HIDDEN / elements * bytes) as u64, "{name}");
    }
}
