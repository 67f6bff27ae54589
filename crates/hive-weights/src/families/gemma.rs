//! Gemma 3 and 4: windows in most layers, norms around each half, a rotation of its own for the windows.

use serde_json::Value as Json;

use super::keys::{Keys, real, text};
use crate::config::{
    Activation, AttentionSpec, ConfigError, DenseSpec, ExpertsSpec, HeadNorms, KvSource, LayerInputsSpec, LayerSpec,
    ModelConfig, NetworkSpec, Norms, Rope, RopeScaling, Router,
};

/// `gemma3_text`, and the text's part of `gemma3`.
pub(super) fn gemma3(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["gelu_pytorch_tanh"])?;
    keys.rotates_whole_heads(config.head_dim)?;
    config.ends.norms_from_one = true;
    // As bfloat16, in which the models were trained.
    config.ends.embedding = half::bf16::from_f32((config.hidden as f32).sqrt()).to_f32();
    let window = keys.number(("sliding_window", "attention.sliding_window"))?.filter(|window| *window > 0);
    let pattern = keys.number(("sliding_window_pattern", "attention.sliding_window_pattern"))?.unwrap_or(6).max(1);
    let local = match keys.real(("rope_local_base_freq", "rope.freq_base_swa"))? {
        Some(theta) => Rope { theta, scaling: RopeScaling::None },
        None => sliding_rope(keys)?,
    };
    // GGUF does not say it. Only that of the model of 27 billion weights, which has 62 layers, is not a head's width.
    let is_largest = matches!(keys, Keys::Gguf(..)) && config.layers == 62;
    let of_head = if is_largest { config.hidden / config.heads } else { config.head_dim };
    let scalar = keys.real(("query_pre_attn_scalar", ""))?.unwrap_or(of_head as f32);
    config.ends.soft_cap = keys.real(("", "final_logit_softcapping"))?.filter(|cap| *cap != 0.0);
    let kinds = keys.kinds()?;
    if !kinds.is_empty() {
        // Refuses other kinds, and another number of them.
        keys.windows(config.layers)?;
    }
    let slides = |index: usize| match kinds.get(index) {
        Some(kind) => *kind == "sliding_attention",
        None => !(index + 1).is_multiple_of(pattern),
    };
    let full = AttentionSpec { head_norms: HeadNorms::Each, scale: scalar.powf(-0.5), ..config.plain_attention() };
    let sliding = AttentionSpec { rope: Some(local), window, ..full.clone() };
    let network = DenseSpec { activation: Activation::Gelu, ..config.plain_network() };
    let layer = |index: usize| LayerSpec {
        norms: Norms::Around,
        network: NetworkSpec::Dense(network.clone()),
        ..config.attending(if slides(index) { sliding.clone() } else { full.clone() })
    };
    Ok((0..config.layers).map(layer).collect())
}

