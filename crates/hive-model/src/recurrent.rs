//! The recurrent state of one session in one layer: a gated delta net has it in place of keys and values.
//!
//! Its size does not depend on the conversation's length, and it cannot be truncated: a session can only return to a
//! state it retained. It retains the latest state, the states from which running steps began, and two checkpoints. A
//! checkpoint lies shortly before the end of a prompt piece: a repeated question resumes there, and so does the next
//! turn, whose template may render the opening words of the last answer differently. Only the latest state is
//! transferred to another machine.

use std::collections::VecDeque;

use hive_weights::config::DeltaSpec;
use mlx_rs::{Array, Dtype};

use crate::error::ComputeError;
use crate::hidden::{ActivationType, bytes_are_finite};

/// Tokens between a checkpoint and the end of a piece of a prompt: more than the words of a chat template that open an
/// answer.
pub(crate) const BEFORE_END: usize = 16;

/// Checkpoints that are kept.
const CHECKPOINTS: usize = 2;

/// Maximum states per session: checkpoints, the latest, its predecessor, and, when running ahead, the one before that.
const MOST_KEPT: usize = CHECKPOINTS + 3;

/// The sizes of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecurrentShape {
    /// Rows before the next token that the convolution sees, and their width.
    pub(crate) seen: [i32; 2],
    /// A matrix for each value head: `[value_heads, key_dim, value_dim]`, in single precision.
    pub(crate) matrices: [i32; 3],
}

/// A state after some tokens: the rows that the convolution sees, and the matrices.
pub(crate) type State = [Array; 2];

#[derive(Debug)]
struct Kept {
    /// Tokens that it has seen.
    position: usize,
    is_checkpoint: bool,
    state: State,
}

/// The states that a session keeps, by ascending position.
#[derive(Debug)]
pub(crate) struct RecurrentCache {
    shape: RecurrentShape,
    dtype: Dtype,
    kept: VecDeque<Kept>,
}

impl RecurrentShape {
    pub(crate) fn of(spec: &DeltaSpec) -> Self {
        Self {
            seen: [spec.taps as i32 - 1, spec.channels() as i32],
            matrices: [spec.value_heads, spec.key_dim, spec.value_dim].map(|width| width as i32),
        }
    }

    /// Bytes of both parts.
    fn part_bytes(self, activation_bytes: usize) -> [usize; 2] {
        let size = |shape: &[i32]| shape.iter().map(|width| *width as usize).product::<usize>();
        [size(&self.seen) * activation_bytes, size(&self.matrices) * size_of::<f32>()]
    }

    /// The most that a session holds in such a layer, in bytes.
    pub(crate) fn most_bytes(self, activation_bytes: usize) -> usize {
        self.part_bytes(activation_bytes).iter().sum::<usize>() * MOST_KEPT
    }
}

impl RecurrentCache {
    pub(crate) fn new(shape: RecurrentShape, dtype: Dtype) -> Self {
        Self { shape, dtype, kept: VecDeque::new() }
    }

    /// The state after `position` tokens. Discards later states and those that no running step needs.
    pub(crate) fn at(&mut self, position: usize) -> Result<State, ComputeError> {
        while self.kept.pop_back_if(|kept| kept.position > position).is_some() {}
        self.kept.retain(|kept| kept.is_checkpoint || kept.position + 1 >= position);
        match self.kept.back().filter(|kept| kept.position == position) {
            Some(kept) => Ok(kept.state.clone()),
            None if position == 0 => {
                let zeros = |shape: &[i32], dtype| Array::zeros::<f32>(shape)?.as_dtype(dtype);
                Ok([zeros(&self.shape.seen, self.dtype)?, zeros(&self.shape.matrices, Dtype::Float32)?])
            }
            None => Err(ComputeError::Mlx(format!("the state after {position} tokens is no longer retained"))),
        }
    }

    /// Keeps the state after this many tokens.
    pub(crate) fn keep(&mut self, position: usize, state: State, is_checkpoint: bool) {
        self.kept.push_back(Kept { position, is_checkpoint, state });
        let checkpoints = self.kept.iter().filter(|kept| kept.is_checkpoint).count();
        if checkpoints > CHECKPOINTS
            && let Some(oldest) = self.kept.iter().position(|kept| kept.is_checkpoint)
        {
            self.kept.remove(oldest);
        }
    }

    /// The last position up to this one that the session can go back to.
    pub(crate) fn reachable(&self, position: usize) -> usize {
        self.kept.iter().map(|kept| kept.position).filter(|at| *at <= position).max().unwrap_or(0)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.kept.iter().flat_map(|kept| &kept.state).map(Array::nbytes).sum()
    }

    /// The arrays to evaluate so that the states are up to date.
    pub(crate) fn pending(&self) -> Vec<&Array> {
        self.kept.iter().flat_map(|kept| &kept.state).collect()
    }

