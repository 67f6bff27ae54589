//! Serves what peers open: pairings, questions, frames.

use std::collections::HashMap;
use std::sync::Arc;

use hive_net::stage::{Budget, Inlet, Received};
use hive_net::{Channel, Incoming, PeerId, Protocol};
use tokio::sync::{Semaphore, mpsc};

use crate::audit::{self, Asked, AuditEvent, Refusal};
use crate::measure;
use crate::node::{Denied, Node};
use crate::peers::presence;
use crate::stage::turns;
use hive_protocol::{Answer, Hello, Question, Role};

/// Questions of a machine that are being read at a time. Each takes memory until it is whole.
const QUESTIONS: usize = 16;
/// Memory for what a machine's stages send back to this node as their coordinator: tokens and words. A stage has its own.
const RETURN_BYTES: usize = 4 << 20;

/// What is held here on behalf of one machine, until it is understood or computed.
#[derive(Clone)]
struct Held {
    questions: Arc<Semaphore>,
    returns: Budget,
}

impl Default for Held {
    fn default() -> Self {
        Self { questions: Arc::new(Semaphore::new(QUESTIONS)), returns: Budget::new(RETURN_BYTES) }
    }
}

/// Serves until the node stops.
pub(crate) async fn serve(node: Node, mut incoming: mpsc::Receiver<Incoming>) {
    let mut held: HashMap<PeerId, Held> = HashMap::new();
    loop {
        let Incoming { peer, protocol, origin, channel } = tokio::select! {
            opened = incoming.recv() => match opened {
                Some(opened) => opened,
                None => return,
            },
            () = node.stopping() => return,
        };
        let own = node.clone();
        // Of strangers, nothing is held but their pairing.
        held.retain(|peer, _| node.endpoint().admission().is_approved(*peer));
        let held = held.entry(peer).or_default().clone();
        node.spawn(async move {
            let node = own;
            match protocol {
                Protocol::Pair => node.answer_pairing(peer, origin, channel).await,
                Protocol::Control => serve_control(&node, peer, channel, held.questions).await,
                Protocol::Stage => serve_stage(&node, peer, channel, held.returns).await,
                Protocol::Gauge => measure::serve(channel).await,
            }
        });
    }
}

async fn serve_control(node: &Node, peer: PeerId, mut channel: Channel, reading: Arc<Semaphore>) {
    let read = {
        let Ok(_one) = reading.acquire().await else { return };
        channel.read_first().await
    };
    let question = match read {
        Ok(Some(question)) => question,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!("a question could not be read: {error}");
            return;
        }
    };
    match question {
        Question::Greet(greeting) => presence::answer(node, peer, channel, &greeting).await,
        Question::Measure(messages) => measure::answer(channel, messages).await,
        Question::TakeOver(id) => node.take_over(peer, id, channel).await,
        question => answer(node, peer, channel, question).await,
    }
}

async fn answer(node: &Node, peer: PeerId, mut channel: Channel, question: Question) {
    // What nobody waits for any more need not be loaded; other work goes on, as others count on it.
    let asked = audit::asked(&question);
    let (may_end, hung_up) = (matches!(question, Question::Load(..)), channel.hung_up());
    tokio::pin!(hung_up);
    let (progress, mut heard) = mpsc::unbounded_channel();
    let answering = async {
        let answer = node
            .answer(peer, question, &mut |layers| {
                // The asker may have gone.
                let _ = progress.send(layers);
            })
            .await;
        drop(progress);
        answer
    };
    tokio::pin!(answering);
    let answer = loop {
        tokio::select! {
            Some(layers) = heard.recv() => drop(channel.write_message(&Answer::Progress(layers)).await),
            answer = &mut answering => break answer,
            () = &mut hung_up, if may_end => return,
        }
    };
    node.note_refusal(peer, asked, &answer);
    if channel.write_message(&answer).await.is_ok() {
        channel.finish();
    }
}

async fn serve_stage(node: &Node, peer: PeerId, mut channel: Channel, returns: Budget) {
    let Ok(Some(hello)) = channel.read_first::<Hello>().await else { return };
    if let Err(denied) = node.neighbour(peer, hello).await {
        tracing::info!("a stage stream of {} was refused: {denied:?}", node.peers().name(peer));
        if denied != Denied::NoSuchStage {
            node.audit(Some(peer), AuditEvent::Refused { asked: Asked::Connect, why: Refusal::NotAllowed });
        }
        return;
    }
    let Hello { ring, owner, to } = hello;
    let mut inlet = Inlet::new(channel, node.frame_budget(hello).unwrap_or(returns));
    loop {
        let frame = match inlet.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!("a stage stream ended: {error}");
                return;
            }
        };
        // Asked for every frame: who the neighbours are changes when a ring is mended.
        let Ok(queue) = node.inlet(peer, hello) else { return };
        let received = Received::of(&frame);
        if to == Role::Head
            && turns(&frame)
            && let Some(first) = node.queue(ring, owner, Role::Stage(0))
        {
            // A stage that has ended meanwhile is being replaced; then the token comes again.
            let _ = first.send(frame.clone()).await;
        }
        if matches!(to, Role::Coordinator | Role::Head) {
            // Showing a token can wait until the next one is being computed.
            tokio::task::yield_now().await;
        }
        if queue.send(frame).await.is_err() {
            return;
        }
        if received.is_prompt() {
            // The stage takes the frame first.
            tokio::task::yield_now().await;
        }
        if let Err(error) = inlet.acknowledge(received).await {
            tracing::debug!("a stage stream ended: {error}");
            return;
        }
    }
}
