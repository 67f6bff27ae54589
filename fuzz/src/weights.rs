//! Weight files: a GGUF, or a folder with a configuration and safetensors. The first byte says which.

use std::path::Path;

use hive_weights::ModelFiles;

/// A GGUF.
const GGUF: u8 = b'G';
/// A configuration, a zero byte, and a safetensors file.
const FOLDER: u8 = b'F';

/// Opens a model and reads what a plan and a shard would read of it. Whether it could be opened.
pub fn run(data: &[u8]) -> bool {
    let Some((&kind, data)) = data.split_first() else { return false };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = match kind {
        GGUF => {
            let path = folder.path().join("model.gguf");
            std::fs::write(&path, data).expect("room for the file");
            path
        }
        FOLDER => {
            let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
            let weights = data.get(end + 1..).unwrap_or_default();
            std::fs::write(folder.path().join("config.json"), &data[..end]).expect("room for the file");
            std::fs::write(folder.path().join("model.safetensors"), weights).expect("room for the file");
            folder.path().to_owned()
        }
        _ => return false,
    };
    open(&path)
}

fn open(path: &Path) -> bool {
    let Ok(files) = ModelFiles::open(path) else { return false };
    let config = files.config().clone();
    let _ = (files.digest(), files.natural_activation());
    let _ = config.rope.periods(config.head_dim);
    let weights = files.weights();
    let rows = config.heads * config.head_dim;
    let _ = weights.matrix("model.layers.0.self_attn.q_proj", rows, config.hidden);
    let _ = weights.matrix("model.layers.0.self_attn.k_proj", config.kv_heads * config.head_dim, config.hidden);
    let _ = weights.matrix("model.embed_tokens", config.vocabulary, config.hidden);
    let _ = weights.vector("model.norm.weight", config.hidden);
    if let Ok(tokenizer) = files.tokenizer() {
        let _ = tokenizer.encode("Hello there");
    }
    let _ = files.chat_template();
    true
}

/// Files that are read to their end.
pub fn seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let config = r#"{"model_type":"llama","hidden_size":32,"num_hidden_layers":1,"intermediate_size":32,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":16,"vocab_size":4,"rms_norm_eps":1e-5,"rope_scaling":{"type":"linear","factor":2.0},"quantization":{"group_size":32,"bits":4,"model.norm":false},"eos_token_id":[1,2]}"#;
    let header = r#"{"__metadata__":{"format":"mlx"},"model.norm.weight":{"dtype":"F16","shape":[32],"data_offsets":[0,64]},"model.layers.0.input_layernorm.weight":{"dtype":"F32","shape":[32],"data_offsets":[64,192]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[7; 192]].concat();
    vec![with(GGUF, &gguf()), with(FOLDER, &[config.as_bytes(), &[0], &safetensors].concat())]
}

/// A small GGUF with a value of every kind and a tokenizer.
pub fn gguf() -> Vec<u8> {
    let (mut values, mut count) = (Vec::new(), 0u64);
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut value = |key: &str, kind: u32, bytes: &[u8]| {
        values.extend(text(key));
        values.extend(kind.to_le_bytes());
        values.extend(bytes);
        count += 1;
    };
    let array = |kind: u32, items: &[Vec<u8>]| {
        [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    value("general.architecture", 8, &text("llama"));
    for (key, number) in [
        ("block_count", 1u32),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("context_length", 128),
    ] {
        value(&format!("llama.{key}"), 4, &number.to_le_bytes());
    }
    value("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    value("llama.rope.freq_base", 12, &1e4f64.to_le_bytes());
    value("general.flag", 7, &[1]);
    value("general.small", 1, &[255]);
    value("general.bytes", 9, &array(0, &[vec![1], vec![2], vec![3]]));
    value("tokenizer.ggml.model", 8, &text("llama"));
    let tokens = ["<unk>", "<s>", "▁", "a", "b", "ab", "▁a"];
    value("tokenizer.ggml.tokens", 9, &array(8, &tokens.map(text)));
    value("tokenizer.ggml.scores", 9, &array(6, &[0f32, 0., -3., -3., -3., -1., -2.].map(|n| n.to_le_bytes().to_vec())));
    value("tokenizer.ggml.token_type", 9, &array(5, &[2i32, 3, 1, 1, 1, 1, 1].map(|n| n.to_le_bytes().to_vec())));
    value("tokenizer.ggml.bos_token_id", 4, &1u32.to_le_bytes());
    value("tokenizer.chat_template", 8, &text("{% for m in messages %}{{ m.content }}{% endfor %}"));
    let mut tensors = Vec::new();
    let table = [
        ("blk.0.attn_q.weight", &[32u64, 32][..], 2u32, 576u64),
        ("blk.0.attn_k.weight", &[32, 16], 2, 288),
        ("blk.0.attn_norm.weight", &[32], 0, 128),
        ("output_norm.weight", &[32], 1, 64),
    ];
    let mut offset = 0u64;
    for (name, shape, kind, bytes) in table {
        tensors.extend(text(name));
        tensors.extend((shape.len() as u32).to_le_bytes());
        tensors.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
        tensors.extend(kind.to_le_bytes());
        tensors.extend(offset.to_le_bytes());
        offset = (offset + bytes).next_multiple_of(32);
    }
    let counts = [(table.len() as u64).to_le_bytes(), count.to_le_bytes()].concat();
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &values, &tensors].concat();
    file.resize(file.len().next_multiple_of(32) + offset as usize, 7);
    file
}
