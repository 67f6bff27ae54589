//! The tokens of a conversation that penalties and biases are about.

use std::collections::HashMap;

use super::Sampling;

/// Each such token once, with what is known of it.
#[derive(Debug)]
pub(crate) struct History {
    tokens: Vec<Known>,
    places: HashMap<u32, usize>,
    /// The answer so far.
    answer: Vec<u32>,
}

/// A token, and what its logit is adjusted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    pub(crate) token: u32,
    pub(crate) bias: f32,
    in_prompt: bool,
    /// How often it came in the answer.
    pub(crate) count: u32,
}

impl Known {
    /// Whether the repetition penalty applies to it.
    pub(crate) fn is_seen(&self) -> bool {
        self.in_prompt || self.count > 0
    }

    /// What is subtracted from its logit for its occurrences in the answer.
    pub(crate) fn cost(&self, settings: &Sampling) -> f32 {
        if self.count == 0 { 0.0 } else { settings.presence_penalty + settings.frequency_penalty * self.count as f32 }
    }
}

impl History {
    /// Without an answer yet. `None` if these settings adjust nothing.
    pub(crate) fn new(settings: &Sampling, prompt: &[u32]) -> Option<Self> {
        if !settings.adjusts() {
            return None;
        }
        let mut history = Self { tokens: Vec::new(), places: HashMap::new(), answer: Vec::new() };
        for (&token, &bias) in &settings.logit_bias {
            history.of(token).bias = bias;
        }
        if settings.repetition_penalty != 1.0 {
            for &token in prompt {
                history.of(token).in_prompt = true;
            }
        }
        Some(history)
    }

    /// Follows the answer, which may have grown, or been taken back.
    pub(crate) fn follow(&mut self, answer: impl Iterator<Item = u32>) {
        let answer: Vec<u32> = answer.collect();
        let same = self.answer.iter().zip(&answer).take_while(|(old, new)| old == new).count();
        for token in std::mem::take(&mut self.answer).drain(same..) {
            self.of(token).count -= 1;
        }
        for &token in &answer[same..] {
            self.of(token).count += 1;
        }
        self.answer = answer;
    }

    pub(crate) fn tokens(&self) -> &[Known] {
        &self.tokens
    }

    fn of(&mut self, token: u32) -> &mut Known {
        let place = *self.places.entry(token).or_insert_with(|| {
            self.tokens.push(Known { token, bias: 0.0, in_prompt: false, count: 0 });
            self.tokens.len() - 1
        });
        &mut self.tokens[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_an_answer_that_grows_and_is_taken_back() {
        let settings = Sampling { repetition_penalty: 1.1, logit_bias: [(9, 2.0)].into(), ..Sampling::default() };
        let mut history = History::new(&settings, &[5, 6, 5]).unwrap();
        let state = |history: &History| -> Vec<_> {
            history.tokens().iter().map(|known| (known.token, known.is_seen(), known.count)).collect()
        };
        assert_eq!(state(&history), [(9, false, 0), (5, true, 0), (6, true, 0)]);
        history.follow([7, 5, 7].into_iter());
        assert_eq!(state(&history), [(9, false, 0), (5, true, 1), (6, true, 0), (7, true, 2)]);
        history.follow([7, 8].into_iter());
        assert_eq!(state(&history), [(9, false, 0), (5, true, 0), (6, true, 0), (7, true, 1), (8, true, 1)]);
        history.follow(std::iter::empty());
        assert_eq!(state(&history)[3..], [(7, false, 0), (8, false, 0)]);
    }

    #[test]
    fn settings_that_adjust_nothing_need_none() {
        let cut = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() };
        assert!(History::new(&cut, &[1; 100]).is_none());
        let counted = Sampling { presence_penalty: 0.5, ..Sampling::default() };
        assert!(History::new(&counted, &[1; 100]).unwrap().tokens().is_empty(), "the prompt is not the answer");
    }
}
