//! What the app shows, made from what the node says. Pure: the tray, the popover and the windows all show this.

use hive_node::serving::StageView;
use hive_node::settings::{Accent, Settings};
use hive_node::{Link, LinkKind, PeerState, PeerView, Profile, Status};
use serde::Serialize;
use specta::Type;

use crate::update::Update;

/// How the machine is; the tray icon's shape says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Sharing is off.
    Idle,
    /// Sharing, and nothing to do.
    Sharing,
    /// Computing.
    Busy,
    /// Somebody waits for the owner.
    Attention,
    /// It would share, but something is in the way.
    Paused,
}

/// Everything the app shows of this machine and its swarm. Its numbers are finite, which their TypeScript says by
/// way of an integer's type: specta takes a float for one that may be missing.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Snapshot {
    /// This machine's name.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// How it is.
    pub state: State,
    /// Whether the switch is on.
    pub share: bool,
    /// Whether the owner has paused it for now.
    pub paused: bool,
    /// The state in words, with the reason.
    pub line: String,
    /// This machine's memory.
    pub memory: Memory,
    /// What all machines give together, in bytes.
    #[specta(type = i32)]
    pub pool_bytes: f64,
    /// This machine first, then the others that are in.
    pub machines: Vec<Machine>,
    /// Machines that want in, or are asked to let this one in.
    pub requests: Vec<Request>,
    /// Machines nearby that nobody has asked yet.
    pub found: Vec<Found>,
    /// The model in memory.
    pub model: Option<Model>,
    /// The model on its way into memory.
    pub loading: Option<Loading>,
    /// Tokens of answers given here since the start.
    #[specta(type = i32)]
    pub answered_tokens: f64,
    /// Why other machines are not searched for, if they are not.
    pub discovery: Option<String>,
    /// How far an update has come.
    pub update: Update,
    /// Whether the owner wants notifications; nothing until they have been asked.
    pub notify: Option<bool>,
    /// The colour of switches, buttons and lights.
    pub accent: Accent,
}

/// A model on its way into memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
pub struct Loading {
    /// Its name.
    pub name: String,
    /// Layers that are there.
    pub layers: u32,
    /// Of so many.
    pub of: u32,
}

/// This machine's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Memory {
    /// Installed.
    #[specta(type = i32)]
    pub total: f64,
    /// In use by everything else.
    #[specta(type = i32)]
    pub taken: f64,
    /// Given at most now.
    #[specta(type = i32)]
    pub offered: f64,
    /// Taken by the layers held here.
    #[specta(type = i32)]
    pub held: f64,
    /// The owner's cap, if there is one.
    #[specta(type = Option<i32>)]
    pub cap: Option<f64>,
    /// A cap that leaves the owner's programs room.
    #[specta(type = i32)]
    pub recommended: f64,
}

/// A machine that is in.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Machine {
    /// Its key.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// Whether it is this one.
    pub own: bool,
    /// Whether it answers.
    pub here: bool,
    /// Whether it gives memory now.
    pub sharing: bool,
    /// What keeps it away or from sharing, in words.
    pub why: Option<String>,
    /// What computes there.
    pub chip: String,
    /// Memory it gives, in bytes.
    #[specta(type = i32)]
    pub offered: f64,
    /// Layers it holds, `[start, end)`.
    pub layers: Option<[u32; 2]>,
    /// Layers it keeps a copy of.
    pub copies: Option<[u32; 2]>,
    /// How fast it alone answers with the starter model.
    #[specta(type = Option<i32>)]
    pub tokens_per_s: Option<f64>,
    /// The way to it.
    pub link: Option<LinkView>,
    /// Other ways to it that were measured.
    pub other_links: Vec<LinkView>,
}

/// The way to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct LinkView {
    /// "Thunderbolt", "Wi-Fi", …
    pub kind: String,
    /// Round trip in milliseconds.
    #[specta(type = i32)]
    pub round_trip_ms: f64,
    /// What it carries, in bits per second, once measured.
    #[specta(type = Option<i32>)]
    pub bits_per_s: Option<f64>,
}

/// Somebody waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Request {
    /// The machine.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
    /// The six digits that both machines show.
    pub code: String,
    /// Whether this owner has approved, and the other's decision is awaited.
    pub approved_here: bool,
    /// Whether the other machine asked first.
    pub asked_by_them: bool,
}

/// A machine nearby.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Found {
    /// Its key.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
}

/// The model in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it takes on all machines, in bytes.
    #[specta(type = i32)]
    pub bytes: f64,
    /// Who holds which layers, in the order a token passes them.
    pub stages: Vec<Stage>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Stage {
    /// The machine.
    pub machine: String,
    /// Layers `[start, end)`.
    pub layers: [u32; 2],
}

