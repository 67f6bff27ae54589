//! Keeps in touch with approved machines: greets them, feels their pulse, hears what they say of themselves.
//!
//! One task per machine. A machine that falls silent is dialled anew at once over every address known, so that one whose
//! cable was pulled is back before anybody is told; only then is it away.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use hive_net::links::LinkKind;
use hive_net::near::{NotDialled, ReachableFrom};
use hive_net::pulse::{BEAT, Pulse, Verdict};
use hive_net::{Channel, ConnectError, PeerAddr, PeerId, Protocol, fingerprint};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::audit::{AuditEvent, Machine};
use crate::measure;
use crate::node::Node;
use crate::reach::{self, Absence, Observation};
use hive_protocol::{Answer, Beat, Greeting, Profile, Question};

/// A machine that is there answers a greeting in a few round trips.
const GREETING_PATIENCE: Duration = Duration::from_secs(3);
/// A machine whose link died answers this soon over another one; one that is dead does not.
const SECOND_CHANCE: Duration = Duration::from_millis(400);
/// Between two dials to a machine that is away, at first and at most. An announcement cuts the wait short.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(2);

/// What the newest common version is, or a sentence that says which machine to update.
pub(crate) fn agree(ours: (u32, u32), theirs: (u32, u32), name: &str) -> Result<u32, String> {
    let newest = ours.1.min(theirs.1);
    if newest >= ours.0.max(theirs.0) {
        return Ok(newest);
    }
    Err(if theirs.1 < ours.0 {
        format!("{name} runs an older HiveMind that this one does not understand; update {name}")
    } else {
        format!("{name} runs a newer HiveMind that this one does not understand; update this machine")
    })
}

/// Looks after every approved machine, as long as the node lives.
pub(crate) async fn attend(node: Node) {
    let mut changes = node.peers().changes();
    let mut tasks: HashMap<PeerId, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        tasks.retain(|_, task| !task.is_finished());
        for peer in node.peers().approved() {
            tasks.entry(peer).or_insert_with(|| AbortOnDropHandle::new(node.spawn(keep_in_touch(node.clone(), peer))));
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = node.stopping() => return,
        }
    }
}

async fn keep_in_touch(node: Node, peer: PeerId) {
    let mut pause = *PAUSE.start();
    let mut patience = GREETING_PATIENCE;
    let mut last_heard = Instant::now();
    while node.peers().is_approved(peer) {
        // Before dialling, so that an announcement during the dial is not missed.
        let dial = node.peers().dial_bell(peer);
        let announced = dial.notified();
        let absence = match timeout(patience, greet(&node, peer)).await {
            Ok(Ok((channel, name, life))) => {
                pause = *PAUSE.start();
                note_arrival(&node, peer, &name, life);
                let tidying = AbortOnDropHandle::new(node.spawn(tidy_up(node.clone(), peer)));
                let measuring = AbortOnDropHandle::new(node.spawn(measure::attend(node.clone(), peer)));
                let (why, heard) = feel_pulse(&node, peer, channel).await;
                last_heard = heard;
                drop((tidying, measuring));
                node.endpoint().admission().hang_up(peer, last_heard);
                if why.is_none() && node.peers().is_approved(peer) {
                    tracing::info!("{} fell silent or broke off; it is asked once more", node.peers().name(peer));
                    patience = SECOND_CHANCE;
                    continue;
                }
                why.unwrap_or_else(|| REMOVED.to_owned()).into()
            }
            Ok(Err(absence)) => absence,
            Err(_) => silent(&node, peer),
        };
        patience = GREETING_PATIENCE;
        // What is left of a connection knows only the dead path; the next dial tries them all.
        node.endpoint().admission().hang_up(peer, last_heard);
        tracing::info!("{} is away: {}", node.peers().name(peer), absence.why);
        node.peers().left(peer, absence);
        tokio::select! {
            () = announced => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(*PAUSE.end()),
        }
    }
}

