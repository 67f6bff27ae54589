//! How much of conversations fits beside a plan's weights.

use std::collections::BTreeMap;

use crate::{ModelProfile, PlannedStage, StateBytes};

/// A machine's share of a plan, which may be several stages.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Bytes of its stages, without the conversations' states.
    pub(crate) fixed_bytes: u64,
    /// Bytes of the states of the requested context.
    pub(crate) kv_bytes: u64,
    layers: Vec<usize>,
}

pub(crate) fn held(stages: &[PlannedStage]) -> BTreeMap<usize, Held> {
    let mut held: BTreeMap<usize, Held> = BTreeMap::new();
    for stage in stages {
        let Held { fixed_bytes, kv_bytes, layers } = held.entry(stage.machine).or_default();
        *fixed_bytes = fixed_bytes.saturating_add(stage.weight_bytes).saturating_add(stage.base_bytes);
        *kv_bytes = kv_bytes.saturating_add(stage.kv_bytes);
        layers.extend(stage.layers.clone());
    }
    held
}

/// More tokens than any machines have room for: effectively no limit.
const MOST_TOKENS: u64 = 1 << 30;

/// Tokens whose states fit on every machine beside everything else, as `Plan::room_tokens` has them.
pub(crate) fn room_tokens(model: &ModelProfile, stages: &[PlannedStage], memory_bytes: impl Fn(usize) -> u64) -> u64 {
    let room = |(machine, held): (usize, Held)| {
        let states = held.layers.into_iter().map(|layer| model.states[layer]).collect();
        longest(states, memory_bytes(machine).saturating_sub(held.fixed_bytes))
    };
    held(stages).into_iter().map(room).min().unwrap_or(0)
}

/// What a conversation takes beside its tokens, as `Plan::own_tokens` has it.
pub(crate) fn own_tokens(
    model: &ModelProfile,
    stages: &[PlannedStage],
    memory_bytes: impl Fn(usize) -> u64,
    room_tokens: u64,
) -> u64 {
    let own = |(machine, held): (usize, Held)| {
        let states = || held.layers.iter().map(|layer| model.states[*layer]);
        let fixed_bytes: u128 = states().map(|state| u128::from(state.fixed)).sum();
        let per_token: u128 = states().map(|state| u128::from(state.per_token)).sum();
        let own = match (fixed_bytes, per_token) {
            (0, _) => 0,
            // So many conversations fit, whatever their length.
            (_, 0) => {
                let left_bytes = memory_bytes(machine).saturating_sub(held.fixed_bytes);
                u128::from(room_tokens.min(MOST_TOKENS)).div_ceil((u128::from(left_bytes) / fixed_bytes).max(1))
            }
            _ => fixed_bytes.div_ceil(per_token),
        };
        u64::try_from(own).unwrap_or(u64::MAX).min(MOST_TOKENS)
    };
    held(stages).into_iter().map(own).max().unwrap_or(0)
}

/// Tokens of the longest conversation whose states fit into `left_bytes`.
fn longest(mut states: Vec<StateBytes>, left_bytes: u64) -> u64 {
    let fixed_bytes: u128 = states.iter().map(|state| u128::from(state.fixed)).sum();
    let Some(mut left) = u128::from(left_bytes).checked_sub(fixed_bytes) else { return 0 };
    // Each token takes as much as the one before, until a state stops growing.
    let mut per_token: u128 = states.iter().map(|state| u128::from(state.per_token)).sum();
    let mut tokens = 0;
    states.retain(|state| state.most_tokens.is_some());
    states.sort_by_key(|state| state.most_tokens);
    for StateBytes { per_token: bytes, most_tokens, .. } in states {
        let most_tokens = u128::from(most_tokens.unwrap_or(u64::MAX));
        let needed = per_token.saturating_mul(most_tokens - tokens);
        if needed > left {
            break;
        }
        left -= needed;
        tokens = most_tokens;
        per_token -= u128::from(bytes);
    }
    match left.checked_div(per_token) {
        Some(more) => u64::try_from(tokens + more).unwrap_or(u64::MAX),
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(per_token: u64, most_tokens: Option<u64>, fixed: u64) -> StateBytes {
        StateBytes { per_token, most_tokens, fixed }
    }

    #[test]
    fn full_windows_and_fixed_states_come_before_further_tokens() {
        let states = vec![state(2, None, 0), state(3, Some(10), 0), state(0, None, 50)];
        assert_eq!(longest(states.clone(), 50 + 10 * 5 + 2 * 7), 17);
        assert_eq!(longest(states.clone(), 50 + 9 * 5 + 4), 9, "within the window, every token takes both");
        assert_eq!(longest(states, 49), 0, "not even an empty conversation fits");
    }

    #[test]
    fn what_never_grows_has_room_for_any_length() {
        assert_eq!(longest(vec![state(0, None, 50), state(3, Some(10), 0)], 80), u64::MAX);
        assert_eq!(longest(vec![state(0, None, 50), state(3, Some(10), 0)], 79), 9);
    }

    #[test]
    fn what_a_conversation_takes_whatever_its_length_counts_as_tokens_on_the_machine_where_it_takes_most() {
        let (recurrent, growing) = (state(0, None, 50), state(3, None, 0));
        let own = |machines: &[usize], states: Vec<StateBytes>, memory_bytes: u64| {
            let stage = |(layer, machine): (usize, &usize)| PlannedStage {
                machine: *machine,
                layers: layer..layer + 1,
                weight_bytes: 10,
                kv_bytes: 0,
                base_bytes: 0,
            };
            let stages: Vec<_> = machines.iter().enumerate().map(stage).collect();
            let model = ModelProfile {
                layer_bytes: vec![10; states.len()],
                unread_bytes: Vec::new(),
                embedding_bytes: 0,
                head_bytes: 0,
                states,
                uncut: Vec::new(),
                base_bytes: 0,
            };
            own_tokens(&model, &stages, |_| memory_bytes, 100)
        };
        assert_eq!(own(&[0, 0], vec![growing, growing], 1000), 0);
        assert_eq!(own(&[0, 0], vec![recurrent, growing], 1000), 17, "50 bytes are 17 tokens of 3");
        // One machine holds the recurrent layer alone, and four conversations fit there.
        assert_eq!(own(&[0, 1], vec![recurrent, growing], 210), 25);
    }

    proptest! {
        #[test]
        fn one_token_more_would_not_fit(
            states in prop::collection::vec((0u64..5, prop::option::of(0u64..20), 0u64..9), 1..6),
            left_bytes in 0u64..200,
        ) {
            let states: Vec<_> = states.into_iter().map(|(bytes, most, fixed)| state(bytes, most, fixed)).collect();
            let fits = |tokens| states.iter().map(|state| state.bytes(tokens, 1)).sum::<u64>() <= left_bytes;
            let tokens = longest(states.clone(), left_bytes);
            prop_assert!(tokens == 0 || fits(tokens));
            prop_assert!(tokens == u64::MAX || !fits(tokens + 1));
        }

        #[test]
        fn states_that_grow_with_every_token_share_the_memory_evenly(
            per_token in prop::collection::vec(1u64..1000, 1..6), left_bytes in any::<u64>(),
        ) {
            let all: u64 = per_token.iter().sum();
            let states = per_token.into_iter().map(|bytes| state(bytes, None, 0)).collect();
            prop_assert_eq!(longest(states, left_bytes), left_bytes / all);
        }
    }
}
