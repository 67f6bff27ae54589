use safetensors::tensor::TensorView;
use serde_json::json;

use super::*;

fn file(tensors: &[(&str, [usize; 2], &[f32])]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., numbers)| numbers.iter().flat_map(|number| number.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn mlx() -> Json {
    json!({ "fine_tune_type": "lora", "num_layers": 2, "lora_parameters": { "rank": 2, "scale": 3.0, "dropout": 0.0 } })
}

fn peft() -> Json {
    json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "init_lora_weights": true,
        "target_modules": ["q_proj"], "alpha_pattern": {}, "modules_to_save": null })
}

use serde_json::Value as Json;

fn open<'a>(config: &Json, tensors: &'a [u8]) -> Result<Adapter<'a>, AdapterError> {
    Adapter::open(config.to_string().as_bytes(), tensors)
}

const DOWN: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const UP: [f32; 4] = [0.5, -1.0, 2.0, 7.0];

#[test]
fn both_forms_are_the_same_update() {
    let mlx_file = file(&[
        // `[3, 2]` and `[2, 2]`.
        ("language_model.model.layers.1.self_attn.q_proj.lora_a", [3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ("language_model.model.layers.1.self_attn.q_proj.lora_b", [2, 2], &[0.5, 2.0, -1.0, 7.0]),
    ]);
    let prefix = "base_model.model.model.layers.1.self_attn.q_proj";
    let peft_file =
        file(&[(&format!("{prefix}.lora_A.weight"), [2, 3], &DOWN), (&format!("{prefix}.lora_B.weight"), [2, 2], &UP)]);
    let module = "model.layers.1.self_attn.q_proj";
    let expected = Update { rank: 2, down: DOWN.to_vec(), up: UP.map(|number| number * 3.0).to_vec() };
    for (config, tensors) in [(mlx(), &mlx_file), (peft(), &peft_file)] {
        let adapter = open(&config, tensors).unwrap();
        assert_eq!(adapter.modules().collect::<Vec<_>>(), [module]);
        assert_eq!((adapter.rank(module), adapter.rank("another")), (Some(2), None));
        assert_eq!(adapter.update(module).unwrap().unwrap(), expected);
        assert_eq!(adapter.update("another").unwrap(), None);
        adapter.check(module, [2, 3]).unwrap();
        let why = adapter.check(module, [3, 2]).unwrap_err().to_string();
        assert_eq!(
            why,
            format!(
                "the adapter was made for another model: its {module} has 3 inputs and 2 outputs, this model's has 2 inputs \
                 and 3 outputs"
            )
        );
    }
}

#[test]
fn pefts_scale_follows_rank_root_and_pattern() {
    let names =
        |module: &str| ["A", "B"].map(|part| format!("base_model.model.model.layers.0.{module}.lora_{part}.weight"));
    let ([qa, qb], [va, vb]) = (names("self_attn.q_proj"), names("self_attn.v_proj"));
    let one = [1.0; 4];
    let tensors = file(&[(&qa, [4, 1], &one), (&qb, [1, 4], &one), (&va, [1, 2], &one[..2]), (&vb, [2, 1], &one[..2])]);
    let scales = |config: Json| {
        let adapter = open(&config, &tensors).unwrap();
        ["q_proj", "v_proj"]
            .map(|name| adapter.update(&format!("model.layers.0.self_attn.{name}")).unwrap().unwrap().up[0])
    };
    assert_eq!(scales(peft()), [1.5, 6.0]);
    let mut config = peft();
    config["use_rslora"] = true.into();
    assert_eq!(scales(config.clone()), [3.0, 6.0]);
    config["alpha_pattern"] = json!({ "v_proj": 2.0, "self_attn.q_proj": 8, "proj": 100 });
    assert_eq!(scales(config), [4.0, 2.0]);
}

#[test]
fn what_is_no_lora_adapter_is_refused_in_a_sentence() {
    let a = "model.layers.0.mlp.up_proj.lora_a";
    let b = "model.layers.0.mlp.up_proj.lora_b";
    let good = file(&[(a, [3, 2], &DOWN), (b, [2, 2], &UP)]);
    let with = |key: &str, value: Json| {
        let mut config = peft();
        config[key] = value;
        config
    };
    let of_type = |kind: &str| json!({ "fine_tune_type": kind, "lora_parameters": null });
    let mut broken = good.clone();
    broken.truncate(good.len() - 1);
    let nan = file(&[(a, [3, 2], &[f32::NAN; 6]), (b, [2, 2], &UP)]);
    for (config, tensors, words) in [
        (json!([]), &good, "adapter_config.json cannot be read"),
        (json!({}), &good, "cannot be read: its lora_parameters: invalid type: null"),
        (json!({ "lora_parameters": {} }), &good, "missing field `scale`"),
        (of_type("dora"), &good, "uses DoRA; only LoRA"),
        (of_type("full"), &good, "fine-tuning of type \"full\""),
        (with("peft_type", "IA3".into()), &good, "uses IA3"),
        (with("lora_alpha", Json::Null), &good, "it has no lora_alpha"),
        (with("use_dora", true.into()), &good, "uses DoRA"),
        (with("bias", "all".into()), &good, "biases of its own"),
        (with("fan_in_fan_out", true.into()), &good, "fan_in_fan_out"),
        (with("init_lora_weights", "pissa_niter_4".into()), &good, "an initialization that changes"),
        (with("alpha_pattern", json!({ ".*q_proj": 1 })), &good, "alpha_pattern \".*q_proj\""),
        (with("target_parameters", json!(["experts"])), &good, "target_parameters"),
        (with("alora_invocation_tokens", json!([1, 2])), &good, "aLoRA"),
        (with("init_lora_weights", "lora_ga".into()), &good, "an initialization that changes"),
        (peft(), &good, "lora_a belongs to no pair of LoRA matrices"),
        (mlx(), &broken, "is not valid"),
        (mlx(), &file(&[]), "it is empty"),
        (mlx(), &file(&[(a, [3, 2], &DOWN)]), "only one of the two matrices for model.layers.0.mlp.up_proj"),
        (mlx(), &file(&[(a, [2, 3], &DOWN), (b, [2, 2], &UP)]), "have ranks 3 and 2"),
        (mlx(), &file(&[(a, [3, 2], &DOWN), (b, [2, 2], &UP), ("lm_head.m", [2, 2], &UP)]), "lm_head.m belongs to no"),
    ] {
        let why = open(&config, tensors).err().unwrap().to_string();
        assert!(why.contains(words) && !why.contains('\n'), "{why}");
    }
    let why = open(&mlx(), &nan).unwrap().update("model.layers.0.mlp.up_proj").unwrap_err().to_string();
    assert!(why.ends_with("model.layers.0.mlp.up_proj hold numbers that are not finite"), "{why}");
    let mut infinite = mlx();
    infinite["lora_parameters"]["scale"] = 1e300.into();
    assert!(open(&infinite, &good).err().unwrap().to_string().contains("a scale of inf"));
}