/// A machine answers: where it does is kept, since that address has proven itself.
fn note_arrival(node: &Node, peer: PeerId, name: &str, life: u64) {
    let link = node.endpoint().link(peer);
    let socket = link.as_ref().and_then(|link| link.remote.parse::<SocketAddr>().ok());
    let is_near = socket.is_some_and(|socket| node.endpoint().networks().is_near(socket.ip()));
    let reached = if is_near { ReachableFrom::OnLink } else { ReachableFrom::Anywhere };
    let addr = PeerAddr::new(peer, socket);
    let relay = link.as_ref().filter(|link| link.kind == LinkKind::Relay);
    let addr = match relay {
        Some(link) => addr.with_relay(&link.remote),
        None => addr,
    };
    node.endpoint().vouch(&addr, reached);
    if let Some(approved) = node.peers().arrived(peer, name, life, link.as_ref().map(|link| (link, reached))) {
        node.note_about(Machine::new(peer, name), AuditEvent::NameTaken { approved: fingerprint(approved) });
    }
}

/// How often a machine is told which of its stages are still wanted. One that was stopped in the middle of loading has,
/// when it goes on, a stage that nobody waits for any more; so has this one when a ring is given up while it is mended.
const TIDY_UP: Duration = Duration::from_secs(6);

/// Frees what this machine holds for itself and does not want any more.
pub(crate) async fn tidy_up_here(node: Node) {
    let (own, here) = (node.id(), node.addr());
    loop {
        tokio::select! {
            () = tokio::time::sleep(TIDY_UP) => {}
            () = node.stopping() => return,
        }
        let _ = node.ask(&here, Question::Retain(node.wanted_from(own)), |_| ()).await;
    }
}

/// Tells a machine which of its stages are still wanted from here: when it has come, and from time to time.
async fn tidy_up(node: Node, peer: PeerId) {
    loop {
        let question = Question::Retain(node.wanted_from(peer));
        let _ = node.ask(&node.peers().addr(peer), question, |_| ()).await;
        tokio::time::sleep(TIDY_UP).await;
    }
}

/// Opens the channel for heartbeats and exchanges first words.
async fn greet(node: &Node, peer: PeerId) -> Result<(Channel, String, u64), Absence> {
    let addr = node.peers().addr(peer);
    let opened = node.endpoint().open(&addr, Protocol::Control).await;
    let mut channel = opened.map_err(|error| explain(node, peer, &error))?;
    let greeting = serde_json::to_string(&node.greeting(peer)).map_err(|error| error.to_string())?;
    let exchange = async {
        channel.write_message(&Question::Greet(greeting)).await?;
        channel.read_message::<Answer>().await
    };
    let answer = match exchange.await {
        Ok(Some(Answer::Greeting(theirs))) => theirs,
        Ok(Some(Answer::Refused(why))) => return Err(hive_net::border::reason(&why).into()),
        Ok(_) => return Err(crate::node::NONSENSE.into()),
        // The reason of a refused connection shows when the first stream is used.
        Err(_) => match node.endpoint().open(&addr, Protocol::Control).await {
            Err(error) => return Err(explain(node, peer, &error)),
            Ok(_) => return Err("it has not approved this machine, or broke off".into()),
        },
    };
    let theirs: Greeting =
        serde_json::from_str(&answer).map_err(|_| "it runs another version of HiveMind".to_owned())?;
    let name = hive_net::border::name(&theirs.profile.name);
    agree(node.greeting(peer).speaks, theirs.speaks, &name)?;
    node.peers().described(peer, theirs.profile);
    Ok((channel, name, theirs.life))
}