/// `gemma4_text`, and the text's part of `gemma4`: windows and full attention with heads of their own, values with
/// norms. The small ones have inputs to every layer and share keys and values; the large ones have one projection of
/// both, or experts.
pub(super) fn gemma4(config: &mut ModelConfig, keys: &Keys<'_>) -> Result<Vec<LayerSpec>, ConfigError> {
    keys.has_activation(&["gelu_pytorch_tanh"])?;
    // A yes or no, or for which tokens.
    if let Keys::Json(json) = keys
        && (json["use_bidirectional_attention"] == true || json["use_bidirectional_attention"] == "all")
    {
        return Err(ConfigError::Unsupported("attention to what comes later".to_owned()));
    }
    let number =
        |name, left_out: usize| Ok::<_, ConfigError>(keys.unless_null(name, left_out as f64)?.unwrap_or(0.0) as usize);
    config.ends.embedding = (config.hidden as f32).sqrt();
    config.ends.soft_cap =
        keys.unless_null(("final_logit_softcapping", "final_logit_softcapping"), 30.0)?.map(|cap| cap as f32);
    let input = Some(number(("hidden_size_per_layer_input", "embedding_length_per_layer_input"), 256)?)
        .filter(|width| *width > 0);
    let vocabulary = keys.number(("vocab_size_per_layer_input", ""))?.unwrap_or(config.vocabulary);
    config.ends.layer_inputs = input.map(|width| LayerInputsSpec { width, vocabulary });

    let slides = sliding(config, keys)?;
    let window = keys.number(("sliding_window", "attention.sliding_window"))?.filter(|window| *window > 0);
    let plain = AttentionSpec { head_norms: HeadNorms::Each, scale: 1.0, ..config.plain_attention() };
    let local =
        AttentionSpec { rope: Some(sliding_rope(keys)?), window, source: KvSource::NormedValues, ..plain.clone() };
    let width = Some(number(("global_head_dim", "attention.key_length"), 512)?)
        .filter(|width| *width > 0)
        .unwrap_or(config.head_dim);
    // GGUF says it by what there is.
    let full = slides.iter().position(|slides| !slides);
    let values = full.and_then(|full| keys.has_tensor(&format!("model.layers.{full}.self_attn.v_proj.weight")));
    let is_joint = match values {
        None => keys.flag(("attention_k_eq_v", ""))? == Some(true),
        Some(has_values) => !has_values,
    };
    let of_full = full.and_then(|full| keys.of_layers("attention.head_count_kv")?.get(full).copied());
    let kv_heads = of_full.or(keys.number(("num_global_key_value_heads", ""))?.filter(|_| is_joint));
    let global = AttentionSpec {
        head_dim: width,
        rotated: width,
        kv_heads: kv_heads.unwrap_or(config.kv_heads),
        source: if is_joint { KvSource::Joint } else { KvSource::NormedValues },
        ..plain
    };
    let first_shared =
        config.layers.saturating_sub(number(("num_kv_shared_layers", "attention.shared_kv_layers"), 20)?);
    let widths = keys.of_layers("feed_forward_length");
    let is_wide = keys.flag(("use_double_wide_mlp", ""))? == Some(true)
        || widths.is_some_and(|widths| widths.last().is_some_and(|last| *last == 2 * config.intermediate));
    let has_experts = keys.flag(("enable_moe_block", ""))? == Some(true)
        || keys.number(("", "expert_count"))?.is_some_and(|count| count > 0);
    let experts = if has_experts { Some(experts(keys)?) } else { None };
    let layer = |index: usize| {
        let mut attention = if slides[index] { local.clone() } else { global.clone() };
        let shares = index >= first_shared;
        if shares {
            // The last one of its kind that has its own.
            let owner = slides[..first_shared].iter().rposition(|kind| *kind == slides[index]);
            let shared = (config.layers - first_shared).to_string();
            let none = ConfigError::Value { key: "the number of layers that share keys and values", value: shared };
            attention.source = KvSource::Layer(owner.ok_or(none)?);
        }
        let widening = if is_wide && shares { 2 } else { 1 };
        let network = DenseSpec {
            activation: Activation::Gelu,
            intermediate: widening * config.intermediate,
            ..config.plain_network()
        };
        Ok(LayerSpec {
            norms: Norms::Around,
            network: match &experts {
                Some(experts) => NetworkSpec::Both(network, experts.clone()),
                None => NetworkSpec::Dense(network),
            },
            layer_input: input,
            has_scalar: true,
            ..config.attending(attention)
        })
    };
    (0..config.layers).map(layer).collect()
}

/// Which layers have a window.
fn sliding(config: &ModelConfig, keys: &Keys<'_>) -> Result<Vec<bool>, ConfigError> {
    let kinds = keys.kinds()?;
    if kinds.is_empty() {
        let pattern = keys.number(("sliding_window_pattern", ""))?.unwrap_or(5).max(1);
        return Ok((0..config.layers).map(|index| !(index + 1).is_multiple_of(pattern)).collect());
    }
    // Refuses other kinds, and another number of them.
    keys.windows(config.layers)?;
    Ok(kinds.into_iter().map(|kind| kind == "sliding_attention").collect())
}

/// The rotation of layers with a window.
fn sliding_rope(keys: &Keys<'_>) -> Result<Rope, ConfigError> {
    if let Some(theta) = keys.real(("", "rope.freq_base_swa"))? {
        return Ok(Rope { theta, scaling: RopeScaling::None });
    }
    let parameters = keys.rope_of_kind("sliding_attention")?.unwrap_or(&Json::Null);
    if let Some(other) = text(parameters, "rope_type")?.filter(|kind| *kind != "default") {
        return Err(ConfigError::Unsupported(format!("rope scaling {other}")));
    }
    let theta = real(parameters, "rope_theta")?.unwrap_or(10_000.0);
    Ok(Rope { theta, scaling: RopeScaling::None })
}

