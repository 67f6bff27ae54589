//! Sampling: from logits to a token.
//!
//! Pure functions over plain numbers. Randomness is counter-based: the draw for a position depends only on (seed,
//! position), so a session that moves to another machine continues with the same tokens.

mod history;
mod on_device;
mod penalties;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use history::History;
pub(crate) use on_device::Tokens;
pub(crate) use penalties::Row;

/// Sampling settings. The default is greedy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 is greedy; higher is more random.
    pub temperature: f32,
    /// Top-k: only the k likeliest tokens; 0 is off.
    pub top_k: u32,
    /// Top-p: only the likeliest tokens that together have this probability; 1 is off.
    pub top_p: f32,
    /// Min-p: only tokens at least this likely relative to the likeliest; 0 is off.
    pub min_p: f32,
    /// Repetition penalty: divides positive and multiplies negative logits of tokens seen before; 1 is off.
    pub repetition_penalty: f32,
    /// Presence penalty: subtracted from the logits of tokens in the answer so far; 0 is off.
    pub presence_penalty: f32,
    /// Frequency penalty: subtracted once per occurrence in the answer so far; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The number of alternatives to report with their log probabilities; `None` reports no probabilities at all.
    pub logprobs: Option<u8>,
    /// Seed of the randomness.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            logprobs: None,
            seed: 0,
        }
    }
}

/// A setting that is out of range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name} is {value}; it must be {range}")]
pub struct SamplingError {
    name: &'static str,
    value: f32,
    range: &'static str,
}

impl Sampling {
    /// Whether logits are changed before the choice.
    pub(crate) fn adjusts(&self) -> bool {
        !self.logit_bias.is_empty()
            || self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// Checks the range of every setting.
    pub fn check(&self) -> Result<(), SamplingError> {
        let checks: [(&'static str, f32, bool, &'static str); 7] = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "between 0 and 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0,
                "above 0 and at most 100",
            ),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.abs() <= 100.0, "between -100 and 100"),
            (
                "frequency_penalty",
                self.frequency_penalty,
                self.frequency_penalty.abs() <= 100.0,
                "between -100 and 100",
            ),
            (
                "logit_bias",
                self.logit_bias.values().copied().find(|bias| !bias.is_finite()).unwrap_or(0.0),
                self.logit_bias.values().all(|bias| bias.is_finite()),
                "finite",
            ),
        ];
        match checks.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((name, value, _, range)) => Err(SamplingError { name, value, range }),
            None => Ok(()),
        }
    }
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log probability under the model (after penalties, before temperature); `None` if not requested.
    pub logprob: Option<f32>,
    /// The likeliest tokens with their log probabilities, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Samples the token for `position` from `logits`.
///
/// `prompt` and `answer` are the tokens so far, for the penalties; without these, neither is looked at. The result is a
/// pure function of the arguments.
pub(crate) fn sample(
    logits: &[f32],
    settings: &Sampling,
    prompt: &[u32],
    answer: impl Iterator<Item = u32> + Clone,
    position: u64,
) -> Sampled {
    let logits = adjusted(logits, settings, prompt, answer);
    let token = if settings.temperature == 0.0 {
        greedy(&logits)
    } else {
        draw(&logits, settings, uniform(settings.seed, position))
    };
    let Some(count) = settings.logprobs else {
        return Sampled { token, logprob: None, top: Vec::new() };
    };
    let normalizer = log_sum_exp(&logits);
    let top = likeliest(&logits, usize::from(count)).into_iter().map(|id| (id, logits[id as usize] - normalizer));
    Sampled { token, logprob: Some(logits[token as usize] - normalizer), top: top.collect() }
}