/// What the app shows of a status, of what its owner has set, and of an update.
pub fn snapshot(status: &Status, settings: &Settings, update: Update) -> Snapshot {
    let profile = &status.profile;
    let stages = status.model.as_ref().map_or(&[][..], |model| &model.stages);
    let copies = status.model.as_ref().map_or(&[][..], |model| &model.copies);
    let own = machine_of(&status.id, &profile.name, &status.fingerprint, Some(profile), stages, copies);
    let others = status.peers.iter().filter_map(|peer| other(peer, stages, copies));
    let machines: Vec<_> = std::iter::once(Machine { own: true, here: true, ..own }).chain(others).collect();
    let requests: Vec<_> = status.peers.iter().filter_map(request).collect();
    let found = status.peers.iter().filter(|peer| matches!(peer.state, PeerState::Found));
    let state = state(status, !requests.is_empty());
    let together = machines.iter().filter(|machine| machine.here && machine.sharing).count();
    Snapshot {
        name: profile.name.clone(),
        fingerprint: status.fingerprint.clone(),
        state,
        share: status.share,
        paused: status.paused,
        line: line(profile, together),
        memory: Memory {
            total: profile.memory_bytes as f64,
            taken: profile.taken_bytes as f64,
            offered: profile.offered_bytes as f64,
            held: profile.held_bytes as f64,
            cap: profile.cap_bytes.map(|bytes| bytes as f64),
            recommended: profile.memory_bytes as f64 * RECOMMENDED,
        },
        pool_bytes: machines.iter().filter(|machine| machine.sharing).map(|machine| machine.offered).sum(),
        machines,
        requests,
        found: found
            .map(|peer| Found { id: peer.id.clone(), name: peer.name.clone(), fingerprint: peer.fingerprint.clone() })
            .collect(),
        model: status.model.as_ref().map(|model| Model {
            name: model.name.clone(),
            bytes: model.bytes as f64,
            stages: model
                .stages
                .iter()
                .map(|stage| Stage { machine: stage.node.clone(), layers: layers(stage) })
                .collect(),
        }),
        loading: status.loading.as_ref().map(|loading| Loading {
            name: loading.name.clone(),
            layers: loading.layers as u32,
            of: loading.of as u32,
        }),
        answered_tokens: status.answered_tokens as f64,
        discovery: Some(status.discovery.clone()).filter(|discovery| discovery != "on" && discovery != "off"),
        update,
        notify: settings.notify,
        accent: settings.accent.unwrap_or_default(),
    }
}

/// The part of a machine's memory that can be given without its owner noticing.
const RECOMMENDED: f64 = 0.75;

fn layers(stage: &StageView) -> [u32; 2] {
    stage.layers.map(|layer| layer as u32)
}

fn machine_of(
    id: &str,
    name: &str,
    fingerprint: &str,
    profile: Option<&Profile>,
    stages: &[StageView],
    copies: &[StageView],
) -> Machine {
    let holds = |held: &[StageView]| held.iter().find(|stage| stage.node == name).map(layers);
    Machine {
        id: id.to_owned(),
        name: name.to_owned(),
        fingerprint: fingerprint.to_owned(),
        own: false,
        here: false,
        sharing: profile.is_some_and(|profile| profile.sharing),
        why: profile.and_then(|profile| profile.not_sharing.clone()),
        chip: profile.map(|profile| profile.chip.clone()).unwrap_or_default(),
        offered: profile.map_or(0.0, |profile| profile.offered_bytes as f64),
        layers: holds(stages),
        copies: holds(copies),
        tokens_per_s: profile.and_then(|profile| profile.decode_tokens_per_s),
        link: None,
        other_links: Vec::new(),
    }
}

fn link_view(link: &Link, bits_per_s: Option<u64>) -> LinkView {
    LinkView {
        kind: kind_name(link.kind).to_owned(),
        round_trip_ms: link.round_trip_us as f64 / 1e3,
        bits_per_s: bits_per_s.map(|bits| bits as f64),
    }
}

fn other(peer: &PeerView, stages: &[StageView], copies: &[StageView]) -> Option<Machine> {
    let machine = machine_of(&peer.id, &peer.name, &peer.fingerprint, peer.profile.as_ref(), stages, copies);
    match &peer.state {
        PeerState::Approved => {
            let link = peer.link.as_ref().map(|link| link_view(link, peer.bits_per_s));
            let other_links =
                peer.other_paths.iter().map(|path| link_view(&path.link, Some(path.bits_per_s))).collect();
            let why = peer.condition.map(|condition| condition.explain().to_owned()).or(machine.why);
            Some(Machine { here: true, link, other_links, why, ..machine })
        }
        PeerState::Unreachable { why, .. } => {
            let why = peer.condition.map_or(why.as_str(), |condition| condition.explain());
            Some(Machine { sharing: false, why: Some(why.to_owned()), ..machine })
        }
        PeerState::Found | PeerState::Pending { .. } | PeerState::Blocked => None,
    }
}

