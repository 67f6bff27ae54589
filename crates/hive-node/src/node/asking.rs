//! Questions to a node, this one or another.

use hive_net::{PeerAddr, Protocol};

use super::Node;
use crate::models;
use hive_protocol::{Answer, Question};

/// Addresses that another machine may add to those that are known of a machine.
const HINTED_SOCKETS: usize = 16;

/// What is said of a machine that answers what was not asked.
pub(crate) const NONSENSE: &str = "it sent a reply that makes no sense";

impl Node {
    /// Asks a node, which may be this one, and gives its last answer; `progress` hears the ones before.
    pub(crate) async fn ask(
        &self,
        whom: &PeerAddr,
        question: Question,
        progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        refusal(self.ask_any(whom, question, progress).await?)
    }

    /// The same; what it refuses is an answer, too.
    pub(crate) async fn ask_any(
        &self,
        whom: &PeerAddr,
        question: Question,
        mut progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        if whom.id() == self.id() {
            return Ok(self.answer(self.id(), question, &mut progress).await);
        }
        self.ask_other(whom, question, progress).await
    }

    /// Asks another node; what it refuses is an answer, too.
    pub(crate) async fn ask_other(
        &self,
        whom: &PeerAddr,
        question: Question,
        mut progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        let whom = self.latest_addr(whom);
        let mut channel = self.endpoint().open(&whom, Protocol::Control).await.map_err(|error| error.to_string())?;
        channel.write_message(&question).await.map_err(|error| error.to_string())?;
        loop {
            match channel.read_message().await {
                Ok(Some(Answer::Progress(layers))) => progress(layers),
                Ok(Some(answer)) => return Ok(answer.at_the_border()),
                Ok(None) => return Err("it broke off".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// What is known of a machine's addresses now, and what was said of them before.
    pub(super) fn latest_addr(&self, of: &PeerAddr) -> PeerAddr {
        let known = self.peers().addr(of.id());
        // What others say of a machine's addresses is a hint, and each one more is a packet to somewhere.
        let sockets = known.sockets().into_iter().chain(of.sockets().into_iter().take(HINTED_SOCKETS));
        let addr = PeerAddr::new(of.id(), sockets);
        match known.relay().or_else(|| of.relay()) {
            Some(relay) => addr.with_relay(&relay),
            None => addr,
        }
    }
}

/// What a node refuses, as an error.
pub(crate) fn refusal(answer: Answer) -> Result<Answer, String> {
    match answer {
        Answer::Refused(why) | Answer::Declined(why) | Answer::Full(why) | Answer::Unfit(why) => Err(why),
        Answer::Lacks => Err(models::UNUSABLE.to_owned()),
        answer => Ok(answer),
    }
}
