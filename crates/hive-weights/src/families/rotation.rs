//! Rotary position embedding, from `config.json` and from GGUF metadata.

use serde_json::Value as Json;

use super::keys::{Keys, flag, real, table, text};
use crate::config::{ConfigError, Rope, RopeScaling};
use crate::weights::Gguf;

/// From `config.json`.
pub(super) fn from_json(json: &Json, head_dim: usize) -> Result<Rope, ConfigError> {
    // Newer files have theta and scaling together in `rope_parameters`.
    let older = table(json, "rope_scaling")?.unwrap_or(&Json::Null);
    let parameters = table(json, "rope_parameters")?.unwrap_or(older);
    // By kind of layer; families that have several read the others.
    let parameters = table(parameters, "full_attention")?.unwrap_or(parameters);
    let number = |key: &'static str| real(parameters, key);
    let required = |key: &'static str| number(key)?.ok_or(ConfigError::Missing(key));
    let theta = match real(json, "rope_theta")? {
        None => number("rope_theta")?.unwrap_or(10_000.0),
        Some(theta) => theta,
    };
    let kind = match text(parameters, "rope_type")? {
        None => text(parameters, "type")?,
        kind => kind,
    };
    let original = number("original_max_position_embeddings")?;
    let scaling = match kind {
        None if number("factor")?.is_some_and(|factor| factor != 1.0) => {
            return Err(ConfigError::Unsupported("rope scaling without a type".to_owned()));
        }
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: required("factor")? },
        Some("proportional") => RopeScaling::Proportional {
            share: number("partial_rotary_factor")?.unwrap_or(1.0),
            factor: number("factor")?.unwrap_or(1.0),
        },
        Some("llama3") => RopeScaling::Llama3 {
            factor: required("factor")?,
            low: number("low_freq_factor")?.unwrap_or(1.0),
            high: number("high_freq_factor")?.unwrap_or(4.0),
            original_context: original.unwrap_or(8192.0),
        },
        Some("longrope" | "su") => {
            let factors = parameters["long_factor"].as_array().into_iter().flatten();
            let factors: Vec<f32> = factors.filter_map(Json::as_f64).map(|factor| factor as f32).collect();
            let rotated = Keys::Json(json).rotated(head_dim)?;
            if factors.len() != rotated / 2 || rotated > head_dim {
                return Err(ConfigError::Value { key: "the number of long_factor", value: factors.len().to_string() });
            }
            let original = match real(json, "original_max_position_embeddings")? {
                None => original.unwrap_or(4096.0),
                Some(original) => original,
            };
            let grown = real(json, "max_position_embeddings")?.unwrap_or(original) / original;
            let magnitude = if grown <= 1.0 { 1.0 } else { (1.0 + grown.ln() / original.ln()).sqrt() };
            RopeScaling::LongRope { factors, magnitude }
        }
        Some("yarn") => {
            let factor = required("factor")?;
            let grown = |by: f32| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
            let (numerator, denominator) = (number("mscale")?, number("mscale_all_dim")?);
            RopeScaling::Yarn {
                factor,
                fast: number("beta_fast")?.unwrap_or(32.0),
                slow: number("beta_slow")?.unwrap_or(1.0),
                original_context: original.unwrap_or(4096.0),
                magnitude: grown(numerator.unwrap_or(1.0)) / denominator.map_or(1.0, grown),
                truncate: flag(parameters, "truncate")?.unwrap_or(true),
            }
        }
        Some(other) => return Err(ConfigError::Unsupported(format!("rope scaling {other}"))),
    };
    Ok(Rope { theta, scaling })
}

/// From GGUF metadata, and the tensors that belong to it.
pub(super) fn from_gguf(gguf: &Gguf, architecture: &str, head_dim: usize) -> Result<Rope, ConfigError> {
    let real = |name: &str| gguf.real(&format!("{architecture}.rope.{name}")).map(|number| number as f32);
    let theta = real("freq_base").unwrap_or(10_000.0);
    // Older files have a factor without a type, or a key of their own for it.
    let factor = real("scaling.factor").or_else(|| real("scale_linear"));
    let linear = |factor| RopeScaling::Linear { factor };
    let magnitude = real("scaling.attn_factor").unwrap_or(1.0);
    // The kind is left out of files of some of Phi's models.
    let is_long = |kind: Option<&str>| kind == Some("longrope") || kind.is_none() && architecture == "phi3";
    let scaling = match gguf.string(&format!("{architecture}.rope.scaling.type")) {
        kind if is_long(kind) && gguf.contains(LONG_FACTORS) => {
            let rotated = Keys::Gguf(gguf, architecture).rotated(head_dim)?;
            if rotated > head_dim {
                return Err(ConfigError::Value { key: "rope.dimension_count", value: rotated.to_string() });
            }
            let factors = gguf.vector(LONG_FACTORS, rotated / 2);
            let factors = factors.map_err(|error| ConfigError::Unsupported(error.to_string()))?.to_f32();
            return Ok(Rope { theta, scaling: RopeScaling::LongRope { factors, magnitude } });
        }
        Some("longrope") => return Err(ConfigError::Missing(LONG_FACTORS)),
        Some("yarn") => {
            let factor = factor.ok_or(ConfigError::Missing("rope.scaling.factor"))?;
            let original = real("scaling.original_context_length");
            let original = original.or_else(|| gguf.real(&format!("{architecture}.context_length")).map(|n| n as f32));
            let grown = |by: f32| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
            // In DeepSeek's files, this one number gives both factors on the rotated dimensions.
            let divisor = real("scaling.yarn_log_multiplier").filter(|by| *by != 0.0);
            let divisor = divisor.map(|by| if architecture == "deepseek2" { 1.0 } else { by });
            let scaling = RopeScaling::Yarn {
                factor,
                fast: real("scaling.yarn_beta_fast").unwrap_or(32.0),
                slow: real("scaling.yarn_beta_slow").unwrap_or(1.0),
                original_context: original.ok_or(ConfigError::Missing("rope.scaling.original_context_length"))?,
                magnitude: magnitude * grown(1.0) / divisor.map_or(1.0, grown),
                // The format cannot say it; only gpt-oss has it otherwise.
                truncate: architecture != "gpt-oss",
            };
            return Ok(Rope { theta, scaling });
        }
        Some("linear") => linear(factor.ok_or(ConfigError::Missing("rope.scaling.factor"))?),
        None => factor.filter(|factor| *factor != 1.0).map_or(RopeScaling::None, linear),
        Some("none") => RopeScaling::None,
        Some(other) => return Err(ConfigError::Unsupported(format!("rope scaling {other}"))),
    };
    if magnitude != 1.0 {
        return Err(ConfigError::Unsupported("rope scaling with an attention factor".to_owned()));
    }
    Ok(Rope { theta, scaling })
}

/// The factors of the periods in long contexts.
const LONG_FACTORS: &str = "rope_factors_long.weight";
