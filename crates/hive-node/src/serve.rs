//! Serves what peers open: pairings, questions, frames.

use hive_net::stage::{Inlet, Received};
use hive_net::{Channel, Incoming, PeerId, Protocol};
use tokio::sync::mpsc;

use crate::control::{Answer, Hello, Question, Role};
use crate::measure;
use crate::node::Node;
use crate::peers::presence;
use crate::stage::turns;

/// Serves until the node stops.
pub(crate) async fn serve(node: Node, mut incoming: mpsc::Receiver<Incoming>) {
    loop {
        let Incoming { peer, protocol, place, channel } = tokio::select! {
            opened = incoming.recv() => match opened {
                Some(opened) => opened,
                None => return,
            },
            () = node.stopping() => return,
        };
        let node = node.clone();
        tokio::spawn(async move {
            match protocol {
                Protocol::Pair => node.answer_pairing(peer, place, channel).await,
                Protocol::Control => serve_control(&node, peer, channel).await,
                Protocol::Stage => serve_stage(&node, channel).await,
                Protocol::Gauge => measure::serve(channel).await,
            }
        });
    }
}

async fn serve_control(node: &Node, peer: PeerId, mut channel: Channel) {
    let question = match channel.read_message().await {
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
        Question::TakeOver(id) => node.take_over(id, channel).await,
        question => answer(node, peer, channel, question).await,
    }
}

async fn answer(node: &Node, peer: PeerId, mut channel: Channel, question: Question) {
    // What nobody waits for any more need not be loaded; other work goes on, as others count on it.
    let asked = question.audited();
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

async fn serve_stage(node: &Node, mut channel: Channel) {
    let Ok(Some(Hello { ring, to })) = channel.read_message().await else { return };
    let Some(queue) = node.queue(ring, to) else { return };
    let mut inlet = Inlet::new(channel);
    loop {
        let frame = match inlet.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!("a stage stream ended: {error}");
                return;
            }
        };
        let received = Received::of(&frame);
        if to == Role::Head
            && turns(&frame)
            && let Some(first) = node.queue(ring, Role::Stage(0))
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
