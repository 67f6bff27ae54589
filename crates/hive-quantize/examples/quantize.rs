//! Quantizes a model's folder into a new one, in 4 bits and groups of 64.
//!
//! `cargo run -p hive-quantize --example quantize -- MODEL TO`

#![allow(clippy::print_stdout)]

use std::ops::ControlFlow;
use std::path::Path;

use hive_quantize::{Recipe, quantize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, to] = arguments.as_slice() else { return Err("usage: quantize MODEL TO".into()) };
    let recipe = Recipe { bits: 4, group: 64, mixed: false };
    let mut percent = 0;
    let made = quantize(Path::new(model), Path::new(to), recipe, &mut |progress| {
        let now = progress.done_bytes * 100 / progress.total_bytes.max(1);
        if now / 10 > percent / 10 {
            println!("{now} %");
        }
        percent = now;
        ControlFlow::Continue(())
    })?;
    println!("{to} has {} bytes of weights, {:.2} bits each", made.bytes, made.bits_per_weight);
    Ok(())
}
