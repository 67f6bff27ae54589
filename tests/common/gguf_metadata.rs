//! What llama.cpp's converter writes of a configuration: metadata, and the factors of periods, which are tensors.

use serde_json::Value;

use super::gguf_file::{F32, GgufFile, f32_bytes};

/// Keys that are written as they are: those of `config.json`, and that of GGUF.
const NUMBERS: &[(&[&str], &str)] = &[
    (&["hidden_size"], "embedding_length"),
    (&["intermediate_size"], "feed_forward_length"),
    (&["num_attention_heads"], "attention.head_count"),
    (&["num_key_value_heads"], "attention.head_count_kv"),
    (&["max_position_embeddings"], "context_length"),
    (&["vocab_size"], "vocab_size"),
    (&["num_experts", "num_local_experts", "n_routed_experts"], "expert_count"),
    (&["num_experts_per_tok", "top_k_experts"], "expert_used_count"),
    (&["moe_intermediate_size"], "expert_feed_forward_length"),
    (&["n_group"], "expert_group_count"),
    (&["topk_group"], "expert_group_used_count"),
    (&["n_shared_experts"], "expert_shared_count"),
    (&["first_k_dense_replace"], "leading_dense_block_count"),
    (&["shared_expert_intermediate_size"], "expert_shared_feed_forward_length"),
    (&["linear_conv_kernel_dim"], "ssm.conv_kernel"),
    (&["linear_key_head_dim"], "ssm.state_size"),
    (&["linear_num_key_heads"], "ssm.group_count"),
    (&["linear_num_value_heads"], "ssm.time_step_rank"),
    (&["full_attention_interval"], "full_attention_interval"),
    (&["kv_lora_rank"], "attention.kv_lora_rank"),
    (&["q_lora_rank"], "attention.q_lora_rank"),
    (&["v_head_dim"], "attention.value_length_mla"),
    (&["num_kv_shared_layers"], "attention.shared_kv_layers"),
    (&["hidden_size_per_layer_input"], "embedding_length_per_layer_input"),
];
const REALS: &[(&str, &str)] = &[
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("logits_scaling", "logit_scale"),
    ("attention_multiplier", "attention.scale"),
    ("residual_multiplier", "residual_scale"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

pub fn metadata(file: &mut GgufFile, architecture: &str, config: &Value, further: usize) {
    let key = |name: &str| format!("{architecture}.{name}");
    file.text("general.architecture", architecture);
    file.text("tokenizer.ggml.model", "no_vocab");
    let number = |name: &str| config[name].as_u64().map(|number| number as usize);
    let layers = number("num_hidden_layers").unwrap();
    file.number(&key("block_count"), layers + further);
    if further > 0 {
        file.number(&key("nextn_predict_layers"), further);
    }
    let is_gemma4 = architecture == "gemma4";
    let kinds: Vec<bool> =
        config["layer_types"].as_array().into_iter().flatten().map(|kind| kind == "sliding_attention").collect();
    for (names, gguf) in NUMBERS {
        let Some(value) = names.iter().find_map(|name| number(name)) else { continue };
        match *gguf {
            "attention.head_count_kv" if architecture == "deepseek2" => file.number(&key(gguf), 1),
            "attention.head_count_kv" if is_gemma4 && number("num_global_key_value_heads").is_some() => {
                let full = number("num_global_key_value_heads").unwrap();
                let each: Vec<usize> = kinds.iter().map(|slides| if *slides { value } else { full }).collect();
                file.numbers(&key(gguf), &each);
            }
            "feed_forward_length" if config["use_double_wide_mlp"] == true => {
                let first = layers - number("num_kv_shared_layers").unwrap();
                let each: Vec<usize> = (0..layers).map(|at| if at < first { value } else { 2 * value }).collect();
                file.numbers(&key(gguf), &each);
            }
            _ => file.number(&key(gguf), value),
        }
    }
    if let Some(interval) = number("full_attention_interval") {
        let recurrent: Vec<bool> = (1..=layers).map(|layer| layer % interval != 0).collect();
        file.flags(&key("attention.recurrent_layers"), &recurrent);
    }
    for (name, gguf) in REALS {
        if let Some(value) = config[*name].as_f64() {
            file.real(&key(gguf), value);
        }
    }
    if let Some(normalized) = config["norm_topk_prob"].as_bool().filter(|_| !architecture.starts_with("qwen")) {
        file.flag(&key("expert_weights_norm"), normalized);
    }
    if ["glm4moe", "deepseek2"].contains(&architecture) {
        file.number(&key("expert_gating_func"), 2);
    }
    if architecture == "gpt-oss" {
        file.number(&key("expert_feed_forward_length"), number("intermediate_size").unwrap());
    }
    let window = number("sliding_window").or((architecture == "phi3").then_some(0));
    if let Some(window) = window.filter(|_| architecture != "llama" || config["model_type"] == "mistral") {
        file.number(&key("attention.sliding_window"), window);
    }
    if is_gemma4 || architecture == "gpt-oss" && !kinds.is_empty() {
        file.flags(&key("attention.sliding_window_pattern"), &kinds);
    } else if let Some(pattern) = number("sliding_window_pattern") {
        file.number(&key("attention.sliding_window_pattern"), pattern);
    }
    widths(file, architecture, config);
    rotation(file, architecture, config);
}

/// The widths of heads, and of what is rotated of them.
fn widths(file: &mut GgufFile, architecture: &str, config: &Value) {
    let key = |name: &str| format!("{architecture}.{name}");
    let number = |name: &str| config[name].as_u64().map(|number| number as usize);
    let head = number("head_dim").unwrap_or(number("hidden_size").unwrap() / number("num_attention_heads").unwrap());
    let factor = config["partial_rotary_factor"].as_f64();
    let factor = factor.or_else(|| config["rope_parameters"]["partial_rotary_factor"].as_f64()).unwrap_or(1.0);
    let (mut of_head, mut rotated) = (head, (head as f64 * factor) as usize);
    if let Some(unrotated) = number("qk_nope_head_dim") {
        rotated = number("qk_rope_head_dim").unwrap();
        of_head = number("kv_lora_rank").unwrap() + rotated;
        file.number(&key("attention.key_length_mla"), unrotated + rotated);
        file.number(&key("attention.value_length"), number("kv_lora_rank").unwrap());
    } else if architecture == "gemma4" {
        of_head = number("global_head_dim").unwrap();
        rotated = of_head;
        file.number(&key("attention.value_length"), of_head);
        file.number(&key("attention.key_length_swa"), head);
        file.number(&key("attention.value_length_swa"), head);
        file.number(&key("rope.dimension_count_swa"), head);
    } else {
        file.number(&key("attention.value_length"), head);
    }
    file.number(&key("attention.key_length"), of_head);
    file.number(&key("rope.dimension_count"), rotated);
    if let Some(width) = number("linear_value_head_dim") {
        file.number(&key("ssm.inner_size"), width * number("linear_num_value_heads").unwrap());
    }
    if architecture.starts_with("qwen35") {
        file.numbers(&key("rope.dimension_sections"), &[2, 1, 1, 0]);
    }
}

fn rotation(file: &mut GgufFile, architecture: &str, config: &Value) {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let parameters = if config["rope_parameters"].is_object() { "rope_parameters" } else { "rope_scaling" };
    let (all, mut rope) = (&config[parameters], &config[parameters]);
    if rope["full_attention"].is_object() {
        rope = &all["full_attention"];
    }
    let theta = config["rope_theta"].as_f64().or_else(|| rope["rope_theta"].as_f64());
    file.real(&key("freq_base"), theta.unwrap_or(10_000.0));
    let local = config["rope_local_base_freq"].as_f64().or_else(|| all["sliding_attention"]["rope_theta"].as_f64());
    if let Some(theta) = local {
        file.real(&key("freq_base_swa"), theta);
    }
    let real = |name: &str| rope[name].as_f64();
    match rope["rope_type"].as_str().or_else(|| rope["type"].as_str()) {
        Some("linear") => {
            file.text(&key("scaling.type"), "linear");
            file.real(&key("scaling.factor"), real("factor").unwrap());
        }
        Some("longrope") => {
            // The kind is only written if it is called `rope_type`.
            let number = |name: &str| config[name].as_f64().unwrap();
            let (longest, original) = (number("max_position_embeddings"), number("original_max_position_embeddings"));
            file.number(&key("scaling.original_context_length"), original as usize);
            let grown = longest / original;
            let factor = if grown > 1.0 { (1.0 + grown.ln() / original.ln()).sqrt() } else { 1.0 };
            file.real(&key("scaling.attn_factor"), factor);
        }
        Some("yarn") => {
            file.text(&key("scaling.type"), "yarn");
            file.real(&key("scaling.factor"), real("factor").unwrap());
            let original = real("original_max_position_embeddings").unwrap();
            file.number(&key("scaling.original_context_length"), original as usize);
            for (name, gguf) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                if let Some(value) = real(name) {
                    file.real(&key(&format!("scaling.{gguf}")), value);
                }
            }
            if let Some(by) = real("mscale_all_dim") {
                let by = if architecture == "deepseek2" { 0.1 * by } else { by };
                file.real(&key("scaling.yarn_log_multiplier"), by);
            }
        }
        _ => (),
    }
    if let Some(beta) = real("llama_4_scaling_beta") {
        file.real(&format!("{architecture}.attention.temperature_scale"), beta);
    }
}

/// The factors of periods that some files have as tensors.
pub fn factors(file: &mut GgufFile, architecture: &str, config: &Value) {
    for (name, gguf) in [("long_factor", "rope_factors_long"), ("short_factor", "rope_factors_short")] {
        let list = config["rope_scaling"][name].as_array().into_iter().flatten();
        let list: Vec<f32> = list.map(|number| number.as_f64().unwrap() as f32).collect();
        if !list.is_empty() {
            file.tensor(&format!("{gguf}.weight"), &[list.len()], F32, &f32_bytes(&list));
        }
    }
    if architecture == "gemma4" {
        let half = config["global_head_dim"].as_u64().unwrap() as usize / 2;
        let share = config["rope_parameters"]["full_attention"]["partial_rotary_factor"].as_f64().unwrap();
        let turning = (half as f64 * share) as usize;
        let list: Vec<f32> = (0..half).map(|at| if at < turning { 1.0 } else { 1e30 }).collect();
        file.tensor("rope_freqs.weight", &[half], F32, &f32_bytes(&list));
    }
}
