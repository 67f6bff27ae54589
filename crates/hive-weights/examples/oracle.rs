//! Renders chat templates and encodes texts as HiveMind does, for comparison with the libraries that models are trained
//! with.
//!
//! Reads JSON lines and writes one line for each. `{"template": …, "messages": …}` gives `{"text": …}`, or
//! `{"ids": […]}` if it also has `"tokenizer": PATH` (a `tokenizer.json` or a GGUF).
//! `{"tokenizer": PATH, "text": …}` gives `{"ids": […]}`. Failures give `{"error": …}`. `benches/oracles` describes its
//! use.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

use hive_text::template::{ChatTemplate, Conversation};
use hive_text::tokenizer::Tokenizer;
use hive_weights::weights::Gguf;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Asked {
    template: Option<String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    #[serde(default)]
    messages: Value,
    tools: Option<Value>,
    #[serde(default)]
    variables: Map<String, Value>,
    now: Option<String>,
    tokenizer: Option<String>,
    text: Option<String>,
}

fn open(path: &str) -> Result<Tokenizer, Box<dyn Error>> {
    let is_gguf = Path::new(path).extension().is_some_and(|extension| extension == "gguf");
    Ok(if is_gguf {
        Tokenizer::from_gguf(&Gguf::open(Path::new(path))?)?
    } else {
        Tokenizer::from_file(Path::new(path))?
    })
}

fn answer(asked: Asked, tokenizers: &mut HashMap<String, Tokenizer>) -> Result<Value, Box<dyn Error>> {
    if let Some(path) = &asked.tokenizer
        && !tokenizers.contains_key(path)
    {
        tokenizers.insert(path.clone(), open(path)?);
    }
    let tokenizer = asked.tokenizer.as_ref().and_then(|path| tokenizers.get(path));
    let Some(source) = asked.template else {
        let tokenizer = tokenizer.ok_or("neither a template nor a tokenizer")?;
        return Ok(json!({ "ids": tokenizer.encode(&asked.text.unwrap_or_default())? }));
    };
    let named = [("bos_token", asked.bos_token), ("eos_token", asked.eos_token)];
    let template =
        ChatTemplate::new(&source, named.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?))))?;
    let conversation = Conversation {
        messages: serde_json::from_value(asked.messages)?,
        tools: asked.tools,
        variables: asked.variables,
        began: asked.now.map(|now| now.parse()).transpose()?,
    };
    Ok(match tokenizer {
        Some(tokenizer) => json!({ "ids": template.tokenize(tokenizer, &conversation)? }),
        None => json!({ "text": template.render(&conversation)? }),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut tokenizers, mut out) = (HashMap::new(), std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let answered =
            serde_json::from_str(&line?).map_err(Into::into).and_then(|asked| answer(asked, &mut tokenizers));
        writeln!(out, "{}", answered.unwrap_or_else(|error| json!({ "error": error.to_string() })))?;
    }
    Ok(())
}