/// As people call it.
fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Loopback => "Loopback",
        LinkKind::Thunderbolt => "Thunderbolt",
        LinkKind::Ethernet => "Ethernet",
        LinkKind::Wifi => "Wi-Fi",
        LinkKind::Vpn => "VPN",
        LinkKind::Relay => "Relay",
        LinkKind::Other => "Network",
    }
}

fn request(peer: &PeerView) -> Option<Request> {
    let PeerState::Pending { code, asked_by_them, approved_here } = &peer.state else { return None };
    Some(Request {
        id: peer.id.clone(),
        name: peer.name.clone(),
        fingerprint: peer.fingerprint.clone(),
        code: code.clone(),
        approved_here: *approved_here,
        asked_by_them: *asked_by_them,
    })
}

/// What the owner has switched off is idle; anything else that keeps it from sharing is a pause.
fn state(status: &Status, somebody_waits: bool) -> State {
    if somebody_waits {
        State::Attention
    } else if status.profile.sessions > 0 {
        State::Busy
    } else if status.profile.sharing {
        State::Sharing
    } else if status.share {
        State::Paused
    } else {
        State::Idle
    }
}

fn line(profile: &Profile, together: usize) -> String {
    if !profile.sharing {
        let why = profile.not_sharing.as_deref().unwrap_or("sharing is switched off");
        let mut letters = why.chars();
        return letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    }
    match together {
        0 | 1 => "Sharing · no other machine yet".to_owned(),
        several => format!("Sharing · {several} machines"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile { name: "Studio".to_owned(), sharing: true, offered_bytes: 10, memory_bytes: 100, ..Profile::default() }
    }

    fn status(profile: Profile, peers: Vec<PeerView>) -> Status {
        let stage =
            |node: &str, from, to| StageView { node: node.to_owned(), layers: [from, to], device: "cpu".to_owned() };
        let model = hive_node::serving::ModelView {
            name: "Llama".to_owned(),
            stages: vec![stage("Studio", 0, 20), stage("Mini", 20, 30)],
            copies: vec![stage("Studio", 20, 30)],
            bytes: 12,
        };
        Status {
            id: "key".to_owned(),
            fingerprint: "otter lamp river".to_owned(),
            share: true,
            paused: false,
            profile,
            addresses: Vec::new(),
            discovery: "on".to_owned(),
            peers,
            answered_tokens: 7,
            model: Some(model),
            loading: None,
        }
    }

    fn seen(status: &Status) -> Snapshot {
        snapshot(status, &Settings::default(), Update::default())
    }

    fn peer(state: PeerState) -> PeerView {
        PeerView {
            id: "other".to_owned(),
            name: "Mini".to_owned(),
            fingerprint: "a b c".to_owned(),
            state,
            link: None,
            condition: None,
            bits_per_s: None,
            other_paths: Vec::new(),
            profile: Some(Profile { sharing: true, offered_bytes: 5, ..Profile::default() }),
        }
    }

    #[test]
    fn machines_that_are_in_show_what_they_hold_and_the_pool_is_what_those_here_give() {
        let here = seen(&status(profile(), vec![peer(PeerState::Approved)]));
        assert_eq!(here.machines.len(), 2);
        assert_eq!(
            (here.machines[0].own, here.machines[0].layers, here.machines[0].copies),
            (true, Some([0, 20]), Some([20, 30]))
        );
        assert_eq!((here.machines[1].here, here.machines[1].layers), (true, Some([20, 30])));
        assert_eq!((here.pool_bytes, here.line.as_str(), here.state), (15.0, "Sharing · 2 machines", State::Sharing));
        let away = PeerState::Unreachable { why: "it does not answer".to_owned(), since: 1 };
        let alone = seen(&status(profile(), vec![peer(away)]));
        assert_eq!((alone.pool_bytes, alone.machines[1].here), (10.0, false));
        assert_eq!(alone.machines[1].why.as_deref(), Some("it does not answer"));
    }

    #[test]
    fn whoever_waits_comes_first_and_a_pause_is_not_off() {
        let pending = PeerState::Pending { code: "482 915".to_owned(), asked_by_them: true, approved_here: false };
        let asked = seen(&status(profile(), vec![peer(pending)]));
        assert_eq!(
            (asked.state, asked.requests[0].code.as_str(), asked.machines.len()),
            (State::Attention, "482 915", 1)
        );
        let kept_from = |why: &str| Profile { sharing: false, not_sharing: Some(why.to_owned()), ..profile() };
        let paused = seen(&status(kept_from("paused: on battery"), Vec::new()));
        assert_eq!((paused.state, paused.share, paused.line.as_str()), (State::Paused, true, "Paused: on battery"));
        let off = Status { share: false, ..status(kept_from("sharing is switched off"), Vec::new()) };
        let off = seen(&off);
        assert_eq!((off.state, off.share, off.line.as_str()), (State::Idle, false, "Sharing is switched off"));
        let busy = Profile { sessions: 1, ..profile() };
        assert_eq!(seen(&status(busy, Vec::new())).state, State::Busy);
    }
}
