//! What plans are chosen, and their reasons.

use hive_types::Reason;

use super::*;
use crate::StateBytes;

/// A layer that keeps one byte of every token.
const ONE_BYTE: StateBytes = StateBytes { per_token: 1, most_tokens: None, fixed: 0 };

const ONE: Use = Use { context_tokens: 0, conversations: 1, hidden_bytes: 0 };

fn model(layers: usize, bytes: u64, head: u64) -> ModelProfile {
    ModelProfile {
        layer_bytes: vec![bytes; layers],
        unread_bytes: Vec::new(),
        embedding_bytes: 0,
        head_bytes: head,
        states: vec![ONE_BYTE; layers],
        uncut: Vec::new(),
        base_bytes: 0,
    }
}

fn node(name: &str, memory_bytes: u64, bytes_per_s: f64) -> NodeProfile {
    NodeProfile { name: name.to_owned(), memory_bytes, bytes_per_s, form: Form::Packed }
}

fn lan(_: usize, _: usize) -> LinkProfile {
    LinkProfile { round_trip_us: 600.0, bits_per_s: 1e9 }
}

#[test]
fn one_machine_that_holds_it_is_not_slowed_down_by_others() {
    let nodes = [node("Studio", 1000, 1e4), node("Mac mini", 1000, 1e4)];
    let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
    assert_eq!(plan.stages.len(), 1);
    let [_, Reason::WouldSlow { machine, tokens_per_s }] = &plan.reasons[..] else { panic!("{:?}", plan.reasons) };
    assert!(machine == "Mac mini" && *tokens_per_s > 0.0, "{:?}", plan.reasons);
}

#[test]
fn a_much_faster_machine_takes_what_it_holds() {
    // Ten times as fast, with memory for six of ten layers.
    let nodes = [node("Old", 1000, 1e2), node("New", 60, 1e3)];
    let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
    let new = plan.stages.iter().find(|stage| stage.machine == 1).unwrap();
    assert_eq!(new.layers.len(), 6);
}

#[test]
fn what_fits_in_none_is_split_and_what_fits_nowhere_says_so() {
    let nodes = [node("A", 60, 1e3), node("B", 60, 1e3), node("C", 60, 1e3)];
    let plan = choose(&model(10, 10, 0), &nodes, &lan, ONE).unwrap();
    assert_eq!(plan.stages.len(), 2, "two are enough");
    let error = choose(&model(30, 10, 0), &nodes, &lan, ONE).unwrap_err();
    assert_eq!(error, PlanError::TooLarge { needed_bytes: 300, given_bytes: 180, machines: 3 });
    let large = |machines| PlanError::TooLarge { needed_bytes: 316_000_000, given_bytes: 268_900_000, machines };
    let words = "this model needs 316 MB with one conversation, but 1 machine shares 268 MB; add a machine or raise a \
                 memory limit";
    assert_eq!(large(1).to_string(), words);
    assert!(large(2).to_string().contains("but 2 machines share 268 MB;"));
}

#[test]
fn experts_that_a_token_does_not_pick_take_memory_and_no_time() {
    let dense = model(10, 10, 0);
    let sparse = ModelProfile { unread_bytes: vec![9; 10], ..dense.clone() };
    // Neither machine holds it alone, whatever a token reads.
    let nodes = [node("A", 60, 1e3), node("B", 60, 1e3)];
    let stages = |model: &ModelProfile| choose(model, &nodes, &lan, ONE).unwrap().stages.len();
    assert_eq!([stages(&dense), stages(&sparse)], [2, 2]);
    // One that holds it is not helped by a machine ten times as fast that is far away: there is little to read.
    let nodes = [node("Here", 1000, 1e3), node("Far", 60, 1e4)];
    let far = |from: usize, to: usize| LinkProfile {
        round_trip_us: if from == to { 0.0 } else { 30_000.0 },
        bits_per_s: 1e9,
    };
    let stages = |model: &ModelProfile| choose(model, &nodes, &far, ONE).unwrap().stages.len();
    assert_eq!([stages(&dense), stages(&sparse)], [2, 1]);
    let reading = |model: &ModelProfile| predict(model, &nodes, &far, ONE, &[(0, 0..10)]).reading_us[0];
    assert_eq!(reading(&dense) / reading(&sparse), 10.0);
}

#[test]
fn several_conversations_even_out_the_stages() {
    let nodes = [node("A", 90, 1e3), node("B", 90, 1e3)];
    let many = Use { conversations: 4, ..ONE };
    let plan = choose(&model(10, 10, 0), &nodes, &lan, many).unwrap();
    let sizes: Vec<_> = plan.stages.iter().map(|stage| stage.layers.len()).collect();
    assert_eq!(sizes, [5, 5]);
}

