//! Keeps in touch with approved machines: greets them, exchanges heartbeats with them, and receives their profiles.
//!
//! One task per machine. When a machine falls silent, its task redials every known address at once, so that a machine
//! whose cable was pulled is usually back before anybody is told. Only if that fails is the machine reported absent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_net::heartbeat::{FailureDetector, INTERVAL, Verdict};
use hive_net::links::LinkKind;
use hive_net::near::{NotDialled, ReachableFrom};
use hive_net::{Channel, ConnectError, PeerAddr, PeerId, Protocol, fingerprint};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::local::Local;
use crate::measure;
use crate::membership::Membership;
use crate::reach;
use hive_audit::{AuditEvent, Machine};
use hive_protocol::{Beat, Greeting, NONSENSE, Profile, Reply, Request};
use hive_types::Absence;

/// A machine that is present answers a greeting within a few round trips.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);
/// A machine that lost one link answers within this time over another; a dead machine does not.
const SECOND_CHANCE: Duration = Duration::from_millis(400);
/// Pause between two dials of an absent machine: the first, and the maximum. An announcement cuts it short.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(2);

/// The newest version that both sides speak, or an error that says which machine to update.
pub(crate) fn agree(ours: (u32, u32), theirs: (u32, u32), name: &str) -> Result<u32, Absence> {
    let newest = ours.1.min(theirs.1);
    if newest >= ours.0.max(theirs.0) {
        return Ok(newest);
    }
    let machine = name.to_owned();
    Err(if theirs.1 < ours.0 { Absence::TooOld { machine } } else { Absence::TooNew { machine } })
}

/// Keeps one task per approved machine until the node stops.
pub(crate) async fn run(member: Membership, local: Arc<dyn Local>) {
    let mut changes = member.peers().changes();
    let mut tasks: HashMap<PeerId, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        tasks.retain(|_, task| !task.is_finished());
        for peer in member.peers().approved() {
            tasks.entry(peer).or_insert_with(|| {
                AbortOnDropHandle::new(member.spawn(keep_in_touch(member.clone(), local.clone(), peer)))
            });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = member.stopping() => return,
        }
    }
}

async fn keep_in_touch(member: Membership, local: Arc<dyn Local>, peer: PeerId) {
    let mut pause = *PAUSE.start();
    let mut wait = GREETING_TIMEOUT;
    let mut last_heard = Instant::now();
    while member.peers().is_approved(peer) {
        // Registered before the dial, so that an announcement during the dial is not missed.
        let dial = member.peers().dial_bell(peer);
        let announced = dial.notified();
        let absence = match timeout(wait, greet(&member, &*local, peer)).await {
            Ok(Ok((channel, name, incarnation))) => {
                pause = *PAUSE.start();
                note_arrival(&member, peer, &name, incarnation);
                let working = AbortOnDropHandle::new(member.spawn(local.while_present(peer)));
                let measuring = AbortOnDropHandle::new(member.spawn(measure::run(member.clone(), local.clone(), peer)));
                let (why, heard) = exchange_heartbeats(&member, &*local, peer, channel).await;
                last_heard = heard;
                drop((working, measuring));
                member.endpoint().admission().hang_up(peer, last_heard);
                if why.is_none() && member.peers().is_approved(peer) {
                    tracing::info!("{} fell silent or broke off; it is asked once more", member.peers().name(peer));
                    wait = SECOND_CHANCE;
                    continue;
                }
                why.unwrap_or(Absence::Removed)
            }
            Ok(Err(absence)) => absence,
            Err(_) => silent(&member, peer),
        };
        wait = GREETING_TIMEOUT;
        // The old connection knows only the dead path. Close it; the next dial tries all addresses.
        member.endpoint().admission().hang_up(peer, last_heard);
        tracing::info!("{} is away: {absence}", member.peers().name(peer));
        member.peers().left(peer, absence);
        tokio::select! {
            () = announced => {}
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(*PAUSE.end()),
        }
    }
}

