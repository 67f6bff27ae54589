//! Batches that nobody asked for, right after a load on an NVIDIA card.
//!
//! MLX for CUDA compiles its kernels when they are first needed, by classes of numbers of rows: half a minute for each
//! class, once on a machine. The driver then prepares each number of rows in every process, for some 60 ms. Without this,
//! the first answer would stall, and later ones halfway through.

use super::{ForwardError, Input, SessionId, SessionOptions, Shard, Slot};
use crate::hidden::Hidden;

/// Numbers of rows, at least one for each class of kernels.
const PIECES: [usize; 5] = [1, 2, 8, 32, 128];
/// Sessions that decode together, of different lengths: first all but one of them, then all, for so many steps each. From
/// the second step on, they share buffers.
const TOGETHER: usize = 3;
const STEPS: usize = 3;

impl Shard {
    /// Computes what makes the device ready for answers, if it is an NVIDIA card; `computed` is called after each batch.
    /// No session is left behind.
    ///
    /// # Errors
    /// A batch failed, for example for want of memory.
    pub fn warm_up(&mut self, computed: impl FnMut()) -> Result<(), ForwardError> {
        if self.arithmetic.fast || !crate::device::is_cuda() {
            return Ok(());
        }
        let warmed = self.computed_for_nobody(computed);
        (0..=TOGETHER).for_each(|number| self.close(scratch(number)));
        warmed
    }

    fn computed_for_nobody(&mut self, mut computed: impl FnMut()) -> Result<(), ForwardError> {
        self.open(scratch(0), SessionOptions::default())?;
        let most = self.max_context;
        for rows in PIECES.into_iter().filter(|rows| *rows < most) {
            for sample in [false, true] {
                self.rollback(scratch(0), 0)?;
                self.forward_all(&[(scratch(0), rows, sample)])?;
                computed();
            }
        }
        for number in 1..=TOGETHER {
            self.open(scratch(number), SessionOptions::default())?;
            self.forward_all(&[(scratch(number), number, true)])?;
        }
        for together in [TOGETHER - 1, TOGETHER] {
            let all: Vec<_> = (1..=together).map(|number| (scratch(number), 1, true)).collect();
            for _ in 0..STEPS.min(self.max_context.saturating_sub(TOGETHER) / 2) {
                self.forward_all(&all)?;
                computed();
            }
        }
        Ok(())
    }

    /// Computes a batch of sessions with this many rows each.
    fn forward_all(&mut self, batch: &[(SessionId, usize, bool)]) -> Result<(), ForwardError> {
        let slot = |&(session, rows, sample): &(SessionId, usize, bool)| {
            let input = if self.stage.embeds() {
                Input::Tokens(vec![0; rows])
            } else {
                let (activation, width) = (self.arithmetic.activation, self.stage.input_width());
                Input::Hidden(Hidden { activation, rows, width, bytes: vec![0; rows * width * activation.bytes()] })
            };
            Slot { session, position: self.position(session).unwrap_or(0), input, sample }
        };
        let slots: Vec<Slot> = batch.iter().map(slot).collect();
        self.forward(&slots).into_iter().try_for_each(|result| result.map(|_| ()))
    }
}

/// Sessions that no node opens: their ids are drawn at random from 128 bits.
fn scratch(number: usize) -> SessionId {
    SessionId(u128::MAX - number as u128)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use hive_weights::ModelFiles;

    use super::*;
    use crate::{Compute, ShardOptions};

    #[test]
    fn every_stage_can_be_warmed_up_and_nothing_is_left_behind() {
        let path = std::env::var_os("HIVEMIND_STARTER").map(PathBuf::from);
        let files = ModelFiles::open(&path.expect("HIVEMIND_STARTER names the starter model")).unwrap();
        for layers in [0..2, 14..16, 28..30] {
            let mut shard = Shard::load(&files, &ShardOptions { layers, compute: Compute::Plain }, |_| ()).unwrap();
            let mut computed = 0;
            shard.computed_for_nobody(|| computed += 1).unwrap();
            assert_eq!(computed, 2 * PIECES.len() + 2 * STEPS);
            (0..=TOGETHER).for_each(|number| shard.close(scratch(number)));
            assert_eq!(shard.kv_bytes(), 0);
        }
    }
}
