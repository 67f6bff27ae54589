//! A model on disk: one GGUF file or all parts of a split one, or a folder in the format of Hugging Face and MLX.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use hive_text::split::PartName;
use hive_text::template::{ChatTemplate, TemplateError};
use hive_text::tokenizer::{Tokenizer, TokenizerError};
use hive_text::{ends, json, regular};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::config::{AttentionSpec, ConfigError, Ends, Mixer, ModelConfig, RopeScaling};
use crate::families::token_ids;
use crate::weights::gguf::{Gguf, HeaderError};
use crate::weights::safetensors::{FolderError, Fp8, QuantizationTable, SafetensorsFolder};
use crate::weights::{AtLoad, Float, MatrixFormat, TensorError, Weights};

/// Limit on `tokenizer_config.json`; the largest real one has just over 1 MB.
const MAX_JSON_BYTES: u64 = 8 << 20;

/// Limit on end tokens; no model has so many.
const MAX_ENDS: usize = 64;

/// A model opened for loading: configuration and table of tensors, no weights yet.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    config: ModelConfig,
    weights: Weights,
    /// `tokenizer_config.json`, if there is one.
    tokenizer_config: Json,
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path does not exist.
    #[error("there is no model at {0}")]
    NotFound(PathBuf),
    /// It is neither a GGUF file nor a folder.
    #[error("{0} is neither a .gguf file nor a folder with config.json")]
    Unknown(PathBuf),
    /// A file with weights only.
    #[error("{0} holds weights, but no config.json, which says what they are; download the whole model")]
    NoConfig(PathBuf),
    /// A model of another kind.
    #[error("{0} is a model that makes pictures or sounds; HiveMind runs models that write text")]
    Pipeline(PathBuf),
    /// The GGUF is not valid or not supported.
    #[error("{path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: HeaderError,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A JSON file cannot be read.
    #[error("{path}: {why}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Type(#[from] TensorError),
    /// A tensor that the computation does not use.
    #[error(
        "{path} has a tensor \"{name}\" that models of its architecture do not have; the model is of another one, or \
         quantized in an unsupported way"
    )]
    Tensor {
        /// The model.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// The configuration cannot be used.
    #[error("{path}: {source}")]
    Config {
        /// The model.
        path: PathBuf,
        /// The cause.
        source: ConfigError,
    },
}

