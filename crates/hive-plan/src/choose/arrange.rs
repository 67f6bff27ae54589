//! Checks a manual or an earlier placement in full before anything is loaded.

use std::ops::Range;

use super::{LinkProfile, NodeProfile, Problem, Use, predict};
use crate::room::{Held, held, own_tokens, room_tokens};
use crate::{ModelProfile, Plan, assert_each_layer_once};

/// Why stages are not a valid plan. Layers are counted from 0 and written as in a plan file, `[first, end)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrangeError {
    /// There are no stages.
    #[error("it has no stages")]
    NoStages,
    /// A stage is empty.
    #[error("stage {stage} has no layers: [{}, {}]; write [first, end], with the end one after the last", layers.start, layers.end)]
    Empty {
        /// The stage, counted from 1.
        stage: usize,
        /// Its layers, as written.
        layers: Range<usize>,
    },
    /// A gap between a stage and the one before it.
    #[error("stage {stage} begins at layer {}, but layers [{}, {}] are in no stage before it", missing.end, missing.start, missing.end)]
    Missing {
        /// The stage, counted from 1.
        stage: usize,
        /// The layers in no stage.
        missing: Range<usize>,
    },
    /// A stage overlaps the one before it.
    #[error("stage {stage} begins at layer {begins}, but the stages before it hold all layers up to {held}")]
    Twice {
        /// The stage, counted from 1.
        stage: usize,
        /// Its first layer.
        begins: usize,
        /// The end of the one before it.
        held: usize,
    },
    /// The last stage does not end at the model's last layer.
    #[error("the last stage ends at layer {end}, but the model has {layers} layers")]
    End {
        /// Its end.
        end: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A stage begins where the model may not be cut.
    #[error("stage {stage} begins at layer {begins}, where this model may not be cut; {}", nearest(*earlier, *later))]
    Uncut {
        /// The stage, counted from 1.
        stage: usize,
        /// Its first layer.
        begins: usize,
        /// The nearest layer before it at which a stage may begin.
        earlier: Option<usize>,
        /// The nearest layer after it at which a stage may begin.
        later: Option<usize>,
    },
    /// A machine's stages need more memory than it offers.
    #[error(
        "{machine} would need {} MB with one conversation, but gives {} MB", needed_bytes.div_ceil(1_000_000),
        given_bytes / 1_000_000
    )]
    DoesNotFit {
        /// The machine.
        machine: String,
        /// Bytes of its stages.
        needed_bytes: u64,
        /// Bytes it offers.
        given_bytes: u64,
    },
}

fn nearest(earlier: Option<usize>, later: Option<usize>) -> String {
    match (earlier, later) {
        (Some(earlier), Some(later)) => {
            format!("the nearest layers at which a stage may begin are {earlier} and {later}")
        }
        (Some(layer), None) | (None, Some(layer)) => format!("the nearest layer at which a stage may begin is {layer}"),
        (None, None) => "all its layers must be in one stage".to_owned(),
    }
}

/// Builds the plan with these stages, each on the machine at that index in `nodes`. A machine may have several.
pub fn arrange(
    model: &ModelProfile,
    nodes: &[NodeProfile],
    link: &dyn Fn(usize, usize) -> LinkProfile,
    wanted: Use,
    stages: &[(usize, Range<usize>)],
) -> Result<Plan, ArrangeError> {
    let layers = model.layer_bytes.len();
    check(stages.iter().map(|(_, layers)| layers), &model.cuts())?;
    let (order, ranges): (Vec<usize>, Vec<Range<usize>>) = stages.iter().cloned().unzip();
    let placed = Problem::new(model, nodes, link, wanted).stages(&order, &ranges);
    assert_each_layer_once(&placed, layers);
    for (machine, Held { fixed_bytes, kv_bytes, .. }) in held(&placed) {
        let NodeProfile { name, memory_bytes: given_bytes, .. } = &nodes[machine];
        let (given_bytes, needed_bytes) = (*given_bytes, fixed_bytes.saturating_add(kv_bytes));
        if needed_bytes > given_bytes {
            return Err(ArrangeError::DoesNotFit { machine: name.clone(), needed_bytes, given_bytes });
        }
    }
    let memory_bytes = |machine: usize| nodes[machine].memory_bytes;
    let room_tokens = room_tokens(model, &placed, memory_bytes);
    let own_tokens = own_tokens(model, &placed, memory_bytes, room_tokens);
    let decode_tokens_per_s = Some(predict(model, nodes, link, wanted, stages).tokens_per_s());
    Ok(Plan { stages: placed, reasons: Vec::new(), decode_tokens_per_s, room_tokens, own_tokens })
}

