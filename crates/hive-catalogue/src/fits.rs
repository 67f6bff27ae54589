//! Whether machines have room for a model, and advice if they have not.
//!
//! The planner is passed in as a function: it knows how a model may be cut and the memory of each part. So the planner
//! would accept the advice; a mere sum would forget the memory that every further machine needs for itself.

use hive_types::Fit;

/// A machine that may hold a part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its name.
    pub name: String,
    /// Memory that it shares now, in bytes.
    pub shared_bytes: u64,
    /// Memory that it could share if its owner allowed more, in bytes.
    pub most_bytes: u64,
}

/// Where the planner would put a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placed {
    /// Machines by their place in the list that was asked about, in the order that a token passes them, and the bytes
    /// that each would hold. A machine may be there twice.
    pub held: Vec<(usize, u64)>,
    /// Tokens of the longest conversation for which these machines would have room.
    pub room_tokens: u64,
    /// Predicted speed of one conversation.
    pub tokens_per_s: Option<f64>,
}

/// The result.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub fit: Fit,
    /// The machines that would hold it, in the order that a token passes them.
    pub machines: Vec<String>,
    /// Tokens of the longest conversation for which these machines would have room; 0 if it does not fit.
    pub room_tokens: u64,
    /// Predicted speed of one conversation.
    pub tokens_per_s: Option<f64>,
}

const GB: u64 = 1_000_000_000;
/// Memory of machines that people buy, in GB.
const SOLD_GB: [u64; 11] = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512];
/// How much more than the sum says is tried: parts of a model do not fill machines to the last byte.
const TRIED_GB: u64 = 8;

/// The part of its memory that a machine of one's own can share: macOS gives a GPU three quarters of it.
pub fn shareable(memory_bytes: u64) -> u64 {
    memory_bytes / 4 * 3
}

/// Judges whether a model fits. `needed_bytes` is its memory on one machine. `plan` places it on machines that share
/// this many bytes each: those of `machines`, in their order, and perhaps one more.
pub fn judge(machines: &[Share], needed_bytes: u64, plan: &dyn Fn(&[u64]) -> Option<Placed>) -> Judged {
    let shared: Vec<u64> = machines.iter().map(|machine| machine.shared_bytes).collect();
    if let Some(placed) = plan(&shared) {
        return fitting(machines, placed);
    }
    let (bytes, advice) = missing(machines, &shared, needed_bytes, plan);
    Judged { fit: Fit::NeedsMore { bytes, advice }, machines: Vec::new(), room_tokens: 0, tokens_per_s: None }
}

fn fitting(machines: &[Share], Placed { held, room_tokens, tokens_per_s }: Placed) -> Judged {
    let left_bytes = |index: usize| {
        let here = held.iter().filter(|(at, _)| *at == index);
        let held_bytes = here.map(|(_, bytes)| *bytes).reduce(u64::saturating_add)?;
        Some(machines[index].shared_bytes.saturating_sub(held_bytes))
    };
    let left = machines.iter().enumerate().filter_map(|(index, machine)| Some((machine, left_bytes(index)?)));
    let tightest = left.filter(|(machine, left_bytes)| *left_bytes < machine.shared_bytes / 10);
    let tightest = tightest.min_by(|(a, a_left), (b, b_left)| {
        let part = |machine: &Share, left: u64| left as f64 / machine.shared_bytes.max(1) as f64;
        part(a, *a_left).total_cmp(&part(b, *b_left))
    });
    let fit = tightest
        .map_or(Fit::Comfortable, |(machine, left_bytes)| Fit::Snug { machine: machine.name.clone(), left_bytes });
    let mut names: Vec<String> =
        held.iter().filter_map(|(at, _)| machines.get(*at)).map(|machine| machine.name.clone()).collect();
    names.dedup();
    Judged { fit, machines: names, room_tokens, tokens_per_s }
}

/// The missing bytes in all, and the advice.
fn missing(
    machines: &[Share],
    shared: &[u64],
    needed_bytes: u64,
    plan: &dyn Fn(&[u64]) -> Option<Placed>,
) -> (u64, String) {
    let given_bytes = shared.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let least_gb = needed_bytes.saturating_sub(given_bytes).div_ceil(GB).max(1);
    let with_more = |at: usize, more_bytes: u64| {
        let mut shared = shared.to_vec();
        shared[at] = shared[at].saturating_add(more_bytes);
        plan(&shared).is_some()
    };
    // One that shares the least more, and of these the one with the most room.
    let by_sharing = (least_gb..=least_gb.saturating_add(TRIED_GB)).find_map(|gb| {
        let room = |machine: &Share| machine.most_bytes.saturating_sub(machine.shared_bytes);
        let may = machines.iter().enumerate().filter(|(_, machine)| room(machine) / GB >= gb);
        let at =
            may.filter(|(at, _)| with_more(*at, gb.saturating_mul(GB))).max_by_key(|(_, machine)| room(machine))?.0;
        Some((gb, format!("share {gb} GB more on {}", machines[at].name)))
    });
    if let Some((gb, advice)) = by_sharing {
        return (gb.saturating_mul(GB), advice);
    }
    let missing_bytes = least_gb.saturating_mul(GB);
    let with_another = |gb: &&u64| {
        let share = shareable(**gb * GB);
        share >= missing_bytes && plan(&[shared, &[share]].concat()).is_some()
    };
    match SOLD_GB.iter().find(with_another) {
        Some(gb) => (missing_bytes, format!("add a {} machine with {gb} GB", ordinal(machines.len() + 1))),
        None => (missing_bytes, format!("add machines that share {least_gb} GB together")),
    }
}