impl ModelFiles {
    /// Opens a `.gguf` file or a folder.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if path.is_dir() {
            Self::open_folder(path)
        } else if path.is_file() {
            Self::open_gguf(path)
        } else {
            Err(OpenError::NotFound(path.to_owned()))
        }
    }

    /// Opens a model whose plain matrices are quantized as they are read, if `at_load` says how.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_for(path: &Path, at_load: Option<AtLoad>) -> Result<Self, OpenError> {
        let mut files = Self::open(path)?;
        if let Some(at_load) = at_load {
            files.weights.quantize_at_load(at_load);
        }
        Ok(files)
    }

    /// Whether there is anything to quantize at load: matrices that are stored as plain numbers or in FP8.
    pub fn has_plain_matrices(&self) -> bool {
        let is_plain = |kind: &str| ["F32", "F16", "BF16", "F8_E4M3"].contains(&kind);
        let mut all = self.weights.computed(&self.config).into_iter();
        all.any(|tensor| tensor.shape.len() >= 2 && is_plain(&tensor.kind))
    }

    fn open_gguf(path: &Path) -> Result<Self, OpenError> {
        let gguf = Gguf::open(path).map_err(|source| match source {
            HeaderError::Magic if regular::is_lfs_pointer(path) => {
                FolderError::Pointer { file: path.to_owned() }.into()
            }
            HeaderError::Magic => OpenError::Unknown(path.to_owned()),
            source => OpenError::Gguf { path: path.to_owned(), source },
        })?;
        gguf.check_types()?;
        let refuse = |source| OpenError::Config { path: path.to_owned(), source };
        let mut config = ModelConfig::from_gguf(&gguf).map_err(refuse)?;
        let weights = Weights::Gguf(gguf);
        all_known(path, &weights, &config)?;
        config.tied_embeddings = !weights.contains("lm_head.weight");
        if weights.contains("rope_freqs.weight") {
            let factors = weights.vector("rope_freqs.weight", config.factored() / 2);
            let factors = factors.map_err(|error| refuse(ConfigError::Unsupported(error.to_string())))?;
            // Dividing positions by a factor as well is the same as longer periods.
            let linear = match config.rope.scaling {
                RopeScaling::None => 1.0,
                RopeScaling::Linear { factor } => factor,
                _ => {
                    let what = "rope_freqs.weight beside another scaling of the rotation".to_owned();
                    return Err(refuse(ConfigError::Unsupported(what)));
                }
            };
            let factors = factors.to_f32().into_iter().map(|factor| factor * linear).collect();
            config.set_rope_factors(&RopeScaling::Factors(factors));
            config = config.checked().map_err(refuse)?;
        }
        Ok(Self { path: path.to_owned(), config, weights, tokenizer_config: Json::Null })
    }

    fn open_folder(path: &Path) -> Result<Self, OpenError> {
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            let names = || std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let has_weights =
                || names().any(|name| Path::new(&name).extension().is_some_and(|kind| kind == "safetensors"));
            return Err(match path.to_owned() {
                // The format of Diffusers.
                path if path.join("model_index.json").is_file() => OpenError::Pipeline(path),
                path if has_weights() => OpenError::NoConfig(path),
                path => OpenError::Unknown(path),
            });
        }
        let json = read_json(&config_path)?;
        let refuse = |source| OpenError::Config { path: config_path.clone(), source };
        let mut config = ModelConfig::from_json(&json).map_err(refuse)?;
        let table = quantization(&json).map_err(|what| refuse(ConfigError::Unsupported(what)))?;
        // generation_config.json has end-of-turn tokens that config.json often lacks.
        let optional = |name: &str| {
            let file = path.join(name);
            if file.is_file() { read_json(&file) } else { Ok(Json::Null) }
        };
        config.end_tokens.extend(token_ids(&optional("generation_config.json")?["eos_token_id"]));
        let mut tokenizer_config = optional("tokenizer_config.json")?;
        // Older tokenizers list their special tokens here.
        let older = read_json(&path.join("special_tokens_map.json")).unwrap_or_default();
        add_missing(&mut tokenizer_config, older);
        let folder = SafetensorsFolder::open(path, table)?;
        // Qwen's own checkpoints store these norms as the difference from one; converted ones do not.
        config.ends.norms_from_one |= folder.has_original_convolutions();
        let weights = Weights::Safetensors(folder);
        all_known(path, &weights, &config)?;
        // With an output matrix, the embedding is shared only if the file says so.
        let is_tied = json["tie_word_embeddings"] == true || json["text_config"]["tie_word_embeddings"] == true;
        if !is_tied && weights.contains("lm_head.weight") {
            config.tied_embeddings = false;
        }
        Ok(Self { path: path.to_owned(), config, weights, tokenizer_config })
    }

    /// The path of the file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The display name: the file's or folder's name without extension and number of a part.
    pub fn name(&self) -> String {
        let name = if self.path.is_dir() { self.path.file_name() } else { self.path.file_stem() };
        let part = self.path.file_name().and_then(|name| name.to_str()).and_then(PartName::read);
        part.map_or_else(|| name.unwrap_or_default().to_string_lossy().into_owned(), |part| part.model.to_owned())
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Tokens that end an answer, from every file that names some, each once. Reads the tokenizer's files.
    pub fn end_tokens(&self) -> Vec<u32> {
        let beside: Box<dyn Iterator<Item = u32>> = match &self.weights {
            Weights::Gguf(gguf) => Box::new(ends::of_gguf(gguf)),
            Weights::Safetensors(_) => Box::new(ends::of_folder(&self.path, &self.tokenizer_config).into_iter()),
        };
        let mut seen = BTreeSet::new();
        let all = self.config.end_tokens.iter().copied().chain(beside);
        all.filter(|id| (*id as usize) < self.config.vocabulary && seen.insert(*id)).take(MAX_ENDS).collect()
    }

    /// The tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The number format of hidden states by MLX's own rules: that of the first layer's norms and scales, or single
    /// precision if these differ.
    pub fn natural_activation(&self) -> Result<Float, crate::weights::TensorError> {
        let ModelConfig { hidden, specs, .. } = &self.config;
        let Some(first) = specs.first() else { return Ok(Float::F32) };
        let norm = first.norms.names().into_iter().flatten().flatten().next().unwrap_or_default();
        let norm = self.weights.vector(&format!("model.layers.0.{norm}.weight"), *hidden)?.float;
        let (name, rows, columns) = match &first.mixer {
            Mixer::Attention(AttentionSpec { heads, kv_heads, head_dim, is_joined: true, .. }) => {
                ("qkv_proj", (heads + 2 * kv_heads) * head_dim, *hidden)
            }
            Mixer::Attention(AttentionSpec { kv_heads, head_dim, .. }) => ("k_proj", kv_heads * head_dim, *hidden),
            Mixer::Latent(spec) => ("kv_a_proj_with_mqa", spec.latent + spec.rotated, *hidden),
            Mixer::Delta(spec) => ("out_proj", *hidden, spec.values()),
        };
        let name = format!("model.layers.0.{}.{name}", first.mixer.module());
        let matrix = self.weights.file_matrix(&name, rows, columns)?;
        Ok(match matrix.format() {
            // Its scales are the same numbers in every format.
            _ if matrix.block_float().is_some() && !self.weights.is_gguf() => norm,
            MatrixFormat::Float(float) | MatrixFormat::Quantized { float, .. } if float == norm => norm,
            _ => Float::F32,
        })
    }

    /// Identifies the model on every machine: a digest of its configuration, and of the name, type, shape and samples
    /// of every tensor that is computed with. The distribution of tensors over files, and other files beside them, make
    /// no difference.
    pub fn digest(&self) -> Result<String, TensorError> {
        let mut hasher = Sha256::new();
        hasher.update(identity(&self.config));
        for tensor in self.weights.computed(&self.config) {
            hasher.update(format!("{} {} {:?} {}", tensor.name, tensor.kind, tensor.shape, tensor.bytes));
            for Range { start, end } in samples(tensor.bytes) {
                hasher.update(self.weights.read(&tensor, start, end - start)?);
            }
        }
        Ok(data_encoding::HEXLOWER.encode(&hasher.finalize()[..16]))
    }

    /// Loads the tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match &self.weights {
            Weights::Gguf(gguf) => Tokenizer::from_gguf(gguf),
            Weights::Safetensors(_) => Tokenizer::from_file(&self.path.join("tokenizer.json")),
        }
    }

    /// Loads the chat template.
    pub fn chat_template(&self) -> Result<ChatTemplate, TemplateError> {
        match &self.weights {
            Weights::Gguf(gguf) => {
                let source = gguf.string("tokenizer.chat_template").ok_or(TemplateError::Missing)?;
                // The names in Hugging Face's files and in GGUF.
                let names = [
                    ("bos_token", "bos"),
                    ("eos_token", "eos"),
                    ("unk_token", "unknown"),
                    ("sep_token", "seperator"),
                    ("pad_token", "padding"),
                    ("cls_token", "cls"),
                    ("mask_token", "mask"),
                ];
                let token = |(name, key): (&str, &str)| {
                    let id = gguf.number(&format!("tokenizer.ggml.{key}_token_id"))?;
                    Some((name.to_owned(), gguf.strings("tokenizer.ggml.tokens")?.get(id as usize)?.to_owned()))
                };
                ChatTemplate::new(source, names.into_iter().filter_map(token))
            }
            Weights::Safetensors(_) => {
                let config = &self.tokenizer_config;
                let file = regular::read(&self.path.join("chat_template.jinja"), MAX_JSON_BYTES).ok();
                let file = file.and_then(|bytes| String::from_utf8(bytes).ok());
                // A list holds several named templates; "default" is the one for ordinary chats.
                let listed = config["chat_template"]
                    .as_array()
                    .and_then(|list| list.iter().find(|entry| entry["name"] == "default")?["template"].as_str());
                // Vision models used to keep it here.
                let beside = read_json(&self.path.join("chat_template.json")).unwrap_or_default();
                let source = file.as_deref().or(config["chat_template"].as_str()).or(listed);
                let source = source.or(beside["chat_template"].as_str());
                // A special token is a string, or an object with the string as its content.
                let token = |(name, value): (&String, &Json)| {
                    let text = value.as_str().or_else(|| value["content"].as_str())?;
                    name.ends_with("_token").then(|| (name.clone(), text.to_owned()))
                };
                let tokens = config.as_object().into_iter().flatten().filter_map(token);
                ChatTemplate::new(source.ok_or(TemplateError::Missing)?, tokens)
            }
        }
    }
}