    /// The serialized state after `position` tokens; empty at position 0.
    pub(crate) fn export(&self, position: usize) -> Result<Vec<u8>, ComputeError> {
        if position == 0 {
            return Ok(Vec::new());
        }
        let kept = self.kept.iter().rfind(|kept| kept.position == position);
        let missing = || ComputeError::Mlx(format!("the state after {position} tokens is no longer retained"));
        let [seen, matrices] = &kept.ok_or_else(missing)?.state;
        Ok([hive_kernels::array_bytes(seen)?, hive_kernels::array_bytes(matrices)?].concat())
    }

    /// Restores a state that [`Self::export`] serialized.
    pub(crate) fn import(
        shape: RecurrentShape,
        activation: ActivationType,
        position: usize,
        bytes: &[u8],
    ) -> Result<Self, ComputeError> {
        let mut cache = Self::new(shape, activation.mlx());
        let [seen_bytes, matrix_bytes] = shape.part_bytes(activation.bytes());
        if bytes.len() != if position == 0 { 0 } else { seen_bytes + matrix_bytes } {
            return Err(ComputeError::Mlx(format!("a recurrent state has another size than {} bytes", bytes.len())));
        }
        if position > 0 {
            let (seen, matrices) = bytes.split_at(seen_bytes);
            if !(bytes_are_finite(activation, seen) && bytes_are_finite(ActivationType::F32, matrices)) {
                return Err(ComputeError::Mlx("a recurrent state holds numbers that are not finite".to_owned()));
            }
            let seen = hive_kernels::array_from_bytes(seen, &shape.seen, activation.mlx())?;
            let matrices = hive_kernels::array_from_bytes(matrices, &shape.matrices, Dtype::Float32)?;
            cache.keep(position, [seen, matrices], false);
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: RecurrentShape = RecurrentShape { seen: [3, 8], matrices: [2, 4, 4] };

    fn state(number: f32) -> State {
        [Array::full::<f32>(&[3, 8], Array::from_f32(number)), Array::full::<f32>(&[2, 4, 4], Array::from_f32(number))]
            .map(Result::unwrap)
    }

    fn first(state: &State) -> f32 {
        state[1].eval().unwrap();
        state[1].as_slice::<f32>()[0]
    }

    /// A cache after a prompt of 40 tokens in two pieces and some of an answer.
    fn answering() -> RecurrentCache {
        let mut cache = RecurrentCache::new(SHAPE, Dtype::Float32);
        for (from, checkpoint, end) in [(0, 8, 24), (24, 30, 40)] {
            cache.at(from).unwrap();
            cache.keep(checkpoint, state(checkpoint as f32), true);
            cache.keep(end, state(end as f32), false);
        }
        for position in 40..44 {
            cache.at(position).unwrap();
            cache.keep(position + 1, state(position as f32 + 1.0), false);
        }
        cache
    }

    #[test]
    fn a_session_goes_back_to_what_was_kept_and_no_further() {
        let cache = answering();
        let reached = [50, 44, 43, 42, 41, 30, 29, 8, 7, 0].map(|wanted| cache.reachable(wanted));
        assert_eq!(reached, [44, 44, 43, 42, 30, 30, 8, 8, 0, 0]);
        assert!(cache.bytes() <= SHAPE.most_bytes(4));
    }

    #[test]
    fn a_step_in_vain_is_discarded_and_the_next_begins_where_it_did() {
        let mut cache = answering();
        assert_eq!(first(&cache.at(43).unwrap()), 43.0);
        assert_eq!(cache.reachable(100), 43);
        assert_eq!(first(&cache.at(30).unwrap()), 30.0);
        assert!(cache.at(29).unwrap_err().to_string().contains("29 tokens"));
        assert_eq!(first(&cache.at(0).unwrap()), 0.0);
    }

    #[test]
    fn a_state_is_carried_to_the_bit_and_a_forged_one_refused() {
        let cache = answering();
        let bytes = cache.export(43).unwrap();
        let mut carried = RecurrentCache::import(SHAPE, ActivationType::F32, 43, &bytes).unwrap();
        assert_eq!(carried.export(43).unwrap(), bytes);
        assert_eq!(first(&carried.at(43).unwrap()), 43.0);
        assert!(cache.export(41).is_err(), "it was not kept");
        let import = |position, bytes: &[u8]| RecurrentCache::import(SHAPE, ActivationType::F32, position, bytes);
        assert!(import(0, &[]).is_ok() && import(0, &bytes).is_err());
        assert!(import(43, &bytes[1..]).is_err() && import(43, &[]).is_err());
        let mut not_finite = bytes.clone();
        not_finite[100..104].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(import(43, &not_finite).unwrap_err().to_string().contains("not finite"));
    }
}