/// Beats until the machine is removed (`Some`), or falls silent or breaks off (`None`); and when it was last heard.
async fn feel_pulse(node: &Node, peer: PeerId, channel: Channel) -> (Option<String>, Instant) {
    let (mut writer, mut reader) = channel.split();
    let mut profiles = node.profiles();
    profiles.mark_changed();
    let mut pulse = Pulse::new(Instant::now());
    let (heard, mut answers) = tokio::sync::mpsc::channel(16);
    let listening = AbortOnDropHandle::new(node.spawn({
        let node = node.clone();
        async move {
            loop {
                match reader.read::<Beat>().await {
                    Ok(Some(beat)) => hear(&node, peer, &beat),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!("no more heartbeats come: {error}");
                        return;
                    }
                }
                if heard.send(()).await.is_err() {
                    return;
                }
            }
        }
    }));
    let mut timer = tokio::time::interval(BEAT);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0;
    let end = loop {
        tokio::select! {
            biased;
            answer = answers.recv() => match answer {
                Some(()) => pulse.answered(Instant::now()),
                None => break None,
            },
            _ = timer.tick() => {
                if !node.peers().is_approved(peer) {
                    break Some(REMOVED.to_owned());
                }
                if pulse.look(Instant::now()) == Verdict::Silent {
                    tracing::debug!("no heartbeat was answered in time");
                    break None;
                }
                number += 1;
                let profile = news(node, peer, &mut profiles);
                if let Err(error) = writer.write(&Beat { number, profile }).await {
                    tracing::debug!("a heartbeat could not be sent: {error}");
                    break None;
                }
            }
        }
    };
    drop(listening);
    (end, pulse.last_answer())
}

/// What this machine says of itself, where that has changed since it was last said.
fn news(node: &Node, to: PeerId, profiles: &mut tokio::sync::watch::Receiver<Profile>) -> Option<String> {
    profiles.has_changed().unwrap_or(false).then(|| {
        profiles.mark_unchanged();
        serde_json::to_string(&node.profile_for(to)).unwrap_or_default()
    })
}

fn hear(node: &Node, peer: PeerId, beat: &Beat) {
    if let Some(profile) = beat.profile.as_deref().and_then(|text| serde_json::from_str(text).ok()) {
        node.peers().described(peer, profile);
    }
}

/// The other side: answers a greeting, then every heartbeat.
pub(crate) async fn answer(node: &Node, peer: PeerId, mut channel: Channel, greeting: &str) {
    let refuse = |why: String| Answer::Refused(why);
    let ours = node.greeting(peer);
    let name = node.peers().name(peer);
    let answer = match serde_json::from_str::<Greeting>(greeting) {
        // Seen from there, this machine is the one to name.
        Ok(theirs) => match agree(theirs.speaks, ours.speaks, &ours.profile.name) {
            Ok(_) => {
                node.peers().described(peer, theirs.profile);
                Answer::Greeting(serde_json::to_string(&ours).unwrap_or_default())
            }
            Err(why) => refuse(why),
        },
        Err(error) => {
            tracing::debug!("{name} greeted in words that are not understood: {error}");
            refuse(format!("{} does not understand the greeting; update the older HiveMind", ours.profile.name))
        }
    };
    let accepted = matches!(answer, Answer::Greeting(_));
    if channel.write_message(&answer).await.is_err() || !accepted {
        channel.finish();
        return;
    }
    // They are here: whoever waits to dial them need not wait longer.
    node.peers().dial(peer);
    let (mut writer, mut reader) = channel.split();
    let mut profiles = node.profiles();
    while let Ok(Some(beat)) = reader.read::<Beat>().await {
        hear(node, peer, &beat);
        let profile = news(node, peer, &mut profiles);
        if writer.write(&Beat { number: beat.number, profile }).await.is_err() {
            return;
        }
    }
}

fn explain(node: &Node, peer: PeerId, error: &ConnectError) -> Absence {
    match error {
        ConnectError::Refused(_) => {
            format!("{} has not approved this machine; pair them again", node.peers().name(peer)).into()
        }
        ConnectError::OtherVersion(_) => {
            format!("{} runs another version of HiveMind; update the older of the two", node.peers().name(peer)).into()
        }
        ConnectError::NotAllowed(_) => REMOVED.into(),
        ConnectError::NotDialled { why, .. } if *why != NotDialled::Unknown => why.to_string().into(),
        ConnectError::NotDialled { .. } | ConnectError::Unreachable { .. } => silent(node, peer),
    }
}

const REMOVED: &str = "it was removed";

