//! Questions to a node, this one or another.

use hive_net::PeerAddr;
use hive_protocol::{Answer, Question, refusal};

use super::StageHost;

impl StageHost {
    /// Asks a node, which may be this one, and gives its last answer; `progress` hears the ones before.
    pub async fn ask(
        &self,
        whom: &PeerAddr,
        question: Question,
        progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        refusal(self.ask_any(whom, question, progress).await?)
    }

    /// The same; what it refuses is an answer, too.
    pub async fn ask_any(
        &self,
        whom: &PeerAddr,
        question: Question,
        mut progress: impl FnMut(usize),
    ) -> Result<Answer, String> {
        let member = self.membership();
        if whom.id() == member.id() {
            return Ok(self.answer(member.id(), question, &mut progress).await);
        }
        member.ask_other(whom, question, progress).await
    }
}