/// The likeliest token; the first of equals.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// Applies biases and penalties, if there are any; logits are many.
fn adjusted<'a>(
    logits: &'a [f32],
    settings: &Sampling,
    prompt: &[u32],
    answer: impl Iterator<Item = u32> + Clone,
) -> Cow<'a, [f32]> {
    if !settings.adjusts() {
        return Cow::Borrowed(logits);
    }
    let mut logits = logits.to_vec();
    for (&token, &bias) in &settings.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if settings.repetition_penalty != 1.0 {
        // Once per distinct token: a conversation is long, and this runs for every token.
        let mut seen = vec![false; logits.len()];
        for token in prompt.iter().copied().chain(answer.clone()) {
            if let Some(seen) = seen.get_mut(token as usize) {
                *seen = true;
            }
        }
        let penalty = settings.repetition_penalty;
        for (logit, _) in logits.iter_mut().zip(seen).filter(|(_, seen)| *seen) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
    if settings.presence_penalty != 0.0 || settings.frequency_penalty != 0.0 {
        let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
        for token in answer {
            *counts.entry(token).or_default() += 1.0;
        }
        for (token, count) in counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= settings.presence_penalty + settings.frequency_penalty * count;
            }
        }
    }
    Cow::Owned(logits)
}

/// Tokens among which the cuts are looked for first.
const FEW: usize = 256;

/// Draws from the softmax at the temperature, cut by top-k, top-p and min-p in this order.
fn draw(logits: &[f32], settings: &Sampling, uniform: f64) -> u32 {
    let best = logits[greedy(logits) as usize];
    let weight = |id: u32| f64::from((logits[id as usize] - best) / settings.temperature).exp();
    let most = if settings.top_k > 0 { (settings.top_k as usize).min(logits.len()) } else { logits.len() };
    let candidates = if settings.top_p < 1.0 || settings.min_p > 0.0 {
        // Above 1, nothing is cut.
        let top_p = if settings.top_p < 1.0 { f64::from(settings.top_p) } else { 2.0 };
        let all = || (0..logits.len() as u32).map(weight).sum();
        let total: f64 =
            if most < logits.len() { likeliest(logits, most).into_iter().map(weight).sum() } else { all() };
        // Usually, few tokens are left, and sorting them all would take longer than everything else.
        let mut count = most.min(FEW);
        loop {
            let mut candidates = likeliest(logits, count);
            let mut sum = 0.0;
            let last = candidates.iter().position(|&id| {
                let weight = weight(id);
                sum += weight;
                // The likeliest has weight 1.
                sum >= top_p * total || weight < f64::from(settings.min_p)
            });
            if last.is_none() && count < most {
                count = most.min(count * FEW);
                continue;
            }
            candidates.truncate(last.map_or(candidates.len(), |last| last + 1));
            candidates.retain(|&id| weight(id) >= f64::from(settings.min_p));
            break candidates;
        }
    } else if most < logits.len() {
        likeliest(logits, most)
    } else {
        (0..logits.len() as u32).collect()
    };
    let total: f64 = candidates.iter().map(|&id| weight(id)).sum();
    let mut left = uniform * total;
    for &id in &candidates {
        left -= weight(id);
        if left < 0.0 {
            return id;
        }
    }
    // Rounding may leave a remainder; it goes to the last token with any weight.
    candidates.last().copied().unwrap_or_else(|| greedy(logits))
}

/// The `count` likeliest tokens, likeliest first, equals by id.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        if count == 0 {
            return Vec::new();
        }
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let best = logits[greedy(logits) as usize];
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - best).exp()).sum();
    best + sum.ln() as f32
}