/// Records that a machine has answered, and at which address.
fn note_arrival(member: &Membership, peer: PeerId, name: &str, incarnation: u64) {
    let link = member.endpoint().link(peer);
    let socket = link.as_ref().and_then(|link| link.remote.parse::<SocketAddr>().ok());
    let is_near = socket.is_some_and(|socket| member.endpoint().networks().is_near(socket.ip()));
    let reached = if is_near { ReachableFrom::OnLink } else { ReachableFrom::Anywhere };
    let addr = PeerAddr::new(peer, socket);
    let relay = link.as_ref().filter(|link| link.kind == LinkKind::Relay);
    let addr = match relay {
        Some(link) => addr.with_relay(&link.remote),
        None => addr,
    };
    member.endpoint().vouch(&addr, reached);
    if let Some(approved) = member.peers().arrived(peer, name, incarnation, link.as_ref().map(|link| (link, reached))) {
        member.note_about(Machine::new(peer, name), AuditEvent::NameTaken { approved: fingerprint(approved) });
    }
}

/// Opens the heartbeat channel and exchanges greetings. Returns the channel, the peer's name and its incarnation.
async fn greet(member: &Membership, local: &dyn Local, peer: PeerId) -> Result<(Channel, String, u64), Absence> {
    let addr = member.peers().addr(peer);
    let opened = member.endpoint().open(&addr, Protocol::Control).await;
    let mut channel = opened.map_err(|error| explain(member, peer, &error))?;
    let greeting =
        serde_json::to_string(&member.greeting(local.profile_for(peer))).map_err(|error| other(error.to_string()))?;
    let exchange = async {
        channel.write_message(&Request::Greet(greeting)).await?;
        channel.read_message::<Reply>().await
    };
    let answer = match exchange.await {
        Ok(Some(Reply::Greeting(theirs))) => theirs,
        Ok(Some(Reply::Refused(why))) => return Err(other(hive_net::border::reason(&why))),
        Ok(_) => return Err(other(NONSENSE.to_owned())),
        // The reason why a connection was refused shows only when its first stream is used.
        Err(_) => match member.endpoint().open(&addr, Protocol::Control).await {
            Err(error) => return Err(explain(member, peer, &error)),
            Ok(_) => return Err(Absence::BrokeOff),
        },
    };
    let other_version = |_| Absence::OtherVersion { machine: member.peers().name(peer) };
    let theirs: Greeting = serde_json::from_str(&answer).map_err(other_version)?;
    let name = hive_net::border::name(&theirs.profile.name);
    agree(member.speaks(), theirs.speaks, &name)?;
    member.peers().described(peer, theirs.profile);
    Ok((channel, name, theirs.incarnation))
}

