//! Serves what peers open: pairing and presence here, everything else through [`Local`].

use std::collections::HashMap;
use std::sync::Arc;

use hive_net::{Channel, Incoming, PeerId, Protocol};
use hive_protocol::Request;
use tokio::sync::{Semaphore, mpsc};

use crate::local::{Local, Opened};
use crate::measure;
use crate::membership::Membership;
use crate::peers::presence;

/// Requests of one machine that are read at the same time. Each occupies memory until it is complete.
const REQUESTS: usize = 16;

impl Membership {
    /// Serves incoming channels and keeps in touch with approved machines, until the node stops.
    pub fn run(&self, local: &Arc<dyn Local>, incoming: mpsc::Receiver<Incoming>) {
        self.spawn(serve(self.clone(), local.clone(), incoming));
        self.spawn(presence::run(self.clone(), local.clone()));
    }
}

async fn serve(member: Membership, local: Arc<dyn Local>, mut incoming: mpsc::Receiver<Incoming>) {
    let mut reading: HashMap<PeerId, Arc<Semaphore>> = HashMap::new();
    loop {
        let Incoming { peer, protocol, origin, channel } = tokio::select! {
            opened = incoming.recv() => match opened {
                Some(opened) => opened,
                None => return,
            },
            () = member.stopping() => return,
        };
        // For strangers, nothing outlives their pairing.
        reading.retain(|peer, _| member.endpoint().admission().is_approved(*peer));
        let reading = reading.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(REQUESTS))).clone();
        let (own, local) = (member.clone(), local.clone());
        member.spawn(async move {
            match protocol {
                Protocol::Pair => own.answer_pairing(peer, origin, channel).await,
                Protocol::Control => serve_control(&own, &*local, peer, channel, reading).await,
                Protocol::Stage => local.serve(peer, Opened::Frames(channel)).await,
                Protocol::Gauge => measure::serve(channel).await,
            }
        });
    }
}

async fn serve_control(
    member: &Membership,
    local: &dyn Local,
    peer: PeerId,
    mut channel: Channel,
    reading: Arc<Semaphore>,
) {
    let read = {
        let Ok(_one) = reading.acquire().await else { return };
        channel.read_first().await
    };
    match read {
        Ok(Some(Request::Greet(greeting))) => presence::answer(member, local, peer, channel, &greeting).await,
        Ok(Some(Request::Measure(messages))) => measure::answer(channel, messages).await,
        Ok(Some(request)) => local.serve(peer, Opened::Request(Box::new(request), channel)).await,
        Ok(None) => {}
        Err(error) => tracing::debug!("a request could not be read: {error}"),
    }
}