#[test]
fn the_slow_link_is_avoided() {
    // Three machines are needed; A and C have a slow link.
    let nodes = [node("A", 40, 1e3), node("B", 40, 1e3), node("C", 40, 1e3), node("D", 40, 1e3)];
    let link =
        |a: usize, b: usize| LinkProfile { round_trip_us: if a == 3 || b == 3 { 1e6 } else { 100.0 }, bits_per_s: 1e9 };
    let plan = choose(&model(10, 10, 0), &nodes, &link, ONE).unwrap();
    assert!(plan.stages.iter().all(|stage| stage.machine != 3), "{:?}", plan.stages);
}

#[test]
fn layers_that_share_a_cache_go_to_the_machine_that_holds_them_all() {
    // The last five layers read the cache of layer 4; two others stay together for a reason of their own.
    let mut states = vec![ONE_BYTE; 5];
    states.resize(10, StateBytes::default());
    let shared = ModelProfile { states, uncut: (5..10).chain([2]).collect(), ..model(10, 10, 0) };
    let wanted = Use { context_tokens: 2, ..ONE };
    let nodes = [node("A", 50, 1e4), node("B", 62, 1e3), node("C", 50, 1e4)];
    let stages = choose(&shared, &nodes, &lan, wanted).unwrap().stages;
    let last = &stages[1];
    assert_eq!((stages.len(), last.machine, last.layers.clone(), last.kv_bytes), (2, 1, 4..10, 2));
    // Beside five machines, of which the smallest is as near as the others.
    let more: Vec<_> = nodes.into_iter().chain((0..5).map(|_| node("D", 30, 1e4))).collect();
    let stages = choose(&shared, &more, &lan, wanted).unwrap().stages;
    assert_eq!(stages.last().map(|stage| (stage.machine, stage.layers.clone())), Some((1, 4..10)));
    // None holds them, though all together have the memory.
    let error = choose(&shared, &more[2..], &lan, wanted).unwrap_err();
    assert_eq!(error, PlanError::UncutTooLarge { layers: 4..10, needed_bytes: 62, most_bytes: 50 });
    let large = PlanError::UncutTooLarge { layers: 4..10, needed_bytes: 62_000_000, most_bytes: 50_900_000 };
    let words = "6 layers of this model must stay together and need 62 MB with one conversation, but no machine shares \
                 more than 50 MB; add a larger machine or raise a memory limit";
    assert_eq!(large.to_string(), words);
}

#[test]
fn a_window_takes_no_more_memory_in_a_longer_conversation() {
    let window = StateBytes { per_token: 1, most_tokens: Some(4), fixed: 0 };
    let windows = ModelProfile { states: vec![window; 10], ..model(10, 10, 0) };
    let stages = |model: &ModelProfile, context_tokens, memory_bytes| {
        let nodes = [node("A", memory_bytes, 1e3), node("B", memory_bytes, 1e3)];
        let plan = choose(model, &nodes, &lan, Use { context_tokens, ..ONE }).unwrap();
        (plan.stages.len(), plan.room_tokens)
    };
    let plain = model(10, 10, 0);
    assert_eq!([stages(&plain, 4, 140), stages(&plain, 5, 140)], [(1, 4), (2, 5)]);
    assert_eq!([stages(&windows, 4, 140), stages(&windows, 5, 140)], [(1, u64::MAX); 2]);
}

#[test]
fn numbers_beyond_all_memory_do_not_fit_rather_than_wrap() {
    let nodes = [node("A", 1000, 1e3), node("B", 1000, 1e3)];
    // Two tokens, or two layers, would be 0 bytes again.
    for per_token in [1 << 63, 1 << 62] {
        let states = vec![StateBytes { per_token, ..ONE_BYTE }; 10];
        let endless = ModelProfile { states, ..model(10, 10, 0) };
        let error = choose(&endless, &nodes, &lan, Use { context_tokens: 2, ..ONE }).unwrap_err();
        assert_eq!(error, PlanError::TooLarge { needed_bytes: u64::MAX, given_bytes: 2000, machines: 2 });
    }
}

#[test]
fn no_more_machines_are_used_than_there_are_parts() {
    // Six machines would help the conversations if the model could be cut into as many.
    let uncut = (1..10).filter(|boundary| *boundary != 5).collect();
    let halves = ModelProfile { uncut, ..model(10, 100, 0) };
    let nodes: Vec<_> = (0..6).map(|_| node("A", 2000, 1e4)).collect();
    let stages = choose(&halves, &nodes, &lan, Use { conversations: 8, ..ONE }).unwrap().stages;
    assert_eq!(stages.into_iter().map(|stage| stage.layers).collect::<Vec<_>>(), [0..5, 5..10]);
}

#[test]
fn layers_too_uneven_to_share_stay_on_one_machine() {
    // On average, the fast machine has room for one of the layers. It has none for the one that matters.
    let uneven = ModelProfile { layer_bytes: vec![999, 1], ..model(2, 0, 0) };
    let nodes: Vec<_> = (0..6).map(|_| node("Slow", 2000, 1e3)).chain([node("Fast", 600, 1e5)]).collect();
    let far = |_: usize, _: usize| LinkProfile { round_trip_us: 6000.0, bits_per_s: 1e9 };
    assert_eq!(choose(&uneven, &nodes, &far, ONE).unwrap().stages.len(), 1);
}
