//! Sampling where the logits are: only the token leaves the device, and the next step can begin before it is read.
//!
//! The rules and the draws are those of [`sample`](super::sample), in single precision. Greedy tokens are the same; a
//! drawn one is of the same distribution, and the same in every run.

use mlx_rs::{Array, ops};

use super::penalties::{Row, adjusted};
use super::{Sampling, uniform};
use crate::error::ComputeError;

/// Draws stay below 1, so that rounding cannot choose a token without any weight.
const LARGEST_DRAW: f64 = 1.0 - 1e-6;

/// Below it, only the likeliest token is left anyway, and a device may take the number for zero.
const LEAST_TEMPERATURE: f32 = 1e-6;

/// Read instead of a token whose logits are not finite.
const NOT_FINITE: u32 = u32::MAX;

/// Sampled tokens on the device.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// `[n]`, each in the vocabulary, for the next step.
    sampled: Array,
    /// `[n]`, the same or [`NOT_FINITE`].
    checked: Array,
}

impl Tokens {
    /// Samples from logits `[n, vocabulary]`. `before` is the step before, if its tokens are not read yet.
    pub(crate) fn sample(logits: &Array, rows: &[Row<'_>], before: Option<&Self>) -> Result<Self, ComputeError> {
        let adjusted = adjusted(logits, rows, before.map(|before| &before.sampled))?;
        let settings: Vec<_> = rows.iter().map(|row| (row.settings, row.position)).collect();
        let sampled = sampled(&adjusted, &settings)?;
        // What is not finite stays so in a sum, and no model's logits are so large that their sum is not.
        let sum = logits.sum_axis(-1, false)?;
        let finite = sum.subtract(&sum)?.eq(Array::from_f32(0.0))?;
        let checked = ops::select(finite, &sampled, Array::from_slice(&[NOT_FINITE], &[1]))?;
        Ok(Self { sampled, checked })
    }

    /// What has to be computed.
    pub(crate) fn arrays(&self) -> [&Array; 2] {
        [&self.sampled, &self.checked]
    }

    /// The tokens as the next step's input.
    pub(crate) fn next_input(&self) -> &Array {
        &self.sampled
    }

    /// Waits for the tokens; `None` for one whose logits are not finite.
    pub(crate) fn read(&self) -> Result<Vec<Option<u32>>, ComputeError> {
        let tokens = self.checked.try_as_slice::<u32>().map_err(|error| ComputeError::Mlx(error.to_string()))?;
        Ok(tokens.iter().map(|&token| (token != NOT_FINITE).then_some(token)).collect())
    }
}

impl Sampling {
    /// Whether [`sampled`] can sample with these settings: those that report probabilities need the logits.
    pub(crate) fn is_for_device(&self) -> bool {
        self.logprobs.is_none()
    }

    fn cuts(&self) -> bool {
        self.temperature > 0.0 && (self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0)
    }
}

/// The tokens `[n]` for these settings and positions, from logits `[n, vocabulary]` in single precision. What one row
/// gets does not depend on the settings of the others.
fn sampled(logits: &Array, rows: &[(&Sampling, u64)]) -> Result<Array, ComputeError> {
    let ways = [
        rows.iter().map(|(settings, _)| settings.temperature == 0.0).collect::<Vec<_>>(),
        rows.iter().map(|(settings, _)| settings.temperature > 0.0 && !settings.cuts()).collect(),
        rows.iter().map(|(settings, _)| settings.cuts()).collect(),
    ];
    let mut tokens: Option<Array> = None;
    for (number, rows_of_it) in ways.iter().enumerate().filter(|(_, rows_of_it)| rows_of_it.contains(&true)) {
        let these = match number {
            0 => ops::indexing::argmax_axis(logits, -1, false)?,
            1 => pick(&scaled(logits, rows)?.exp()?, &draws(rows))?,
            _ => cut(&scaled(logits, rows)?, rows)?,
        };
        let is_of_it = || Array::from_slice(rows_of_it, &[rows.len() as i32]);
        tokens = Some(match tokens {
            None => these,
            Some(others) => ops::select(is_of_it(), &these, &others)?,
        });
    }
    tokens.ok_or_else(|| ComputeError::Mlx("there is no row to sample".to_owned()))
}

fn column(rows: &[(&Sampling, u64)], of: impl Fn(&Sampling, u64) -> f32) -> Array {
    let values: Vec<f32> = rows.iter().map(|(settings, position)| of(settings, *position)).collect();
    Array::from_slice(&values, &[rows.len() as i32, 1])
}

fn draws(rows: &[(&Sampling, u64)]) -> Array {
    column(rows, |settings, position| uniform(settings.seed, position).min(LARGEST_DRAW) as f32)
}

/// The logits relative to the likeliest, divided by the temperature.
fn scaled(logits: &Array, rows: &[(&Sampling, u64)]) -> Result<Array, ComputeError> {
    let temperature = |settings: &Sampling| if settings.temperature > 0.0 { settings.temperature } else { 1.0 };
    let temperature = column(rows, |settings, _| temperature(settings).max(LEAST_TEMPERATURE));
    Ok(logits.subtract(logits.max_axis(-1, true)?)?.divide(&temperature)?)
}

/// Draws from what top-k, top-p and min-p leave.
fn cut(scaled: &Array, rows: &[(&Sampling, u64)]) -> Result<Array, ComputeError> {
    let vocabulary = scaled.dim(1);
    // Likeliest first, as the cuts want them.
    let order = ops::argsort_axis(scaled.negative()?, -1)?;
    let weights = scaled.take_along_axis(&order, -1)?.exp()?;
    let rank = Array::arange::<i32, f32>(None, vocabulary, None)?.reshape(&[1, vocabulary])?;
    let top_k = column(rows, |settings, _| if settings.top_k > 0 { settings.top_k as f32 } else { f32::INFINITY });
    // Above 1, nothing is cut.
    let top_p = column(rows, |settings, _| if settings.top_p < 1.0 { settings.top_p } else { 2.0 });
    let min_p = column(rows, |settings, _| settings.min_p);
    let nothing = Array::from_f32(0.0);
    let weights = ops::select(rank.lt(&top_k)?, &weights, &nothing)?;
    let before = weights.cumsum(-1, None, false)?;
    let kept = before.lt(top_p.multiply(weights.sum_axis(-1, true)?)?)?.logical_and(weights.ge(&min_p)?)?;
    let kept = kept.logical_or(rank.lt(Array::from_f32(1.0))?)?;
    let chosen = pick(&ops::select(kept, &weights, &nothing)?, &draws(rows))?;
    let chosen = chosen.reshape(&[rows.len() as i32, 1])?;
    Ok(order.take_along_axis(&chosen, -1)?.reshape(&[rows.len() as i32])?)
}

/// The index `[n]` at which the sum of the weights `[n, count]` passes the part of their total that `draw` says.
fn pick(weights: &Array, draw: &Array) -> Result<Array, ComputeError> {
    let sums = weights.cumsum(-1, None, true)?;
    let last = Array::from_slice(&[weights.dim(1) - 1], &[1]);
    let total = sums.take_axis(&last, -1)?;
    let passed = sums.le(draw.multiply(&total)?)?.as_dtype(mlx_rs::Dtype::Uint32)?.sum_axis(-1, false)?;
    Ok(ops::minimum(passed, Array::from_slice(&[weights.dim(1) as u32 - 1], &[1]))?.as_dtype(mlx_rs::Dtype::Uint32)?)
}

#[cfg(test)]
mod tests {
    use super::super::{draw, sample};
    use super::*;