/// "second", "third", "11th".
fn ordinal(number: usize) -> String {
    let words = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let suffix = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    words.get(number.wrapping_sub(1)).map_or_else(|| format!("{number}{suffix}"), |word| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str, shared_gb: u64, most_gb: u64) -> Share {
        Share { name: name.to_owned(), shared_bytes: shared_gb * GB, most_bytes: most_gb * GB }
    }

    /// A planner that fills machines in their order, of a model that may be cut anywhere. Each takes 1 GB for itself.
    fn filling(needed_gb: u64) -> impl Fn(&[u64]) -> Option<Placed> {
        move |shared| {
            let (mut left, mut held) = (needed_gb * GB, Vec::new());
            for (at, bytes) in shared.iter().enumerate() {
                let part = left.min(bytes.saturating_sub(GB));
                if part > 0 {
                    held.push((at, part + GB));
                    left -= part;
                }
            }
            (left == 0).then_some(Placed { held, room_tokens: 5000, tokens_per_s: Some(20.0) })
        }
    }

    fn judged(machines: &[Share], needed_gb: u64) -> Judged {
        judge(machines, (needed_gb + 1) * GB, &filling(needed_gb))
    }

    fn fit(machines: &[Share], needed_gb: u64) -> Fit {
        judged(machines, needed_gb).fit
    }

    #[test]
    fn a_model_that_leaves_a_tenth_everywhere_is_comfortable() {
        let machines = [share("studio", 20, 20), share("attic", 10, 10)];
        assert_eq!(fit(&machines, 17), Fit::Comfortable);
        let snug = |machine: &str, gb: u64| Fit::Snug { machine: machine.to_owned(), left_bytes: gb * GB };
        assert_eq!(fit(&machines, 18), snug("studio", 1));
        // The machine with the smallest part left is named, and one that holds nothing is not.
        assert_eq!(fit(&machines, 19), snug("studio", 0));
        let Judged { machines, room_tokens, tokens_per_s, .. } = judged(&machines, 20);
        assert_eq!(machines, ["studio", "attic"]);
        assert_eq!((room_tokens, tokens_per_s), (5000, Some(20.0)));
    }

    #[test]
    fn a_machine_that_is_there_twice_holds_both_parts() {
        let machines = [share("studio", 20, 20)];
        let plan =
            |_: &[u64]| Some(Placed { held: vec![(0, 10 * GB), (0, 9 * GB)], room_tokens: 5000, tokens_per_s: None });
        let Judged { fit, machines, .. } = judge(&machines, 19 * GB, &plan);
        assert_eq!(fit, Fit::Snug { machine: "studio".to_owned(), left_bytes: GB });
        assert_eq!(machines, ["studio"]);
    }

    fn advice(machines: &[Share], needed_gb: u64) -> (u64, String) {
        match fit(machines, needed_gb) {
            Fit::NeedsMore { bytes, advice } => (bytes / GB, advice),
            fit => panic!("{fit:?}"),
        }
    }

    #[test]
    fn what_is_missing_is_what_the_planner_would_accept() {
        // By the sum, 5 GB would do; but the second machine takes one for itself.
        let machines = [share("studio", 20, 20), share("attic", 10, 30)];
        assert_eq!(advice(&machines, 34), (6, "share 6 GB more on attic".to_owned()));
        // The machine with the most room.
        let machines = [share("studio", 20, 30), share("attic", 10, 30)];
        assert_eq!(advice(&machines, 34), (6, "share 6 GB more on attic".to_owned()));
    }

    #[test]
    fn a_further_machine_helps_where_nobody_can_share_more() {
        let machines = [share("a", 10, 10), share("b", 10, 10), share("c", 10, 11)];
        // A machine of 16 GB can share 12 of them, of which it takes one for itself.
        assert_eq!(advice(&machines, 38), (9, "add a fourth machine with 16 GB".to_owned()));
        assert_eq!(advice(&machines, 39).1, "add a fourth machine with 24 GB");
        assert_eq!(advice(&[], 3), (4, "add a first machine with 8 GB".to_owned()));
        let (missing, words) = advice(&machines, 2000);
        assert_eq!((missing, words.as_str()), (1971, "add machines that share 1971 GB together"));
    }

    #[test]
    fn numbers_that_no_model_has_are_too_much_and_nothing_worse() {
        let machines = [share("studio", 0, 30)];
        let judged = judge(&machines, u64::MAX, &|_| None);
        let Fit::NeedsMore { bytes, advice } = judged.fit else { panic!("{judged:?}") };
        assert_eq!(bytes, u64::MAX);
        assert!(advice.starts_with("add machines that share"), "{advice}");
    }

    #[test]
    fn machines_are_counted_in_words() {
        let all = [1, 2, 4, 10, 11, 12, 21, 22, 103].map(ordinal);
        assert_eq!(all, ["first", "second", "fourth", "tenth", "11th", "12th", "21st", "22nd", "103rd"]);
    }
}
