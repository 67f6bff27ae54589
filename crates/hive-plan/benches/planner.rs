//! Benchmarks the planner: `cargo bench -p hive-plan`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use hive_plan::{Form, LinkProfile, ModelProfile, NodeProfile, StateBytes, Use, choose};

/// A model of 128 layers over 64 machines of different sizes, none of which holds more than a few layers.
fn main() {
    let model = ModelProfile {
        layer_bytes: vec![900 << 20; 128],
        unread_bytes: Vec::new(),
        embedding_bytes: 1 << 30,
        head_bytes: 1 << 30,
        states: vec![StateBytes { per_token: 4096, ..StateBytes::default() }; 128],
        uncut: Vec::new(),
        base_bytes: 100 << 20,
    };
    for (conversations, gib) in [(1, 4), (8, 4), (1, 24), (8, 24)] {
        let node = |index: usize| NodeProfile {
            name: format!("machine {index}"),
            memory_bytes: (gib + (index as u64 * 7) % 13) << 30,
            bytes_per_s: 20e9 + (index as f64 * 37.0) % 400.0 * 1e9,
            form: Form::Mlx,
        };
        let nodes: Vec<_> = (0..64).map(node).collect();
        let link = |a: usize, b: usize| LinkProfile {
            round_trip_us: 200.0 + ((a * 31 + b * 17) % 40) as f64 * 100.0,
            bits_per_s: 1e9,
        };
        let wanted = Use { context_tokens: 4096, conversations, hidden_bytes: 16384 };
        let time = |_| {
            let started = Instant::now();
            let plan = choose(&model, &nodes, &link, wanted).expect("it fits");
            (started.elapsed(), plan.stages.len())
        };
        let mut times: Vec<(Duration, usize)> = (0..15).map(time).collect();
        times.sort_unstable();
        let (median, stages) = times[times.len() / 2];
        println!(
            "64 machines of {gib} GiB and more, 128 layers, {conversations} conversations: {:.1} ms (worst {:.1}), {stages} stages",
            median.as_secs_f64() * 1e3,
            times[times.len() - 1].0.as_secs_f64() * 1e3
        );
    }
}
