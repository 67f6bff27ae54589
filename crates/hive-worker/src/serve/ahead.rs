//! Answers that go on by themselves: on a stage that is the whole model, each token is the next input at once.
//!
//! With MLX's kernels the worker also runs ahead by a step (`Shard::start_after`), so that the device computes the next
//! tokens while the last are read and passed on. Any order ends that: what is under way is finished, and the next batch
//! is the schedule's to choose. So a cancelled answer ends within two tokens.

use std::collections::HashSet;
use std::time::Instant;

use hive_model::shard::{ForwardError, Input, Output, Slot};
use hive_model::{SessionId, Step};

use super::{Computer, failed};
use crate::protocol::{FromWorker, Work};

impl Computer {
    /// Computes tokens of answers that go on by themselves, until one of them ends or there is something else to do.
    pub(super) fn run_ahead(&mut self, slots: &[Slot]) -> std::io::Result<()> {
        let Some(shard) = &mut self.shard else { return Ok(()) };
        let mut started = Instant::now();
        let mut step = match shard.start(slots) {
            Ok(step) => step,
            Err(error) => {
                for slot in slots {
                    self.report_failure(slot.session, slot.position as u32, &error)?;
                }
                return Ok(());
            }
        };
        loop {
            let next = match self.step_after(&step)? {
                None => None,
                Some(Ok(next)) => Some(next),
                Some(Err(error)) => {
                    // The step under way is lost with it: its tokens would come after the failure.
                    for (session, position) in step.rows() {
                        self.report_failure(*session, *position as u32, &error)?;
                    }
                    return Ok(());
                }
            };
            let Some(shard) = &mut self.shard else { return Ok(()) };
            let outputs = shard.finish(&step, |_| true);
            let kv_bytes = shard.kv_bytes() as u64;
            let took = started.elapsed();
            started = Instant::now();
            self.took(outputs.len(), 0, took, kv_bytes);
            let mut going_on = HashSet::new();
            let all = outputs.len();
            for (session, position, result) in outputs {
                if let Some(work) = self.answer(session, position as u32, 1, true, result)? {
                    going_on.insert(session);
                    if next.is_none() {
                        self.schedule.push(work);
                    }
                }
            }
            match next {
                Some(next) if going_on.len() == all => step = next,
                Some(next) => {
                    // It was started before it was known that one of the answers ends.
                    let Some(shard) = &mut self.shard else { return Ok(()) };
                    for (session, position, result) in shard.finish(&next, |session| going_on.contains(&session)) {
                        if let Some(work) = self.answer(session, position as u32, 1, true, result)? {
                            self.schedule.push(work);
                        }
                    }
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    /// Starts the step after this one if all answers may go on and nothing else waits.
    fn step_after(&mut self, step: &Step) -> std::io::Result<Option<Result<Step, ForwardError>>> {
        let all_go_on = step.rows().iter().all(|(session, position)| {
            // The token of this step comes at the next position.
            self.endings.get(session).is_some_and(|ending| *position as u32 + 1 < ending.last_position)
        });
        if !all_go_on || self.orders.has_unread()? {
            return Ok(None);
        }
        Ok(self.shard.as_mut().and_then(|shard| shard.start_after(step).transpose()))
    }

    /// Passes on what was computed for a session; returns the next work if its answer goes on by itself.
    pub(super) fn answer(
        &mut self,
        session: SessionId,
        position: u32,
        rows: u32,
        sample: bool,
        result: Result<Output, ForwardError>,
    ) -> std::io::Result<Option<Work>> {
        let output = match result {
            Ok(output) => output,
            Err(error) => {
                self.report_failure(session, position, &error)?;
                return Ok(None);
            }
        };
        self.stalled.remove(&session);
        let next = position + rows;
        let token = match (&output, self.endings.get(&session)) {
            (Output::Token(sampled), Some(ending)) if !ending.is_at(next, sampled.token) => Some(sampled.token),
            _ => None,
        };
        self.say(&FromWorker::Output { session, position, rows, sample, output })?;
        Ok(token.map(|token| Work { session, position: next, sample: true, input: Input::Tokens(vec![token]) }))
    }

    fn report_failure(&mut self, session: SessionId, position: u32, error: &ForwardError) -> std::io::Result<()> {
        self.stalled.insert(session);
        // After a failure on MLX's kernels, the session is back at the beginning.
        let at = self.shard.as_ref().and_then(|shard| shard.position(session)).map_or(position, |at| at as u32);
        self.say(&failed(session, Some(at.min(position)), error))
    }
}
