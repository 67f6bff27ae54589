//! Serves the channels that approved machines open: requests about stages, and streams of frames.

use hive_audit::{self as audit, Asked, AuditEvent, Refusal};
use hive_net::stage::{Budget, Inlet, Received};
use hive_net::{Channel, PeerId};
use hive_peers::Opened;
use hive_protocol::{Hello, Reply, Request, Role};
use tokio::sync::mpsc;

use super::StageHost;
use super::orders::Denied;
use crate::stage::turns;

impl StageHost {
    /// Serves one channel.
    pub(super) async fn serve(&self, peer: PeerId, opened: Opened) {
        match opened {
            Opened::Request(request, channel) => match *request {
                Request::ReceiveSessions(id) => self.receive_sessions(peer, id, channel).await,
                Request::Fetch(source, layers) => self.answer_fetch(peer, &source, layers, channel).await,
                Request::Outline(digest) => self.give_outline(peer, &digest, channel).await,
                Request::Bytes(wanted) => self.give_bytes(peer, wanted, channel).await,
                Request::Adapt(id, head) => self.receive_adapter(peer, id, head, channel).await,
                request => answer(self, peer, channel, request).await,
            },
            Opened::Frames(channel) => {
                let is_approved = |peer| self.membership().endpoint().admission().is_approved(peer);
                let returns = self.inner.streams.returns(peer, is_approved);
                serve_stage(self, peer, channel, returns).await;
            }
        }
    }
}

async fn answer(host: &StageHost, peer: PeerId, mut channel: Channel, request: Request) {
    // A load ends when its asker hangs up. Other requests run to the end, because others count on them.
    let asked = audit::asked(&request);
    let (may_end, hung_up) = (matches!(request, Request::Load(..)), channel.hung_up());
    tokio::pin!(hung_up);
    let (progress, mut heard) = mpsc::unbounded_channel();
    let answering = async {
        let answer = host
            .answer(peer, request, &mut |layers| {
                // The asker may have hung up.
                let _ = progress.send(layers);
            })
            .await;
        drop(progress);
        answer
    };
    tokio::pin!(answering);
    let answer = loop {
        tokio::select! {
            Some(layers) = heard.recv() => drop(channel.write_message(&Reply::Progress(layers)).await),
            answer = &mut answering => break answer,
            () = &mut hung_up, if may_end => return,
        }
    };
    host.note_refusal(peer, asked, &answer);
    if channel.write_message(&answer).await.is_ok() {
        channel.finish();
    }
}

async fn serve_stage(host: &StageHost, peer: PeerId, mut channel: Channel, returns: Budget) {
    let Ok(Some(hello)) = channel.read_first::<Hello>().await else { return };
    if let Err(denied) = host.neighbour(peer, hello).await {
        tracing::info!("a stage stream of {} was refused: {denied:?}", host.membership().peers().name(peer));
        if denied != Denied::NoSuchStage {
            host.membership()
                .audit(Some(peer), AuditEvent::Refused { asked: Asked::Connect, why: Refusal::NotAllowed });
        }
        return;
    }
    let Hello { ring, owner, to } = hello;
    let mut inlet = Inlet::new(channel, host.frame_budget(hello).unwrap_or(returns));
    loop {
        let frame = match inlet.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!("a stage stream ended: {error}");
                return;
            }
        };
        // Checked for every frame: the neighbours change when a ring fails over.
        let Ok(queue) = host.inlet(peer, hello) else { return };
        let received = Received::of(&frame);
        if to == Role::Head
            && turns(&frame)
            && let Some(first) = host.queue(ring, owner, Role::Stage(0))
        {
            // A stage that has ended is being replaced; the token is then replayed.
            let _ = first.send(frame.clone()).await;
        }
        if matches!(to, Role::Coordinator | Role::Head) {
            // Computing the next token comes before showing this one.
            tokio::task::yield_now().await;
        }
        if queue.send(frame).await.is_err() {
            return;
        }
        if received.is_prompt() {
            // Lets the stage take the frame first.
            tokio::task::yield_now().await;
        }
        if let Err(error) = inlet.acknowledge(received).await {
            tracing::debug!("a stage stream ended: {error}");
            return;
        }
    }
}