/// Sends heartbeats until the machine is removed (`Some`), or falls silent or disconnects (`None`). Also returns when
/// it was last heard.
async fn exchange_heartbeats(
    member: &Membership,
    local: &dyn Local,
    peer: PeerId,
    channel: Channel,
) -> (Option<Absence>, Instant) {
    let (mut writer, mut reader) = channel.split();
    let mut profiles = member.profiles();
    profiles.mark_changed();
    let mut detector = FailureDetector::new(Instant::now());
    let (heard, mut answers) = tokio::sync::mpsc::channel(16);
    let listening = AbortOnDropHandle::new(member.spawn({
        let member = member.clone();
        async move {
            loop {
                match reader.read::<Beat>().await {
                    Ok(Some(beat)) => hear(&member, peer, &beat),
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
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0;
    let end = loop {
        tokio::select! {
            biased;
            answer = answers.recv() => match answer {
                Some(()) => detector.answered(Instant::now()),
                None => break None,
            },
            _ = timer.tick() => {
                if !member.peers().is_approved(peer) {
                    break Some(Absence::Removed);
                }
                if detector.judge(Instant::now()) == Verdict::Silent {
                    tracing::debug!("no heartbeat was answered in time");
                    break None;
                }
                number += 1;
                let profile = news(local, peer, &mut profiles);
                if let Err(error) = writer.write(&Beat { number, profile }).await {
                    tracing::debug!("a heartbeat could not be sent: {error}");
                    break None;
                }
            }
        }
    };
    drop(listening);
    (end, detector.last_answer())
}

/// This machine's profile as JSON, if it has changed since it was last sent.
fn news(local: &dyn Local, to: PeerId, profiles: &mut tokio::sync::watch::Receiver<Profile>) -> Option<String> {
    profiles.has_changed().unwrap_or(false).then(|| {
        profiles.mark_unchanged();
        serde_json::to_string(&local.profile_for(to)).unwrap_or_default()
    })
}

fn hear(member: &Membership, peer: PeerId, beat: &Beat) {
    if let Some(profile) = beat.profile.as_deref().and_then(|text| serde_json::from_str(text).ok()) {
        member.peers().described(peer, profile);
    }
}

/// The answering side: replies to a greeting, then to every heartbeat.
pub(crate) async fn answer(member: &Membership, local: &dyn Local, peer: PeerId, mut channel: Channel, greeting: &str) {
    let refuse = |why: String| Reply::Refused(why);
    let ours = member.greeting(local.profile_for(peer));
    let name = member.peers().name(peer);
    let answer = match serde_json::from_str::<Greeting>(greeting) {
        // From the other machine's point of view, so the message names this machine.
        Ok(theirs) => match agree(theirs.speaks, ours.speaks, &ours.profile.name) {
            Ok(_) => {
                member.peers().described(peer, theirs.profile);
                Reply::Greeting(serde_json::to_string(&ours).unwrap_or_default())
            }
            Err(why) => refuse(why.to_string()),
        },
        Err(error) => {
            tracing::debug!("{name} greeted in words that are not understood: {error}");
            refuse(format!("{} does not understand the greeting; update the older HiveMind", ours.profile.name))
        }
    };
    let accepted = matches!(answer, Reply::Greeting(_));
    if channel.write_message(&answer).await.is_err() || !accepted {
        channel.finish();
        return;
    }
    // The other machine is present, so dial it now.
    member.peers().dial(peer);
    let (mut writer, mut reader) = channel.split();
    let mut profiles = member.profiles();
    while let Ok(Some(beat)) = reader.read::<Beat>().await {
        hear(member, peer, &beat);
        let profile = news(local, peer, &mut profiles);
        if writer.write(&Beat { number: beat.number, profile }).await.is_err() {
            return;
        }
    }
}

fn explain(member: &Membership, peer: PeerId, error: &ConnectError) -> Absence {
    let machine = || member.peers().name(peer);
    match error {
        ConnectError::Refused(_) => Absence::NotApproved { machine: machine() },
        ConnectError::OtherVersion(_) => Absence::OtherVersion { machine: machine() },
        ConnectError::NotAllowed(_) => Absence::Removed,
        ConnectError::NotDialled { why: NotDialled::Far, .. } => Absence::ElsewhereOnly,
        ConnectError::NotDialled { why: NotDialled::TooMany, .. } => Absence::TooManyAddresses,
        ConnectError::NotDialled { why: NotDialled::Unknown, .. } | ConnectError::Unreachable { .. } => {
            silent(member, peer)
        }
    }
}

/// A reason that is known in words only.
fn other(why: String) -> Absence {
    Absence::Other { why }
}

/// Why a machine does not answer, if that can be told.
fn silent(member: &Membership, peer: PeerId) -> Absence {
    match reach::diagnose(member.observe(peer, false)) {
        Some(condition) => Absence::Hindered { condition },
        None => Absence::Silent,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests {
    use super::*;
    use crate::peers::PeerState;
    use crate::testing::Machine as Node;

    async fn node(name: &str, speaks: (u32, u32)) -> Node {
        Node::speaking(name, speaks).await
    }

    /// Each machine's view of the other, once two approved machines of these versions have met.
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
            assert!(node.tasks().count() > 0);
            node.stop().await;
            assert_eq!(node.tasks().count(), 0, "a task has outlived its node");
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
                let _ = channel.read_message::<Request>().await;
                let why = "no\u{1b}]52;c;cm0=\u{7}\u{202e}\nerror: update needed".to_owned();
                let _ = channel.write_message(&Reply::Refused(why)).await;
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
        assert!(agree((3, 4), (1, 2), "Attic").unwrap_err().to_string().ends_with("update Attic"));
        assert!(agree((1, 2), (3, 4), "Attic").unwrap_err().to_string().ends_with("update this machine"));
    }
}