/// What of a configuration identifies the model, as text. A changed character makes every machine's models others than
/// those of machines with an earlier version, so this does not follow from the configuration's fields by itself.
fn identity(config: &ModelConfig) -> String {
    let ModelConfig {
        architecture,
        layers,
        hidden,
        intermediate,
        heads,
        kv_heads,
        head_dim,
        vocabulary,
        rms_eps,
        rope,
        max_context,
        specs,
        ends,
        tied_embeddings,
        // They also come from files that are not the model's own.
        end_tokens: _,
        unused: _,
    } = config;
    let text = format!(
        "ModelConfig {{ architecture: {architecture:?}, layers: {layers}, hidden: {hidden}, intermediate: {intermediate}, \
         heads: {heads}, kv_heads: {kv_heads}, head_dim: {head_dim}, vocabulary: {vocabulary}, rms_eps: {rms_eps:?}, \
         rope: {rope:?}, max_context: {max_context}, tied_embeddings: {tied_embeddings}, end_tokens: [] }}"
    );
    // What plain layers are made of follows from the numbers above.
    let plain = config.attending(config.plain_attention());
    if *ends == Ends::default() && specs.iter().all(|spec| *spec == plain) {
        return text;
    }
    format!("{text} {ends:?} {specs:?}")
}

/// Size of a sample of a tensor, which a cold disk reads in one go.
const SAMPLE_BYTES: u64 = 1024;
/// Tensors up to this size are read whole: norms and biases, in which models tuned from the same base differ.
const WHOLE_BYTES: u64 = 64 << 10;

