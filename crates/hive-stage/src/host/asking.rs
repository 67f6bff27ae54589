//! Requests to a node, this one or another.

use hive_net::PeerAddr;
use hive_protocol::{Reply, Request, refusal};

use super::StageHost;

impl StageHost {
    /// Sends a request to a node, which may be this one, and returns the last reply; `progress` gets the earlier ones.
    pub async fn ask(
        &self,
        whom: &PeerAddr,
        request: Request,
        progress: impl FnMut(usize) + Send,
    ) -> Result<Reply, String> {
        refusal(self.ask_any(whom, request, progress).await?)
    }

    /// The same, but a refusal is a reply, not an error.
    pub async fn ask_any(
        &self,
        whom: &PeerAddr,
        request: Request,
        mut progress: impl FnMut(usize) + Send,
    ) -> Result<Reply, String> {
        let member = self.membership();
        if whom.id() == member.id() {
            return Ok(self.answer(member.id(), request, &mut progress).await);
        }
        member.ask_other(whom, request, progress).await
    }
}
