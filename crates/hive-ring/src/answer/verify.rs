//! The coordinator's checks of every token. The last stage is not trusted. Pure.

use hive_model::sampling::{Sampled, Sampling};

/// The limits of a token, and where the answer ends, as its stages were told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// Tokens of the model.
    pub(super) vocabulary: usize,
    /// Tokens that end the answer.
    pub(super) end_tokens: &'a [u32],
    /// The answer ends with the token at this position.
    pub(super) last_position: u32,
    pub(super) sampling: &'a Sampling,
}

/// Why a token is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Impossible {
    #[error("it chose token {token} of a vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    #[error("it gave probabilities that cannot be")]
    Probabilities,
    #[error("it ended an answer that does not end there")]
    Ends,
    #[error("it continues an answer that has ended")]
    Continues,
}

impl Bounds<'_> {
    /// Whether the answer ends with this token.
    pub(super) fn ends_with(&self, token: u32, position: u32) -> bool {
        position >= self.last_position || self.end_tokens.contains(&token)
    }

    /// Checks a token and its probabilities.
    pub(super) fn check(&self, sampled: &Sampled) -> Result<(), Impossible> {
        let vocabulary = self.vocabulary;
        let unknown = |token: &u32| *token as usize >= vocabulary;
        let top = sampled.top.iter().map(|(token, _)| token);
        if let Some(token) = std::iter::once(&sampled.token).chain(top).copied().find(unknown) {
            return Err(Impossible::Token { token, vocabulary });
        }
        let (wanted, most) = (self.sampling.logprobs.is_some(), usize::from(self.sampling.logprobs.unwrap_or(0)));
        // A log probability is at most zero, except for rounding. A token that is ruled out has minus infinity.
        let possible = |logprob: &f32| !logprob.is_nan() && *logprob <= 1e-3;
        let is_consistent = sampled.logprob.is_some() == wanted
            && sampled.top.len() <= most
            && sampled.logprob.iter().all(|logprob| logprob.is_finite())
            && sampled.logprob.iter().chain(sampled.top.iter().map(|(_, logprob)| logprob)).all(possible);
        if is_consistent { Ok(()) } else { Err(Impossible::Probabilities) }
    }

    /// Checks whether the last stage ends the answer where it ends.
    pub(super) fn check_end(&self, token: u32, position: u32, last: bool) -> Result<(), Impossible> {
        match (last, self.ends_with(token, position)) {
            (true, false) => Err(Impossible::Ends),
            (false, true) => Err(Impossible::Continues),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(sampling: &Sampling) -> Bounds<'_> {
        Bounds { vocabulary: 100, end_tokens: &[2], last_position: 10, sampling }
    }

    fn bare(token: u32) -> Sampled {
        Sampled { token, logprob: None, top: Vec::new() }
    }

    #[test]
    fn a_token_that_the_model_does_not_have_is_refused() {
        let sampling = Sampling::default();
        assert_eq!(bounds(&sampling).check(&bare(99)), Ok(()));
        let beyond = Impossible::Token { token: u32::MAX, vocabulary: 100 };
        assert_eq!(bounds(&sampling).check(&bare(u32::MAX)), Err(beyond));
        assert_eq!(bounds(&sampling).check(&bare(100)), Err(Impossible::Token { token: 100, vocabulary: 100 }));
    }

    #[test]
    fn an_answer_ends_at_its_last_position_and_its_end_tokens_whatever_the_stage_says() {
        let sampling = Sampling::default();
        let bounds = bounds(&sampling);
        assert!(bounds.ends_with(5, 10) && bounds.ends_with(5, 11) && bounds.ends_with(2, 3));
        assert!(!bounds.ends_with(5, 9));
        assert_eq!(bounds.check_end(5, 9, false), Ok(()));
        assert_eq!(bounds.check_end(5, 10, true), Ok(()));
        assert_eq!(bounds.check_end(5, 10, false), Err(Impossible::Continues));
        assert_eq!(bounds.check_end(2, 3, false), Err(Impossible::Continues));
        assert_eq!(bounds.check_end(5, 9, true), Err(Impossible::Ends));
    }

    #[test]
    fn probabilities_are_there_if_they_were_requested_and_are_numbers() {
        let (without, with) = (Sampling::default(), Sampling { logprobs: Some(1), ..Sampling::default() });
        let with_logprob = |logprob: f32, top: Vec<(u32, f32)>| Sampled { token: 5, logprob: Some(logprob), top };
        let good = with_logprob(-0.5, vec![(5, -0.5)]);
        assert_eq!(bounds(&with).check(&good), Ok(()));
        assert_eq!(bounds(&with).check(&with_logprob(-0.5, vec![(7, f32::NEG_INFINITY)])), Ok(()), "a token ruled out");
        assert_eq!(bounds(&without).check(&good), Err(Impossible::Probabilities));
        assert_eq!(bounds(&with).check(&bare(5)), Err(Impossible::Probabilities));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0] {
            assert_eq!(bounds(&with).check(&with_logprob(wrong, vec![])), Err(Impossible::Probabilities), "{wrong}");
        }
        assert_eq!(bounds(&with).check(&with_logprob(-0.5, vec![(7, f32::NAN)])), Err(Impossible::Probabilities));
        assert_eq!(bounds(&with).check(&with_logprob(-0.5, vec![(7, -1.0); 2])), Err(Impossible::Probabilities));
        assert!(matches!(bounds(&with).check(&with_logprob(-0.5, vec![(100, -1.0)])), Err(Impossible::Token { .. })));
    }
}