/// Checks that the stages cover every layer exactly once, in order, and begin and end at `cuts`.
fn check<'a>(stages: impl Iterator<Item = &'a Range<usize>>, cuts: &[usize]) -> Result<(), ArrangeError> {
    let layers = cuts[cuts.len() - 1];
    let (mut held, mut count) = (0, 0);
    for range in stages {
        count += 1;
        let stage = count;
        if range.is_empty() {
            return Err(ArrangeError::Empty { stage, layers: range.clone() });
        }
        if range.start > held {
            return Err(ArrangeError::Missing { stage, missing: held..range.start });
        }
        if range.start < held {
            return Err(ArrangeError::Twice { stage, begins: range.start, held });
        }
        // A stage may begin at any cut but the last, the end of the model; at the first, only the first stage does.
        if let Err(next) = cuts.binary_search(&range.start)
            && range.start < layers
        {
            let earlier = Some(cuts[next - 1]).filter(|cut| *cut > 0);
            let later = Some(cuts[next]).filter(|cut| *cut < layers);
            return Err(ArrangeError::Uncut { stage, begins: range.start, earlier, later });
        }
        held = range.end;
    }
    match count {
        0 => Err(ArrangeError::NoStages),
        _ if held != layers => Err(ArrangeError::End { end: held, layers }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose;
    use super::*;
    use crate::{Form, StateBytes};
    use proptest::prelude::*;

    const ONE: Use = Use { context_tokens: 2, conversations: 1, hidden_bytes: 0 };

    fn model(layers: usize) -> ModelProfile {
        ModelProfile {
            layer_bytes: vec![10; layers],
            unread_bytes: Vec::new(),
            embedding_bytes: 5,
            head_bytes: 20,
            states: vec![StateBytes { per_token: 1, ..StateBytes::default() }; layers],
            uncut: Vec::new(),
            base_bytes: 0,
        }
    }

    fn nodes(count: usize, memory_bytes: u64) -> Vec<NodeProfile> {
        (0..count).map(|i| node(format!("machine {i}"), memory_bytes, 1e3)).collect()
    }

    fn node(name: String, memory_bytes: u64, bytes_per_s: f64) -> NodeProfile {
        NodeProfile { name, memory_bytes, bytes_per_s, form: Form::Packed }
    }

    fn lan(_: usize, _: usize) -> LinkProfile {
        LinkProfile { round_trip_us: 600.0, bits_per_s: 1e9 }
    }

    fn try_all(stages: &[(usize, Range<usize>)], memory_bytes: u64) -> Result<Plan, String> {
        arrange(&model(10), &nodes(2, memory_bytes), &lan, ONE, stages).map_err(|error| error.to_string())
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "people write such things")]
    fn what_is_wrong_with_stages_written_by_hand_is_named() {
        for (stages, wrong) in [
            (vec![], "it has no stages"),
            (vec![(0, 0..5), (1, 5..5), (0, 5..10)], "stage 2 has no layers: [5, 5]"),
            (vec![(0, 5..0), (1, 5..10)], "stage 1 has no layers: [5, 0]"),
            (vec![(0, 1..10)], "stage 1 begins at layer 1, but layers [0, 1] are in no stage before it"),
            (vec![(0, 0..4), (1, 6..10)], "stage 2 begins at layer 6, but layers [4, 6] are in no stage before it"),
            (
                vec![(0, 0..6), (1, 4..10)],
                "stage 2 begins at layer 4, but the stages before it hold all layers up to 6",
            ),
            (vec![(0, 0..4), (1, 4..9)], "the last stage ends at layer 9, but the model has 10 layers"),
            (vec![(0, 0..4), (1, 4..12)], "the last stage ends at layer 12, but the model has 10 layers"),
        ] {
            let message = try_all(&stages, 1000).unwrap_err();
            assert!(message.starts_with(wrong), "{message}");
        }
    }

    #[test]
    fn a_cut_where_there_may_be_none_is_refused_with_the_nearest_that_may_be() {
        let begin = |uncut: Vec<usize>, begins: usize| {
            let model = ModelProfile { uncut, ..model(10) };
            arrange(&model, &nodes(2, 1000), &lan, ONE, &[(0, 0..begins), (1, begins..10)])
                .map_err(|error| error.to_string())
        };
        let message = begin(vec![6, 4, 5], 5).unwrap_err();
        let words = "stage 2 begins at layer 5, where this model may not be cut; the nearest layers at which a stage \
                     may begin are 3 and 7";
        assert_eq!(message, words);
        for (uncut, nearest) in [
            (1..6, "; the nearest layer at which a stage may begin is 6"),
            (5..10, "; the nearest layer at which a stage may begin is 4"),
            (1..10, "; all its layers must be in one stage"),
        ] {
            let message = begin(uncut.collect(), 5).unwrap_err();
            assert!(message.ends_with(nearest), "{message}");
        }
        for begins in [1, 2, 3, 7, 8, 9] {
            assert!(begin(vec![6, 4, 5], begins).is_ok());
        }
        // Its ends are no cuts.
        assert!(begin(vec![0, 10], 5).is_ok());
    }

    #[test]
    fn stages_of_one_machine_share_its_memory() {
        // All weights are 125 bytes, and a token of a conversation 10.
        let twice = [(0, 0..3), (1, 3..6), (0, 6..10)];
        assert_eq!(try_all(&twice, 109).unwrap().room_tokens, (109 - 95) / 7);
        let message = try_all(&twice, 108).unwrap_err();
        assert_eq!(message, "machine 0 would need 1 MB with one conversation, but gives 0 MB");
        // Each stage has a process.
        let with_base = ModelProfile { base_bytes: 50, ..model(10) };
        let of =
            |memory_bytes| arrange(&with_base, &nodes(2, memory_bytes), &lan, ONE, &twice).map(|plan| plan.room_tokens);
        assert_eq!(of(209), Ok((209 - 195) / 7));
        assert!(of(208).is_err());
    }

    proptest! {
        #[test]
        fn a_chosen_plan_written_down_is_the_same_plan(
            machines in prop::collection::vec((40u64..400, 1e3f64..1e5), 1..6),
            round_trip_us in 10f64..5000.0,
            states in prop::collection::vec((0u64..3, prop::option::of(0u64..4), 0u64..3), 12),
            uncut in prop::collection::vec(1usize..12, 0..4),
        ) {
            let state = |(per_token, most_tokens, fixed)| StateBytes { per_token, most_tokens, fixed };
            let model = ModelProfile { states: states.into_iter().map(state).collect(), uncut, ..model(12) };
            let node = |(memory_bytes, bytes_per_s)| node("n".to_owned(), memory_bytes, bytes_per_s);
            let nodes: Vec<_> = machines.into_iter().map(node).collect();
            let link = |_: usize, _: usize| LinkProfile { round_trip_us, bits_per_s: 1e9 };
            if let Ok(chosen) = choose(&model, &nodes, &link, ONE) {
                let stages: Vec<_> = chosen.stages.iter().map(|stage| (stage.machine, stage.layers.clone())).collect();
                let again = arrange(&model, &nodes, &link, ONE, &stages).unwrap();
                prop_assert_eq!(&again.stages, &chosen.stages);
                prop_assert_eq!(again.room_tokens, chosen.room_tokens);
                let (a, b) = (again.decode_tokens_per_s.unwrap(), chosen.decode_tokens_per_s.unwrap());
                prop_assert!((a / b - 1.0).abs() < 1e-9, "{} {}", a, b);
            }
        }
    }
}
