//! Sessions that continue another's cache. The worker says from which position on: a recurrent state may go back further
//! than asked.

use super::{Actor, Open};
use crate::stage::digest::Received;
use crate::stage::sent::Sent;
use hive_model::SessionId;
use hive_protocol::{Continued, Reply, SessionSpec};
use hive_worker::ToWorker;
use tokio::sync::oneshot;

/// A session whose cache the worker is preparing.
pub(super) struct Adopting {
    spec: SessionSpec,
    sent: Sent,
    received: Received,
    answer: oneshot::Sender<Result<Reply, String>>,
}

impl Actor {
    /// Opens a session, and answers with its next position.
    pub(super) fn open_asked(&mut self, spec: SessionSpec, answer: oneshot::Sender<Result<Reply, String>>) {
        let continued = spec.continues.filter(|continued| self.sessions.contains_key(&continued.session));
        match continued {
            Some(continued) if self.is_new(&spec) => self.adopt(spec, continued, answer),
            _ => {
                let _ = answer.send(self.open(spec).map(Reply::At));
            }
        }
    }

    fn is_new(&self, spec: &SessionSpec) -> bool {
        let is_known = self.sessions.contains_key(&spec.session) || self.adopting.contains_key(&spec.session);
        !is_known && self.may_open(spec).is_ok()
    }

    fn adopt(
        &mut self,
        spec: SessionSpec,
        Continued { session: from, position }: Continued,
        answer: oneshot::Sender<Result<Reply, String>>,
    ) {
        let Some(Open { sent, received, .. }) = self.sessions.remove(&from) else { return };
        let (session, options) = (SessionId(spec.session), spec.options.clone());
        self.worker.order(&ToWorker::Adopt { from: SessionId(from), session, position, options });
        self.go_on(&spec);
        self.adopting.insert(spec.session, Adopting { spec, sent, received, answer });
    }

    /// The worker has the session's cache, up to this position.
    pub(super) fn adopted(&mut self, session: u128, reached: Result<u32, String>) {
        let Some(Adopting { spec, sent, received, answer }) = self.adopting.remove(&session) else { return };
        let reached = reached.map(|next| {
            self.begin(spec, next, sent.continued(next), received.continued(next));
            Reply::At(next)
        });
        let _ = answer.send(reached);
    }
}
