//! Configurations: what they become, and which are refused.

use super::*;
use serde_json::json;

fn llama() -> Json {
    json!({
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
        "eos_token_id": [2, 3]
    })
}

#[test]
fn what_would_be_computed_otherwise_is_refused_by_name() {
    for (key, value, words) in [
        ("layer_types", json!(["full_attention", "sliding_attention"]), "sliding_attention layers without a window"),
        ("layer_types", json!(["full_attention"]), "the number of layer types = 1"),
        ("layer_types", json!(["full_attention", "chunked_attention"]), "chunked_attention layers"),
        ("sliding_window", json!("wide"), "sliding_window = \"wide\""),
        ("partial_rotary_factor", json!(0.5), "rotary embedding of only 8 of a head's 16"),
        (
            "rope_parameters",
            json!({ "partial_rotary_factor": 0.25, "rope_theta": 1e4 }),
            "rotary embedding of only 4 of a head's 16",
        ),
        ("rope_scaling", json!({ "factor": 4.0 }), "rope scaling without a type"),
        ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 }), "rope scaling dynamic"),
        ("rope_parameters", json!({ "rope_type": "longrope", "rope_theta": 1e4 }), "the number of long_factor = 0"),
        ("rope_parameters", json!({ "rope_type": "su2", "rope_theta": 1e4 }), "rope scaling su2"),
        ("hidden_act", json!("gelu"), "hidden_act = gelu"),
        ("rope_traditional", json!(true), "rope_traditional"),
        ("quantization_config", json!({ "quant_method": "gptq", "bits": 4 }), "weights quantized by gptq"),
        ("quantization_config", json!({ "quant_method": "fp8", "fmt": "e5m2" }), "FP8 weights in e5m2"),
    ] {
        let mut json = llama();
        json[key] = value;
        let message = ModelConfig::from_json(&json).unwrap_err().to_string();
        assert!(message.contains(words), "{key}: {message}");
    }
    for (key, value) in [
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("partial_rotary_factor", json!(1.0)),
        ("rope_scaling", json!(null)),
        ("hidden_act", json!("silu")),
        ("rope_traditional", json!(false)),
        ("quantization_config", json!({ "group_size": 64, "bits": 4 })),
        ("quantization_config", json!({ "quant_method": "bitsandbytes", "load_in_4bit": true })),
        ("quantization_config", json!({ "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128] })),
    ] {
        let mut json = llama();
        json[key] = value;
        assert!(ModelConfig::from_json(&json).is_ok(), "{key}");
    }
    let mut converted = llama();
    converted["quantization_config"] = json!({ "quant_method": "gptq" });
    converted["quantization"] = json!({ "group_size": 64, "bits": 4 });
    assert!(ModelConfig::from_json(&converted).is_ok(), "MLX's own key decides");
}

#[test]
fn each_layer_has_the_window_that_the_configuration_gives_it() {
    let windows = |model: &str, changes: &[(&str, Json)]| {
        let mut json = llama();
        json["model_type"] = model.into();
        json["max_position_embeddings"] = 32_768.into();
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        let config = ModelConfig::from_json(&json).unwrap();
        assert_eq!(config.max_context, 32_768);
        config.specs.iter().map(|layer| layer.attention().unwrap().window).collect::<Vec<_>>()
    };
    let kinds = |first: &str| ("layer_types", json!([first, "full_attention"]));
    // Mistral 7B v0.1, and where a window is written otherwise.
    assert_eq!(windows("mistral", &[("sliding_window", json!(4096))]), [Some(4096); 2]);
    assert_eq!(windows("mistral", &[("attention_window", json!([512, 256]))]), [Some(512), Some(256)]);
    let first = [("sliding_window", json!(4096)), kinds("sliding_attention")];
    assert_eq!(windows("llama", &first), [Some(4096), None]);
    let partly = [("use_sliding_window", json!(true)), ("max_window_layers", json!(1))];
    let partly = [partly.as_slice(), &[("sliding_window", json!(4096))]].concat();
    assert_eq!(windows("mistral", &partly), [None, Some(4096)]);
    assert_eq!(windows("qwen2", &partly), [None, Some(4096)]);
    // Mistral 7B v0.3, and where a window is written but no layer uses it.
    for none in [json!(null), json!(0), json!(-1)] {
        assert_eq!(windows("mistral", &[("sliding_window", none)]), [None; 2]);
    }
    let unused = ("sliding_window", json!(4096));
    assert_eq!(windows("qwen2", std::slice::from_ref(&unused)), [None; 2]);
    assert_eq!(windows("mistral", &[unused.clone(), ("use_sliding_window", json!(false))]), [None; 2]);
    assert_eq!(windows("mistral", &[unused.clone(), kinds("full_attention")]), [None; 2]);
    let beyond = [("use_sliding_window", json!(true)), ("max_window_layers", json!(2))];
    assert_eq!(windows("mistral", &[beyond.as_slice(), &[unused]].concat()), [None; 2]);
}

#[test]
fn families_that_rotate_whole_heads_refuse_another_rotation_by_name() {
    let experts = json!({ "num_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2,
        "num_local_experts": 8, "layer_types": ["full_attention", "full_attention"] });
    let whole = ["llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "smollm3", "granite", "olmo2", "gpt_oss"];
    for model in whole.into_iter().chain(["gemma3_text", "ministral3"]) {
        let mut family = experts.clone();
        family["model_type"] = model.into();
        family["head_dim"] = 16.into();
        if model == "gemma3_text" {
            family["hidden_act"] = "gelu_pytorch_tanh".into();
        }
        assert_eq!(read(&family, "partial_rotary_factor", json!(1.0)), Ok(()), "{model}");
        for (factor, rotated) in [(0.5, 8), (0.0, 0), (-1.0, 0)] {
            let why = read(&family, "partial_rotary_factor", json!(factor)).unwrap_err();
            assert!(why.contains(&format!("rotary embedding of only {rotated} of a head's 16")), "{model}: {why}");
        }
    }
    let phi = json!({ "model_type": "phi3" });
    assert_eq!(read(&phi, "partial_rotary_factor", json!(0.5)), Ok(()));
    for none in [0.0, -0.5, 0.01] {
        let why = read(&phi, "partial_rotary_factor", json!(none)).unwrap_err();
        assert!(why.contains("the number of rotated dimensions = 0"), "{why}");
    }
}

#[test]
fn gemma3_has_the_kinds_of_layers_that_it_names() {
    let gemma = json!({ "model_type": "gemma3_text" });
    let [full, slides] = ["full_attention", "sliding_attention"];
    for kinds in [json!(null), json!([]), json!([slides, full])] {
        assert_eq!(read(&gemma, "layer_types", kinds), Ok(()));
    }
    for (kinds, words) in [
        (json!([slides, "chunked_attention"]), "chunked_attention layers"),
        (json!([slides]), "the number of layer types = 1"),
        (json!([slides, full, full]), "the number of layer types = 3"),
        (json!([null, null]), "layer_types = a list of 2"),
        (json!("full_attention"), "layer_types = \"full_attention\""),
    ] {
        let why = read(&gemma, "layer_types", kinds).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    let none = json!({ "model_type": "gemma3_text", "layer_types": [slides, full] });
    assert!(read(&none, "sliding_window", json!(0)).unwrap_err().contains("layers without a window"));
}

#[test]
fn gemma3_has_a_rotation_for_each_kind_of_layers_wherever_the_configuration_says_it() {
    let thetas = |change: (&str, Json)| {
        let mut json = llama();
        json["model_type"] = "gemma3_text".into();
        json["layer_types"] = json!(["sliding_attention", "full_attention"]);
        json[change.0] = change.1;
        let config = ModelConfig::from_json(&json).unwrap();
        [0, 1].map(|layer| config.specs[layer].attention().unwrap().rope.as_ref().unwrap().theta)
    };
    assert_eq!(thetas(("rope_theta", json!(null))), [1e4, 1e6]);
    assert_eq!(thetas(("rope_local_base_freq", json!(3e4))), [3e4, 1e6]);
    let by_kind = json!({ "full_attention": { "rope_type": "default", "rope_theta": 5e5 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 2e4 } });
    assert_eq!(thetas(("rope_parameters", by_kind)), [2e4, 5e5]);
}

#[test]
fn a_key_of_another_type_is_not_one_that_is_left_out() {
    let gpt = json!({ "model_type": "gpt_oss", "num_local_experts": 8, "num_experts_per_tok": 2 });
    let glm = json!({ "model_type": "glm4_moe", "n_routed_experts": 8, "moe_intermediate_size": 32,
        "num_experts_per_tok": 2 });
    let smol = json!({ "model_type": "smollm3" });
    let plain = json!({});
    for (family, key, value, words) in [
        (&plain, "rope_theta", json!("1e6"), "rope_theta = \"1e6\""),
        (&plain, "max_position_embeddings", json!("32768"), "max_position_embeddings = \"32768\""),
        (&plain, "max_position_embeddings", json!(32768.5), "max_position_embeddings = 32768.5"),
        (&plain, "head_dim", json!(-16), "head_dim = -16"),
        (&plain, "num_key_value_heads", json!([2]), "num_key_value_heads = a list of 1"),
        (&plain, "tie_word_embeddings", json!("true"), "tie_word_embeddings = \"true\""),
        (&plain, "hidden_act", json!(1), "hidden_act = 1"),
        (&plain, "rope_scaling", json!("linear"), "rope_scaling = \"linear\""),
        (&plain, "rope_scaling", json!({ "type": "linear", "factor": "8" }), "factor = \"8\""),
        (&plain, "rope_scaling", json!({ "type": 1, "factor": 8 }), "type = 1"),
        (&plain, "partial_rotary_factor", json!("0.5"), "partial_rotary_factor = \"0.5\""),
        (&gpt, "sliding_window", json!("wide"), "sliding_window = \"wide\""),
        (&gpt, "swiglu_limit", json!([7]), "swiglu_limit = a list of 1"),
        (&glm, "n_group", json!("8"), "n_group = \"8\""),
        (&glm, "routed_scaling_factor", json!("2.5"), "routed_scaling_factor = \"2.5\""),
        (&glm, "norm_topk_prob", json!("false"), "norm_topk_prob = \"false\""),
        (&smol, "no_rope_layers", json!(["a", 1]), "no_rope_layers = a list of 2"),
        (&plain, "rope_theta", json!("a".repeat(1000)), "aaa…, which"),
    ] {
        let why = read(family, key, value).unwrap_err();
        assert!(why.contains(words), "{key}: {why}");
        assert_eq!(read(family, key, json!(null)), Ok(()), "{key}");
    }
    let mut json = llama();
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"] {
        json[key] = json!(json[key].as_f64().unwrap());
    }
    json["head_dim"] = json!(16.0);
    json["max_position_embeddings"] = json!(32768.0);
    let config = ModelConfig::from_json(&json).unwrap();
    assert_eq!((config.hidden, config.layers, config.head_dim, config.max_context), (64, 2, 16, 32_768));
    assert_eq!(read(&smol, "no_rope_layers", json!([true, false])), Ok(()));
}

#[test]
fn factors_of_a_rotation_are_as_many_as_its_pairs_and_do_not_fill_the_memory() {
    let wide = json!({ "model_type": "phi3", "hidden_size": 32, "num_attention_heads": 1, "num_key_value_heads": 1,
        "num_hidden_layers": 4096, "head_dim": 1 << 20 });
    let long = json!({ "type": "longrope", "long_factor": vec![1; 1 << 19] });
    assert!(read(&wide, "rope_scaling", long.clone()).unwrap_err().contains("the head size = 1048576"));
    let mut partly = wide;
    partly["head_dim"] = 16.into();
    partly["partial_rotary_factor"] = json!(65_536);
    assert!(read(&partly, "rope_scaling", long).unwrap_err().contains("the number of long_factor = 524288"));
    // Of a head of 16 dimensions, but of these layers 8 are rotated.
    let deepseek = json!({ "model_type": "deepseek_v3", "n_routed_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "kv_lora_rank": 48, "qk_rope_head_dim": 8, "qk_nope_head_dim": 32,
        "v_head_dim": 32 });
    let why = read(&deepseek, "rope_scaling", json!({ "type": "longrope", "long_factor": vec![1; 8] })).unwrap_err();
    assert!(why.contains("the number of factors of the rotation = 8"), "{why}");
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    for name in ["mamba", "nemotron_h", "minimax_m2", "Llama"] {
        let mut json = llama();
        json["model_type"] = name.into();
        let message = ModelConfig::from_json(&json).unwrap_err().to_string();
        assert!(message.contains(&format!("\"{name}\"")) && message.contains("llama, mistral, qwen2"), "{message}");
    }
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    for (key, value) in [
        ("num_hidden_layers", json!(0)),
        ("hidden_size", json!(1u64 << 60)),
        ("num_key_value_heads", json!(3)),
        ("rms_norm_eps", json!(1e300)),
        ("rope_theta", json!(0)),
        ("rope_scaling", json!({ "type": "linear", "factor": 0 })),
        ("rope_scaling", json!({ "type": "linear", "factor": -2.0 })),
        ("rope_scaling", json!({ "type": "llama3", "factor": 1e300 })),
        ("embedding_multiplier", json!(-1.0)),
        ("logits_scaling", json!(1e300)),
        ("attention_multiplier", json!(-1.0)),
        ("residual_multiplier", json!(1e300)),
    ] {
        let mut json = llama();
        if key.ends_with("multiplier") || key == "logits_scaling" {
            json["model_type"] = "granite".into();
        }
        json[key] = value;
        assert!(matches!(ModelConfig::from_json(&json), Err(ConfigError::Value { .. })), "{key}");
    }
}

/// A Llama with the keys of another family, and one more.
fn read(family: &Json, key: &str, value: Json) -> Result<(), String> {
    let mut json = llama();
    for (key, value) in family.as_object().unwrap() {
        json[key] = value.clone();
    }
    json[key] = value;
    ModelConfig::from_json(&json).map(drop).map_err(|error| error.to_string())
}

#[test]
fn experts_that_cannot_be_are_refused() {
    let glm = json!({ "model_type": "glm4_moe", "n_routed_experts": 8, "moe_intermediate_size": 32,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "partial_rotary_factor": 0.5 });
    let qwen =
        json!({ "model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 32, "num_experts_per_tok": 2 });
    let gpt = json!({ "model_type": "gpt_oss", "num_local_experts": 8, "num_experts_per_tok": 2 });
    for family in [&glm, &qwen, &gpt] {
        assert_eq!(read(family, "num_experts_per_tok", json!(2)), Ok(()));
    }
    for (family, key, value, words) in [
        (&qwen, "num_experts_per_tok", json!(9), "the number of experts per token = 9"),
        (&qwen, "num_experts_per_tok", json!(0), "the number of experts per token = 0"),
        (&qwen, "num_experts", json!(0), "the number of experts = 0"),
        (&qwen, "num_experts", json!(1u64 << 40), "the number of experts = 1099511627776"),
        (&qwen, "num_experts", json!(null), "no num_experts"),
        (&qwen, "moe_intermediate_size", json!(0), "the intermediate size of an expert = 0"),
        (&glm, "n_group", json!(3), "the number of groups of experts = 3"),
        (&glm, "topk_group", json!(3), "the number of groups of experts per token = 3"),
        // One group of four cannot give five.
        (&glm, "num_experts_per_tok", json!(5), "the number of groups of experts per token = 1"),
        (&glm, "n_shared_experts", json!(1u64 << 40), "the intermediate size of the shared expert"),
        (&glm, "routed_scaling_factor", json!(0), "the factor on the experts' shares = 0"),
        (&glm, "routed_scaling_factor", json!(-2.5), "the factor on the experts' shares = -2.5"),
        (&glm, "routed_scaling_factor", json!(1e300), "the factor on the experts' shares = inf"),
        (&gpt, "swiglu_limit", json!(-7), "the limit of what experts compute = -7"),
        (&gpt, "swiglu_limit", json!(0), "the limit of what experts compute = 0"),
        (&gpt, "swiglu_limit", json!(1e300), "the limit of what experts compute = inf"),
        (&glm, "partial_rotary_factor", json!(1.5), "the number of rotated dimensions = 24"),
    ] {
        let message = read(family, key, value).unwrap_err();
        assert!(message.contains(words), "{key}: {message}");
    }
}

#[test]
fn states_and_latent_rows_that_cannot_be_are_refused() {
    let qwen = json!({ "model_type": "qwen3_5", "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 16, "partial_rotary_factor": 0.5 });
    let deepseek = json!({ "model_type": "deepseek_v3", "n_routed_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "kv_lora_rank": 48, "q_lora_rank": null, "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 32, "v_head_dim": 32 });
    for family in [&qwen, &deepseek] {
        assert_eq!(read(family, "bos_token_id", json!(1)), Ok(()));
    }
    for (family, key, value, words) in [
        (&qwen, "linear_num_value_heads", json!(3), "the number of value heads of linear attention = 3"),
        (&qwen, "linear_num_key_heads", json!(0), "the number of key heads of linear attention = 0"),
        (&qwen, "linear_key_head_dim", json!(1u64 << 40), "the size of a key of linear attention"),
        (&qwen, "linear_value_head_dim", json!(null), "no linear_value_head_dim"),
        (&qwen, "linear_conv_kernel_dim", json!(0), "the size of the convolution = 0"),
        (&deepseek, "kv_lora_rank", json!(0), "kv_lora_rank = 0"),
        (&deepseek, "v_head_dim", json!(1u64 << 40), "v_head_dim = 1099511627776"),
        (&deepseek, "qk_rope_head_dim", json!(15), "qk_rope_head_dim = 15"),
        (&deepseek, "qk_nope_head_dim", json!(null), "no qk_nope_head_dim"),
        (&deepseek, "scoring_func", json!("softmax"), "scoring_func = softmax"),
    ] {
        let message = read(family, key, value).unwrap_err();
        assert!(message.contains(words), "{key}: {message}");
    }
}

#[test]
fn yarn_keeps_short_periods_and_stretches_long_ones() {
    let rope = |truncate: bool| {
        let mut json = llama();
        json["head_dim"] = json!(64);
        json["rope_theta"] = json!(150_000);
        json["rope_scaling"] = json!({
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "original_max_position_embeddings": 4096, "truncate": truncate
        });
        ModelConfig::from_json(&json).unwrap().rope
    };
    let (rope, exact) = (rope(true), rope(false));
    let (plain, stretched) = (rope.plain_periods(64), rope.periods(64).unwrap());
    // Below the 8th pair and above the 18th.
    assert!((0..=8).all(|at| (stretched[at] / plain[at] - 1.0).abs() < 1e-5));
    assert!((18..32).all(|at| (stretched[at] / plain[at] - 32.0).abs() < 1e-3));
    assert!((rope.magnitude() - (0.1 * 32f32.ln() + 1.0)).abs() < 1e-6);
    // gpt-oss: the ramp begins at 8.09 and ends at 17.4.
    let exact = exact.periods(64).unwrap();
    assert!((exact[17] / plain[17]) > (stretched[17] / plain[17]) && (exact[9] / plain[9]) < (stretched[9] / plain[9]));
}

#[test]
fn a_model_that_also_reads_images_is_its_texts_part() {
    let text =
        json!({ "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "model_type": "gemma3_text" });
    let json = json!({ "model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106], "vision_config": {} });
    let config = ModelConfig::from_json(&json).unwrap();
    assert_eq!((config.architecture.as_str(), config.end_tokens.as_slice()), ("gemma3_text", &[1, 106][..]));
    assert!(config.unused.senses);
    // What the file leaves out is what it means in Transformers.
    assert_eq!((config.heads, config.kv_heads, config.head_dim, config.vocabulary), (8, 4, 256, 262_208));
    let mut unknown = json;
    unknown["model_type"] = "qwen4_vl".into();
    unknown["text_config"]["model_type"] = "qwen4_text".into();
    let message = ModelConfig::from_json(&unknown).unwrap_err().to_string();
    assert!(message.contains("\"qwen4_vl\""), "{message}");
}

#[test]
fn llama3_stretches_long_periods_only() {
    let mut json = llama();
    json["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    json["rope_theta"] = json!(500_000.0);
    json["head_dim"] = json!(128);
    let rope = ModelConfig::from_json(&json).unwrap().rope;
    let (plain, stretched) = (rope.plain_periods(128), rope.periods(128).unwrap());
    assert_eq!(stretched[0], plain[0]);
    assert_eq!(stretched[63], plain[63] * 8.0);
    assert!(stretched.iter().zip(&plain).all(|(s, p)| s >= p && *s <= p * 8.0));
}
