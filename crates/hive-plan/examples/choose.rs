//! Chooses which of three machines hold a model of 40 GB, and prints why: `cargo run -p hive-plan --example choose`.

#![allow(clippy::print_stdout)]

use hive_plan::{Form, LinkProfile, ModelProfile, NodeProfile, PlanError, StateBytes, Use, choose};

const GB: u64 = 1_000_000_000;

fn main() -> Result<(), PlanError> {
    // 80 layers of half a gigabyte.
    let model = ModelProfile {
        layer_bytes: vec![GB / 2; 80],
        unread_bytes: Vec::new(),
        embedding_bytes: GB / 2,
        head_bytes: GB / 2,
        states: vec![StateBytes { per_token: 4096, ..StateBytes::default() }; 80],
        uncut: Vec::new(),
        base_bytes: 200_000_000,
    };
    let machine = |name: &str, memory_bytes, bytes_per_s| NodeProfile {
        name: name.to_owned(),
        memory_bytes,
        bytes_per_s,
        form: Form::Mlx,
    };
    let machines =
        [machine("MacBook", 24 * GB, 100e9), machine("Studio", 32 * GB, 400e9), machine("old Mini", 12 * GB, 50e9)];
    // Two machines are connected by Thunderbolt, all others by Wi-Fi.
    let link = |from: usize, to: usize| match (from, to) {
        (0, 1) | (1, 0) => LinkProfile { round_trip_us: 300.0, bits_per_s: 20e9 },
        _ => LinkProfile { round_trip_us: 4000.0, bits_per_s: 0.3e9 },
    };
    let wanted = Use { context_tokens: 8192, conversations: 1, hidden_bytes: 16_384 };

    let plan = choose(&model, &machines, &link, wanted)?;
    for stage in &plan.stages {
        let gigabytes = stage.bytes() as f64 / GB as f64;
        println!("{}: layers {:?}, {gigabytes:.1} GB", machines[stage.machine].name, stage.layers);
    }
    for reason in &plan.reasons {
        println!("{reason}");
    }
    println!("There is room for {} tokens of all conversations together.", plan.room_tokens);
    Ok(())
}