    const VOCABULARY: usize = 500;

    fn logits(row: u64) -> Vec<f32> {
        (0..VOCABULARY as u64).map(|id| (uniform(row, id) * 9.0) as f32).collect()
    }

    fn on_device(settings: &[Sampling], positions: std::ops::Range<u64>) -> Vec<Vec<u32>> {
        let all: Vec<f32> = (0..settings.len() as u64).flat_map(logits).collect();
        let all = Array::from_slice(&all, &[settings.len() as i32, VOCABULARY as i32]);
        let tokens = |position| {
            let rows: Vec<_> = settings.iter().map(|settings| (settings, position)).collect();
            let tokens = sampled(&all, &rows).unwrap();
            tokens.eval().unwrap();
            tokens.try_as_slice::<u32>().unwrap().to_vec()
        };
        positions.map(tokens).collect()
    }

    fn with(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut settings = Sampling { temperature: 0.8, seed: 3, ..Sampling::default() };
        change(&mut settings);
        settings
    }

    #[test]
    fn the_device_draws_the_tokens_of_the_host_whatever_is_cut_beside_it() {
        let all = [
            with(|settings| settings.temperature = 0.0),
            with(|_| {}),
            with(|settings| settings.top_k = 7),
            with(|settings| settings.top_p = 0.6),
            with(|settings| settings.min_p = 0.2),
            with(|settings| (settings.top_k, settings.top_p, settings.min_p) = (40, 0.9, 0.05)),
            with(|settings| (settings.temperature, settings.seed) = (2.5, 9)),
            with(|settings| settings.top_p = 1e-40),
            with(|settings| settings.temperature = 1e-40),
        ];
        let mut differences = 0;
        for settings in [&all[..], &all[..2], &all[1..2], &all[..1]] {
            for (position, tokens) in on_device(settings, 0..200).into_iter().enumerate() {
                for (row, (settings, token)) in settings.iter().zip(tokens).enumerate() {
                    let logits = logits(row as u64);
                    let expected = sample(&logits, settings, &[], std::iter::empty(), position as u64).token;
                    if token != expected {
                        // Only rounding at the border between two tokens may choose the other one.
                        let near = [-1e-4, 1e-4]
                            .map(|off| draw(&logits, settings, uniform(settings.seed, position as u64) + off));
                        assert!(near.contains(&token), "{settings:?} at {position}: {token}, not {expected}");
                        differences += 1;
                    }
                }
            }
        }
        assert!(differences < 5, "{differences}");
    }

    #[test]
    fn logits_that_are_not_finite_give_no_token() {
        let mut rows = [[0.5f32; 4]; 4];
        (rows[1][2], rows[2][0], rows[3][3]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        let logits = Array::from_slice(rows.as_flattened(), &[4, 4]);
        let row = Row { settings: &Sampling::default(), position: 0, history: None };
        let tokens = Tokens::sample(&logits, &[row; 4], None).unwrap();
        assert_eq!(tokens.read().unwrap(), [Some(0), None, None, None]);
    }

    #[test]
    fn the_first_of_equals_is_the_likeliest() {
        let logits = Array::from_slice(&[1.0f32, 3.0, 3.0, 0.0], &[1, 4]);
        let tokens = sampled(&logits, &[(&Sampling::default(), 0)]).unwrap();
        tokens.eval().unwrap();
        assert_eq!(tokens.try_as_slice::<u32>().unwrap(), [1]);
    }

    #[test]
    fn settings_that_report_probabilities_are_not_for_the_device() {
        assert!(with(|settings| settings.repetition_penalty = 1.1).is_for_device());
        assert!(!with(|settings| settings.logprobs = Some(0)).is_for_device());
    }
}