/// Why a machine does not answer, where that can be told.
fn silent(node: &Node, peer: PeerId) -> Absence {
    match reach::diagnose(observe(node, peer, false)) {
        Some(condition) => condition.into(),
        None => "it does not answer".into(),
    }
}

/// What can be seen of a machine from here.
pub(crate) fn observe(node: &Node, peer: PeerId, relayed: bool) -> Observation {
    let announced = node.peers().announced(peer);
    let near = announced.iter().flatten().copied().find(|socket| node.endpoint().networks().is_near(socket.ip()));
    Observation {
        announced: announced.is_some(),
        met: node.peers().has_met(peer),
        near: near.is_some(),
        no_route: !relayed && near.is_some_and(reach::has_no_route),
        relayed,
        macos: cfg!(target_os = "macos"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeOptions;
    use crate::peers::PeerState;

    async fn node(name: &str, speaks: (u32, u32)) -> Node {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        Node::start(NodeOptions { speaks, ..NodeOptions::new(name.to_owned(), loopback) }).await.unwrap()
    }

    /// How two approved machines of these versions see each other, once they have met.
    async fn meet(older: (u32, u32), newer: (u32, u32)) -> [PeerState; 2] {
        let (older, newer) = (node("older", older).await, node("newer", newer).await);
        older.peers().admit(newer.id(), "newer", Some(&newer.addr())).unwrap();
        newer.peers().admit(older.id(), "older", Some(&older.addr())).unwrap();
        let state = async |node: &Node| loop {
            let state = node.peer_views()[0].state.clone();
            match &state {
                PeerState::Unreachable { why, .. } if !why.contains("update") => {}
                PeerState::Approved | PeerState::Unreachable { .. } => return state,
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let states = [state(&older).await, state(&newer).await];
        for node in [older, newer] {
            assert!(node.tasks() > 0);
            node.stop().await;
            assert_eq!(node.tasks(), 0, "a task has outlived its node");
        }
        states
    }

    #[tokio::test]
    async fn older_and_newer_machines_talk_or_say_which_to_update() {
        assert_eq!(meet((1, 1), (1, 3)).await, [PeerState::Approved, PeerState::Approved]);
        let [older, newer] = meet((1, 1), (2, 3)).await;
        let why = |state: PeerState| match state {
            PeerState::Unreachable { why, .. } => why,
            other => panic!("{other:?}"),
        };
        assert!(why(older).contains("newer HiveMind that this one does not understand; update this machine"));
        assert!(why(newer).contains("older HiveMind that this one does not understand; update older"));
    }

    #[tokio::test]
    async fn a_refused_greeting_writes_to_no_terminal() {
        use hive_net::{Endpoint, EndpointOptions, Identity, Incoming};
        let ann = node("ann", (1, 1)).await;
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback)).await;
        let (mallory, mut incoming) = bound.unwrap();
        mallory.admission().approve(ann.id());
        tokio::spawn(async move {
            while let Some(Incoming { mut channel, .. }) = incoming.recv().await {
                let _ = channel.read_message::<Question>().await;
                let why = "no\u{1b}]52;c;cm0=\u{7}\u{202e}\nerror: update needed".to_owned();
                let _ = channel.write_message(&Answer::Refused(why)).await;
                channel.finish();
            }
        });
        ann.peers().admit(mallory.id(), "mallory", Some(&mallory.addr())).unwrap();
        let why = loop {
            match ann.peer_views()[0].state.clone() {
                PeerState::Unreachable { why, .. } if why.starts_with("no") => break why,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        assert_eq!(why, "no]52;c;cm0= error: update needed");
        ann.stop().await;
    }

    #[test]
    fn versions_that_overlap_agree_and_others_say_who_is_old() {
        assert_eq!(agree((1, 3), (2, 5), "Attic"), Ok(3));
        assert_eq!(agree((1, 1), (1, 1), "Attic"), Ok(1));
        assert!(agree((3, 4), (1, 2), "Attic").unwrap_err().ends_with("update Attic"));
        assert!(agree((1, 2), (3, 4), "Attic").unwrap_err().ends_with("update this machine"));
    }
}
