//! Computes a token with a model that is split in two: `cargo run -p hive-model --example split -- MODEL.gguf`. Without
//! a path, it uses the starter model in `HIVEMIND_STARTER`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use hive_model::shard::{Input, Output};
use hive_model::{Compute, SessionId, SessionOptions, Shard, ShardOptions, Slot};
use hive_weights::ModelFiles;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).or_else(|| std::env::var_os("HIVEMIND_STARTER"));
    let files = ModelFiles::open(Path::new(&path.ok_or("which model?")?))?;
    let tokenizer = files.tokenizer()?;
    let prompt = tokenizer.encode("The capital of France is")?;

    // Each shard reads the bytes of its own layers, and could be on a machine of its own.
    let layers = files.config().layers;
    let cut = layers / 2;
    let load = |layers| Shard::load(&files, &ShardOptions { layers, compute: Compute::Auto }, |_| ());
    let mut shards = [load(0..cut)?, load(cut..layers)?];

    // A session has a cache in every shard, with an entry for each position computed.
    let session = SessionId(1);
    for shard in &mut shards {
        shard.open(session, SessionOptions { prompt: prompt.clone(), ..SessionOptions::default() })?;
    }

    // Tokens go in, hidden states go from shard to shard, and the last one samples the next token.
    let mut input = Input::Tokens(prompt.clone());
    for (number, shard) in shards.iter_mut().enumerate() {
        let slot = Slot { session, position: 0, input, sample: true };
        match shard.forward(&[slot]).remove(0)? {
            Output::Hidden(hidden) => {
                println!("shard {number} passes {} hidden states of {} numbers on", hidden.rows, hidden.width);
                input = Input::Hidden(hidden);
            }
            Output::Token(sampled) => {
                let text = tokenizer.decode(&[&prompt[..], &[sampled.token]].concat())?;
                println!("shard {number} chose token {}: {text}", sampled.token);
                return Ok(());
            }
            Output::Nothing => break,
        }
    }
    Err("no token was chosen".into())
}