/// A number in [0, 1) that depends only on seed and position: two rounds of the `SplitMix64` finalizer.
fn uniform(seed: u64, position: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bits = mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut settings = Sampling { temperature: 1.0, ..Sampling::default() };
        change(&mut settings);
        settings
    }

    fn sampled(logits: &[f32], settings: &Sampling, prompt: &[u32], answer: &[u32], position: u64) -> Sampled {
        sample(logits, settings, prompt, answer.iter().copied(), position)
    }

    fn drawn(logits: &[f32], settings: &Sampling) -> std::collections::BTreeSet<u32> {
        (0..500).map(|position| sampled(logits, settings, &[], &[], position).token).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(sampled(&[1.0, 3.0, 3.0], &Sampling::default(), &[], &[], 0).token, 1);
    }

    #[test]
    fn cuts_leave_the_likely_ones() {
        let logits = [0.0, 2.0, 1.0, -1.0];
        assert_eq!(drawn(&logits, &with(|s| s.top_k = 2)), [1, 2].into());
        assert_eq!(drawn(&logits, &with(|s| s.top_p = 0.6)), [1].into());
        assert_eq!(drawn(&logits, &with(|s| s.top_p = 0.7)), [1, 2].into());
        assert_eq!(drawn(&logits, &with(|s| s.min_p = 0.3)), [1, 2].into());
        assert_eq!(drawn(&logits, &with(|_| ())), [0, 1, 2, 3].into());
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let settings = with(|_| ());
        let ones = (0..20_000).filter(|&p| sampled(&[0.0, 1.0], &settings, &[], &[], p).token == 1).count();
        let expected = 20_000.0 / (1.0 + (-1.0f64).exp());
        assert!((ones as f64 - expected).abs() < 300.0, "{ones} against {expected}");
    }

    #[test]
    fn penalties_and_bias_move_the_choice() {
        let greedy = |change: &dyn Fn(&mut Sampling), prompt: &[u32], answer: &[u32]| {
            let mut settings = Sampling::default();
            change(&mut settings);
            sampled(&[2.0, 1.9, -1.0], &settings, prompt, answer, 0).token
        };
        assert_eq!(greedy(&|s| s.repetition_penalty = 1.5, &[0], &[]), 1);
        assert_eq!(greedy(&|s| s.repetition_penalty = 1.03, &[0, 0, 0], &[0]), 0, "once, however often it came");
        assert_eq!(greedy(&|s| s.presence_penalty = 0.5, &[0], &[]), 0, "the prompt is not the answer");
        assert_eq!(greedy(&|s| s.presence_penalty = 0.5, &[], &[0]), 1);
        assert_eq!(greedy(&|s| s.frequency_penalty = 0.06, &[], &[0]), 0);
        assert_eq!(greedy(&|s| s.frequency_penalty = 0.06, &[], &[0, 0]), 1);
        assert_eq!(greedy(&|s| s.logit_bias.extend([(2, 5.0)]), &[], &[]), 2);
    }

    #[test]
    fn without_penalties_neither_logits_nor_tokens_are_copied() {
        let logits = [0.0, 2.0, 1.0];
        let unread = || std::iter::repeat_with(|| -> u32 { panic!("the answer is not looked at") });
        for settings in [Sampling::default(), with(|s| (s.top_k, s.top_p, s.min_p) = (2, 0.9, 0.1))] {
            assert!(matches!(adjusted(&logits, &settings, &[1; 5], unread()), Cow::Borrowed(_)));
            sample(&logits, &settings, &[1; 5], unread(), 9);
        }
        let penalties: [fn(&mut Sampling); 4] = [
            |s| s.repetition_penalty = 1.1,
            |s| s.presence_penalty = 0.1,
            |s| s.frequency_penalty = 0.1,
            |s| s.logit_bias.extend([(1, -5.0)]),
        ];
        for penalty in penalties {
            let adjusted = adjusted(&logits, &with(penalty), &[1], [1].into_iter());
            assert!(adjusted[1] < logits[1] && adjusted[0] == logits[0] && adjusted[2] == logits[2]);
        }
    }

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let settings = Sampling { logprobs: Some(2), ..Sampling::default() };
        let sampled = sampled(&[0.0, 1.0, 0.5], &settings, &[], &[], 0);
        assert_eq!(sampled.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
        let expected = 1.0 - (1.0f32 + 1.0f32.exp() + 0.5f32.exp()).ln();
        assert!((sampled.logprob.unwrap() - expected).abs() < 1e-6);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let message = with(|s| s.temperature = -1.0).check().unwrap_err().to_string();
        assert_eq!(message, "temperature is -1; it must be between 0 and 100");
        assert!(with(|s| s.top_p = f32::NAN).check().is_err());
        assert!(with(|s| s.logit_bias.extend([(0, f32::INFINITY)])).check().is_err());
    }

    proptest! {
        #[test]
        fn a_draw_is_always_in_the_vocabulary_and_repeats(
            logits in prop::collection::vec(-50.0f32..50.0, 1..200),
            temperature in 0.01f32..5.0, top_k in 0u32..300, top_p in 0.01f32..=1.0, min_p in 0.0f32..=1.0,
            seed: u64, position: u64,
        ) {
            let settings = Sampling { temperature, top_k, top_p, min_p, seed, ..Sampling::default() };
            let token = sampled(&logits, &settings, &[], &[], position).token;
            prop_assert!((token as usize) < logits.len());
            prop_assert_eq!(sampled(&logits, &settings, &[], &[], position).token, token);
        }
    }
}