/// The samples that identify a tensor: its beginning, its middle and its end.
pub(crate) fn samples(bytes: u64) -> Vec<Range<u64>> {
    if bytes <= WHOLE_BYTES {
        return std::iter::once(0..bytes).collect();
    }
    let last = bytes - SAMPLE_BYTES;
    [0, last / 2, last].into_iter().map(|start| start..start + SAMPLE_BYTES).collect()
}

/// How a folder's matrices are quantized, by its `config.json`: MLX's key, or else that of the original checkpoint, which
/// may remain beside it.
fn quantization(json: &Json) -> Result<QuantizationTable, String> {
    let [mlx, original] = ["quantization", "quantization_config"].map(|key| {
        let places = [&json[key], &json["text_config"][key]];
        places.into_iter().find(|table| !table.is_null()).unwrap_or(&Json::Null)
    });
    if mlx.is_null() {
        return Ok(QuantizationTable::of_fp8(Fp8::from_json(original)?));
    }
    QuantizationTable::from_json(mlx)
}

fn all_known(path: &Path, weights: &Weights, config: &ModelConfig) -> Result<(), OpenError> {
    weights.unknown(config).map_or(Ok(()), |name| Err(OpenError::Tensor { path: path.to_owned(), name }))
}

/// Adds the special tokens that `to` lacks.
fn add_missing(to: &mut Json, from: Json) {
    if to.is_null() {
        *to = Json::Object(serde_json::Map::new());
    }
    let (Some(to), Json::Object(from)) = (to.as_object_mut(), from) else { return };
    for (name, token) in from.into_iter().filter(|(name, _)| name.ends_with("_token")) {
        let named = to.entry(name).or_insert(Json::Null);
        if named.is_null() {
            *named = token;
        }
    }
}

fn read_json(path: &Path) -> Result<Json, OpenError> {
    let refuse = |why: String| OpenError::Json { path: path.to_owned(), why };
    let text = regular::read(path, MAX_JSON_BYTES).map_err(|error| refuse(error.to_string()))?;
    json::parse(&text).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_keeps_its_identity_from_version_to_version() {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
            "eos_token_id": [2, 3], "rope_scaling": { "type": "linear", "factor": 2.0 }
        });
        let config = ModelConfig::from_json(&config).unwrap();
        let expected = "ModelConfig { architecture: \"llama\", layers: 2, hidden: 64, intermediate: 128, heads: 4, \
                        kv_heads: 2, head_dim: 16, vocabulary: 100, rms_eps: 1e-5, rope: Rope { theta: 10000.0, scaling: \
                        Linear { factor: 2.0 } }, max_context: 2048, tied_embeddings: true, end_tokens: [] }";
        assert_eq!(identity(&config), expected);
    }

    #[test]
    fn samples_of_a_tensor_reach_from_its_first_byte_to_its_last() {
        for bytes in [0, WHOLE_BYTES] {
            assert_eq!((samples(bytes).len(), samples(bytes)[0].clone()), (1, 0..bytes));
        }
        let bytes = WHOLE_BYTES + 1;
        let parts = samples(bytes);
        assert_eq!((parts[0].start, parts[2].end, parts.len()), (0, bytes, 3));
        assert!(parts.iter().all(|part| part.end - part.start == SAMPLE_BYTES));
    }
}