fn experts(keys: &Keys<'_>) -> Result<ExpertsSpec, ConfigError> {
    Ok(ExpertsSpec {
        count: keys.required(("num_experts", "expert_count"))?,
        per_token: keys.required(("top_k_experts", "expert_used_count"))?,
        intermediate: keys.required(("moe_intermediate_size", "expert_feed_forward_length"))?,
        activation: Activation::Gelu,
        router: Router::Normed,
        module: "experts",
        router_name: "proj",
        stacked: "switch_glu",
        shared: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::names::{is_computed, is_known};
    use serde_json::json;

    /// With three layers of its own and two that share keys and values.
    fn small(changes: &[(&str, Json)]) -> Result<ModelConfig, ConfigError> {
        let [full, slides] = ["full_attention", "sliding_attention"];
        let mut json = json!({
            "model_type": "gemma4_text", "hidden_size": 64, "num_hidden_layers": 5, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "global_head_dim": 64,
            "vocab_size": 80, "vocab_size_per_layer_input": 80, "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 2, "layer_types": [slides, slides, full, slides, full]
        });
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        ModelConfig::from_json(&json)
    }

    #[test]
    fn the_last_layers_share_keys_and_values_with_the_last_one_of_their_kind_and_are_not_cut_off_from_it() {
        let config = small(&[]).unwrap();
        let sources = config.specs.iter().map(|spec| spec.attention().unwrap().source);
        let own = KvSource::NormedValues;
        assert!(sources.eq([own, own, own, KvSource::Layer(1), KvSource::Layer(2)]));
        assert_eq!(config.uncut(), [2, 3, 4]);
        assert_eq!(config.boundary_width(), 64 + 4 * 16);
        let widths = config.specs.iter().map(|spec| match &spec.network {
            NetworkSpec::Dense(dense) => dense.intermediate,
            _ => 0,
        });
        assert!(widths.eq([128, 128, 128, 256, 256]));
        let alone = small(&[("num_kv_shared_layers", json!(0)), ("hidden_size_per_layer_input", json!(null))]).unwrap();
        assert_eq!((alone.uncut(), alone.boundary_width()), (Vec::new(), 64));
        assert!(alone.ends.layer_inputs.is_none());
    }

    #[test]
    fn a_key_that_is_null_is_not_one_that_is_left_out() {
        assert_eq!(small(&[]).unwrap().ends.soft_cap, Some(30.0));
        assert_eq!(small(&[("final_logit_softcapping", json!(null))]).unwrap().ends.soft_cap, None);
        let widths = |config: ModelConfig| config.specs.iter().map(|spec| spec.attention().unwrap().head_dim).max();
        assert_eq!(widths(small(&[]).unwrap()), Some(64));
        assert_eq!(widths(small(&[("global_head_dim", json!(null))]).unwrap()), Some(32));
        // Everything left out is E2B.
        let config = ModelConfig::from_json(&json!({ "model_type": "gemma4_text" })).unwrap();
        let shared = config
            .specs
            .iter()
            .position(|spec| matches!(spec.attention().map(|attention| attention.source), Some(KvSource::Layer(_))));
        assert_eq!((config.layers, shared, config.uncut().first()), (35, Some(15), Some(&14)));
        assert_eq!((config.hidden, config.boundary_width()), (1536, 1536 + 34 * 256));
    }

    #[test]
    fn keys_and_values_of_a_layer_that_has_none_of_its_own_are_left_out_and_other_tensors_refused() {
        let config = small(&[]).unwrap();
        for (part, layer) in [("k_proj.weight", 3), ("v_proj.scales", 4), ("k_norm.weight", 3)] {
            let name = |layer: usize| format!("model.layers.{layer}.self_attn.{part}");
            assert!(is_known(&name(layer), &config) && !is_computed(&name(layer), &config), "{part}");
            assert!(is_computed(&name(1), &config), "{part}");
        }
        let joint = small(&[("attention_k_eq_v", json!(true)), ("num_kv_shared_layers", json!(0))]).unwrap();
        assert!(is_computed("model.layers.1.self_attn.v_proj.weight", &joint));
        for unknown in [
            "model.layers.2.self_attn.v_proj.weight",
            "model.layers.2.self_attn.v_norm.weight",
            "model.layers.2.router.proj.weight",
            "model.layers.2.router.scale",
            "model.layers.2.post_feedforward_layernorm_1.weight",
            "model.layers.2.experts.switch_glu.up_proj.weight",
        ] {
            assert!(!is_known(unknown, &joint), "{unknown}");
        }
    }

    #[test]
    fn a_model_that_also_sees_and_hears_is_its_texts_part_whatever_that_is_called() {
        for (name, text) in [("gemma4", "gemma4_text"), ("gemma4_unified", "gemma4_unified_text")] {
            let json = json!({ "model_type": name, "text_config": { "model_type": text }, "vision_config": {} });
            let config = ModelConfig::from_json(&json).unwrap();
            assert_eq!((config.architecture.as_str(), config.hidden), (text, 1536));
            for module in ["vision_tower", "audio_tower", "embed_vision", "embed_audio", "vision_embedder"] {
                for name in [format!("{module}.x.weight"), format!("model.{module}.x.weight")] {
                    assert!(is_known(&name, &config) && !is_computed(&name, &config), "{name}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_or_would_be_computed_otherwise_is_refused_in_a_sentence() {
        let experts = ("enable_moe_block", json!(true));
        let full = json!(["full_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"]);
        let ropes = |full: Json, sliding: Json| json!({ "full_attention": full, "sliding_attention": sliding });
        let plain = || json!({ "rope_theta": 1e4 });
        for (changes, words) in [
            (vec![("num_kv_shared_layers", json!(5))], "the number of layers that share keys and values = 5"),
            (vec![("num_kv_shared_layers", json!(1u64 << 60))], "the number of layers that share keys and values"),
            (vec![("layer_types", full)], "the number of layers that share keys and values = 2"),
            (vec![("layer_types", json!(["full_attention"]))], "the number of layer types = 1"),
            (vec![("global_head_dim", json!(63))], "the head size = 63"),
            (vec![("global_head_dim", json!(1u64 << 40))], "the head size = 1099511627776"),
            (
                vec![("attention_k_eq_v", json!(true)), ("num_global_key_value_heads", json!(3))],
                "the number of key-value heads = 3",
            ),
            (
                vec![("attention_k_eq_v", json!(true)), ("num_global_key_value_heads", json!(0))],
                "the number of key-value heads = 0",
            ),
            (vec![("final_logit_softcapping", json!(0.0))], "the soft cap of the logits = 0"),
            (vec![("final_logit_softcapping", json!(-30))], "the soft cap of the logits = -30"),
            (vec![("hidden_size_per_layer_input", json!(1u64 << 40))], "the width of a layer's own input"),
            (vec![("vocab_size_per_layer_input", json!(79))], "the vocabulary of the layers' own inputs = 79"),
            (vec![("sliding_window", json!(0))], "sliding_attention layers without a window"),
            (vec![("hidden_act", json!("silu"))], "hidden_act = silu"),
            (vec![("use_bidirectional_attention", json!("all"))], "attention to what comes later"),
            (vec![("rope_parameters", ropes(plain(), json!({ "rope_type": "yarn" })))], "rope scaling yarn"),
            (vec![("rope_parameters", ropes(plain(), json!({ "rope_theta": 0 })))], "the rotary base = 0"),
            (
                vec![(
                    "rope_parameters",
                    ropes(json!({ "rope_type": "proportional", "partial_rotary_factor": 1.5 }), plain()),
                )],
                "the share of rotated dimensions = 1.5",
            ),
            (vec![experts.clone()], "no num_experts"),
            (
                vec![
                    experts,
                    ("num_experts", json!(8)),
                    ("top_k_experts", json!(9)),
                    ("moe_intermediate_size", json!(16)),
                ],
                "the number of experts per token = 9",
            ),
        ] {
            let message = small(&changes).unwrap_err().to_string();
            assert!(message.contains(words), "{changes:?}: {message}");
        }
    }

    #[test]
    fn of_a_proportional_rotation_only_the_first_pairs_turn_as_if_all_did() {
        let config = small(&[]).unwrap();
        let rope = config.specs[2].attention().unwrap().rope.clone().unwrap();
        let (all, turning) = (rope.plain_periods(64), rope.periods(64).unwrap());
        assert_eq!((turning.len(), &turning[..8]), (32, &all[..8]));
        assert!(turning[8..].iter().all(|period| *period == f32::INFINITY));
    }
}
