//! Penalties and biases where the logits are.
//!
//! Which tokens they are about, the host knows, but for one: the token of the step before may not be read yet.

use mlx_rs::{Array, ops};

use super::Sampling;
use super::history::{History, Known};
use crate::error::ComputeError;

/// Tokens are listed in multiples of this, so that the same sizes come again.
const WIDTH: usize = 64;

/// A row of logits to sample from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) settings: &'a Sampling,
    /// The position of the token that is sampled.
    pub(crate) position: u64,
    /// What came before, if the settings adjust anything.
    pub(crate) history: Option<&'a History>,
}

/// The logits `[n, vocabulary]`, adjusted as the rows' settings say. `unread` are the tokens `[n]` that are in no history
/// yet.
pub(super) fn adjusted(logits: &Array, rows: &[Row<'_>], unread: Option<&Array>) -> Result<Array, ComputeError> {
    if rows.iter().all(|row| row.history.is_none()) {
        return Ok(logits.clone());
    }
    let listed = Listed::of(rows, logits.dim(1) as u32);
    let column = |of: fn(&Sampling) -> f32| {
        let values: Vec<f32> = rows.iter().map(|row| of(row.settings)).collect();
        Array::from_slice(&values, &[rows.len() as i32, 1])
    };
    let penalty = column(|settings| settings.repetition_penalty);
    let penalized = |values: &Array| -> Result<Array, ComputeError> {
        let is_positive = values.gt(Array::from_f32(0.0))?;
        Ok(ops::select(is_positive, values.divide(&penalty)?, values.multiply(&penalty)?)?)
    };
    let values = logits.take_along_axis(&listed.tokens, -1)?.add(&listed.bias)?;
    let values = ops::select(&listed.is_seen, penalized(&values)?, &values)?.subtract(&listed.cost)?;
    let logits = logits.put_along_axis(&listed.tokens, values, -1)?;
    let Some(unread) = unread else { return Ok(logits) };
    let unread = unread.reshape(&[rows.len() as i32, 1])?;
    let is_it = listed.tokens.eq(&unread)?;
    let was_seen = is_it.logical_and(&listed.is_seen)?.any_axis(-1, true)?;
    let was_counted = is_it.logical_and(&listed.is_counted)?.any_axis(-1, true)?;
    let value = logits.take_along_axis(&unread, -1)?;
    let value = ops::select(was_seen, &value, penalized(&value)?)?;
    let presence = column(|settings| settings.presence_penalty);
    let presence = ops::select(was_counted, Array::from_f32(0.0), presence)?;
    let cost = presence.add(column(|settings| settings.frequency_penalty))?;
    Ok(logits.put_along_axis(&unread, value.subtract(cost)?, -1)?)
}

/// What is adjusted of each row, `[n, count]`. Shorter rows repeat an entry.
struct Listed {
    tokens: Array,
    bias: Array,
    is_seen: Array,
    is_counted: Array,
    cost: Array,
}

impl Listed {
    fn of(rows: &[Row<'_>], vocabulary: u32) -> Self {
        let known = |row: &Row<'_>| row.history.map_or(&[][..], History::tokens).to_vec();
        let lists: Vec<Vec<_>> =
            rows.iter().map(|row| known(row).into_iter().filter(|known| known.token < vocabulary).collect()).collect();
        let width = lists.iter().map(Vec::len).max().unwrap_or(0).max(1).next_multiple_of(WIDTH);
        let (mut tokens, mut bias, mut is_seen) = (Vec::new(), Vec::new(), Vec::new());
        let (mut is_counted, mut cost) = (Vec::new(), Vec::new());
        for (row, list) in rows.iter().zip(lists) {
            for place in 0..width {
                let known = list.get(place).or(list.first());
                // Any token, if nothing is done to it.
                tokens.push(known.map_or(0, |known| known.token));
                bias.push(known.map_or(0.0, |known| known.bias));
                is_seen.push(row.settings.repetition_penalty != 1.0 && known.is_some_and(Known::is_seen));
                is_counted.push(known.is_some_and(|known| known.count > 0));
                cost.push(known.map_or(0.0, |known| known.cost(row.settings)));
            }
        }
        let shape = [rows.len() as i32, width as i32];
        Self {
            tokens: Array::from_slice(&tokens, &shape),
            bias: Array::from_slice(&bias, &shape),
            is_seen: Array::from_slice(&is_seen, &shape),
            is_counted: Array::from_slice(&is_counted, &shape),
            cost: Array::from_slice(&cost, &shape),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: usize = 100;

    fn of_row(row: u64) -> Vec<f32> {
        (0..VOCABULARY as u64).map(|id| (super::super::uniform(row, id) * 8.0 - 4.0) as f32).collect()
    }

    #[test]
    fn the_device_adjusts_as_the_host_does_and_counts_a_token_that_is_not_read_yet() {
        let settings = [
            Sampling::default(),
            Sampling { repetition_penalty: 1.3, ..Sampling::default() },
            Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::default() },
            Sampling {
                repetition_penalty: 0.7,
                frequency_penalty: -0.5,
                presence_penalty: 1.5,
                logit_bias: [(3, 6.0), (40, -2.5), (999, 1.0)].into(),
                ..Sampling::default()
            },
        ];
        let prompt = [3, 17, 17, 20, 999];
        // The last token is one of the prompt, one of the answer, one with a bias, one of the vocabulary's ends, or new.
        for last in [17, 50, 40, 0, 99, 61] {
            let answer = [50, 17, 50, 8, last];
            let histories: Vec<_> = settings
                .iter()
                .map(|settings| {
                    let mut history = History::new(settings, &prompt)?;
                    history.follow(answer[..4].iter().copied());
                    Some(history)
                })
                .collect();
            let rows: Vec<_> = settings
                .iter()
                .zip(&histories)
                .map(|(settings, history)| Row { settings, position: 0, history: history.as_ref() })
                .collect();
            let all: Vec<f32> = (0..settings.len() as u64).flat_map(of_row).collect();
            let all = Array::from_slice(&all, &[settings.len() as i32, VOCABULARY as i32]);
            let unread = Array::from_slice(&[last; 4], &[4]);
            for (unread, answer) in [(None, &answer[..4]), (Some(&unread), &answer[..])] {
                let adjusted = adjusted(&all, &rows, unread).unwrap();
                adjusted.eval().unwrap();
                let adjusted = adjusted.try_as_slice::<f32>().unwrap();
                for (row, settings) in settings.iter().enumerate() {
                    let expected = of_row(row as u64);
                    let expected = super::super::adjusted(&expected, settings, &prompt, answer.iter().copied());
                    for (id, (got, expected)) in
                        adjusted[row * VOCABULARY..][..VOCABULARY].iter().zip(expected.iter()).enumerate()
                    {
                        assert!((got - expected).abs() < 1e-5, "row {row}, token {id}, last {last}: {got}, {expected}");
                    }
                }
            }
        }
    }
}
