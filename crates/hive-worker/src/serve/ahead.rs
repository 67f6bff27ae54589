//! Answers that run ahead: on a stage that is the whole model, each sampled token is the next input at once.
//!
//! With MLX's kernels the worker also queues the next step (`Shard::start_after`) before it reads the last tokens, so
//! that the device stays busy. Any order ends the run: the current step is finished, and the schedule chooses the next
//! batch. So a cancelled answer ends within two tokens.

use std::collections::HashSet;
use std::time::Instant;

use hive_model::shard::{ForwardError, Input, Output, Slot};
use hive_model::{SessionId, Step};

use super::{WorkerLoop, failed};
use crate::protocol::{FromWorker, Work};

impl WorkerLoop {
    /// Computes tokens of answers that run ahead, until one of them ends or other work arrives.
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
            self.record(outputs.len(), 0, took, kv_bytes);
            let mut continuing = HashSet::new();
            let all = outputs.len();
            for (session, position, result) in outputs {
                if let Some(work) = self.answer(session, position as u32, 1, true, result)? {
                    continuing.insert(session);
                    if next.is_none() {
                        self.schedule.push(work);
                    }
                }
            }
            match next {
                Some(next) if continuing.len() == all => step = next,
                Some(next) => {
                    // This step started before one of the answers was known to end.
                    let Some(shard) = &mut self.shard else { return Ok(()) };
                    for (session, position, result) in shard.finish(&next, |session| continuing.contains(&session)) {
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

    /// Starts the step after this one if all answers may run ahead and no other work waits.
    fn step_after(&mut self, step: &Step) -> std::io::Result<Option<Result<Step, ForwardError>>> {
        let all_run_ahead = step.rows().iter().all(|(session, position)| {
            // The token of this step comes at the next position.
            self.endings.get(session).is_some_and(|ending| *position as u32 + 1 < ending.last_position)
        });
        if !all_run_ahead || self.orders.has_unread()? {
            return Ok(None);
        }
        Ok(self.shard.as_mut().and_then(|shard| shard.start_after(step).transpose()))
    }

    /// Sends a session's output to the node; returns the next work if its answer runs ahead.
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
        self.send(&FromWorker::Output { session, position, rows, sample, output })?;
        Ok(token.map(|token| Work { session, position: next, sample: true, input: Input::Tokens(vec![token]) }))
    }

    fn report_failure(&mut self, session: SessionId, position: u32, error: &ForwardError) -> std::io::Result<()> {
        self.stalled.insert(session);
        // After a failure on MLX's kernels, the session is back at the beginning.
        let at = self.shard.as_ref().and_then(|shard| shard.position(session)).map_or(position, |at| at as u32);
        self.send(&failed(session, Some(at.min(position)), error))
    }
}
