//! The snapshot that the tray, the popover and the windows show, derived from the node's status. Pure.

use hive_types::{Accent, Language, LoadingView, Look, NotSharing, Profile, Status};
use serde::Serialize;
use specta::Type;

use crate::machines::{Found, Machine, Request, found, kept_from_sharing, layers, machines, request};
use crate::update::Update;
use crate::words::words;

/// The machine's state, shown by the shape of the tray icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Type)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Sharing is off.
    Idle,
    /// Sharing, with nothing to compute.
    Sharing,
    /// Computing.
    Busy,
    /// Something waits for the owner's decision.
    Attention,
    /// Sharing is on, but something prevents it.
    Paused,
}

/// Everything the app shows about this machine and its swarm. All numbers are finite; they are exported with an
/// integer type because specta would declare a float nullable.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Snapshot {
    /// This machine's name.
    pub name: String,
    /// Three-word fingerprint of its node ID.
    pub fingerprint: String,
    /// Its state.
    pub state: State,
    /// Whether sharing is switched on.
    pub share: bool,
    /// Whether the owner has paused sharing.
    pub paused: bool,
    /// The state and its reason, in words.
    pub line: String,
    /// This machine's memory.
    pub memory: Memory,
    /// Memory that all machines share together, in bytes.
    #[specta(type = i32)]
    pub pool_bytes: f64,
    /// This machine first, then the other approved ones.
    pub machines: Vec<Machine>,
    /// Pairing requests, from or to other machines.
    pub requests: Vec<Request>,
    /// Machines nearby that are not paired.
    pub found: Vec<Found>,
    /// The model in memory.
    pub model: Option<Model>,
    /// The models being fetched or loaded, the one that began first first.
    pub loads: Vec<Loading>,
    /// Tokens generated for answers given here since the start.
    #[specta(type = i32)]
    pub answered_tokens: f64,
    /// Why discovery of other machines is off, if it is.
    pub discovery: Option<String>,
    /// Progress of an update.
    pub update: Update,
    /// Whether the owner wants notifications; none until asked.
    pub notify: Option<bool>,
    /// Accent colour of switches, buttons and lights.
    pub accent: Accent,
    /// Light or dark.
    pub look: Look,
    /// The language of all words, here and in the windows.
    pub language: Language,
}

/// The owner's settings of the app, or the defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taste {
    /// Whether to show notifications; none until asked.
    pub notify: Option<bool>,
    /// Accent colour.
    pub accent: Accent,
    /// Light or dark.
    pub look: Look,
    /// The language.
    pub language: Language,
}

/// A model being loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Loading {
    /// Its name.
    pub name: String,
    /// Layers loaded so far.
    pub layers: u32,
    /// Layers in total.
    pub of: u32,
    /// Bytes on the machines' disks of the layers that they are fetching.
    #[specta(type = i32)]
    pub fetched: f64,
    /// Bytes of these layers in all; 0 while nothing is fetched.
    #[specta(type = i32)]
    pub fetching: f64,
}

/// This machine's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Memory {
    /// Installed memory.
    #[specta(type = i32)]
    pub total: f64,
    /// Memory used by everything else.
    #[specta(type = i32)]
    pub taken: f64,
    /// Whether it is shared now; otherwise `offered` is what would be.
    pub sharing: bool,
    /// Maximum shared now.
    #[specta(type = i32)]
    pub offered: f64,
    /// Memory used by the layers held here.
    #[specta(type = i32)]
    pub held: f64,
    /// The owner's limit, if set.
    #[specta(type = Option<i32>)]
    pub cap: Option<f64>,
    /// Recommended limit, which leaves room for the owner's programs.
    #[specta(type = i32)]
    pub recommended: f64,
}

/// The model in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Memory it uses on all machines, in bytes.
    #[specta(type = i32)]
    pub bytes: f64,
    /// Which machine holds which layers, in pipeline order.
    pub stages: Vec<Stage>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Stage {
    /// The machine's name.
    pub machine: String,
    /// Layers `[start, end)`.
    pub layers: [u32; 2],
}

/// Builds the snapshot.
pub fn snapshot(status: &Status, taste: Taste, update: Update) -> Snapshot {
    let Taste { notify, accent, look, language } = taste;
    let profile = &status.profile;
    let machines = machines(status, language);
    let requests: Vec<_> = status.peers.iter().filter_map(request).collect();
    let state = state(status, !requests.is_empty());
    Snapshot {
        name: profile.name.clone(),
        fingerprint: status.fingerprint.clone(),
        state,
        share: status.share,
        paused: status.paused,
        line: line(profile, &machines, language),
        memory: Memory {
            total: profile.memory_bytes as f64,
            taken: profile.taken_bytes as f64,
            sharing: profile.sharing,
            offered: profile.offered_bytes as f64,
            held: profile.held_bytes as f64,
            cap: profile.cap_bytes.map(|bytes| bytes as f64),
            recommended: profile.memory_bytes as f64 * RECOMMENDED,
        },
        pool_bytes: machines.iter().filter(|machine| machine.sharing).map(|machine| machine.offered).sum(),
        machines,
        requests,
        found: status.peers.iter().filter_map(found).collect(),
        model: status.model.as_ref().map(|model| Model {
            name: model.name.clone(),
            bytes: model.bytes as f64,
            stages: model
                .stages
                .iter()
                .map(|stage| Stage { machine: stage.node.clone(), layers: layers(stage) })
                .collect(),
        }),
        loads: status.loads.iter().map(load).collect(),
        answered_tokens: status.answered_tokens as f64,
        discovery: Some(status.discovery.clone()).filter(|discovery| discovery != "on" && discovery != "off"),
        update,
        notify,
        accent,
        look,
        language,
    }
}

/// Fraction of a machine's memory that can be shared without its owner noticing.
const RECOMMENDED: f64 = 0.75;

/// Sharing switched off by the owner is idle; anything else that prevents it is a pause.
fn load(view: &LoadingView) -> Loading {
    Loading {
        name: view.name.clone(),
        layers: view.layers as u32,
        of: view.of as u32,
        fetched: view.fetched_bytes as f64,
        fetching: view.fetching_bytes as f64,
    }
}

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

fn line(profile: &Profile, machines: &[Machine], language: Language) -> String {
    if !profile.sharing {
        let off = || (words(language).kept_from_sharing)(NotSharing::SwitchedOff);
        let why = kept_from_sharing(profile, language).or_else(off).unwrap_or_default();
        let mut letters = why.chars();
        return letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    }
    let together = machines.iter().filter(|machine| machine.here && machine.sharing).count();
    let others: Vec<_> = machines.iter().filter(|machine| !machine.own).collect();
    let all_away = others.iter().all(|machine| !machine.here);
    let words = &words(language).line;
    match (together, &others[..]) {
        (2.., _) => (words.together)(together),
        (_, []) => words.alone.to_owned(),
        (_, [one]) if all_away => (words.one_away)(&one.name),
        (_, [one]) => (words.one_not_sharing)(&one.name),
        (_, several) if all_away => (words.all_away)(several.len()),
        _ => words.nobody_sharing.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_types::{Absence, MachineWork, ModelView, Paired, PeerState, PeerView, StageView};

    fn profile() -> Profile {
        Profile { name: "Studio".to_owned(), sharing: true, offered_bytes: 10, memory_bytes: 100, ..Profile::default() }
    }

    fn status(profile: Profile, peers: Vec<PeerView>) -> Status {
        let stage =
            |node: &str, from, to| StageView { node: node.to_owned(), layers: [from, to], device: "cpu".to_owned() };
        let model = ModelView {
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
            left_out: 0,
            answered_tokens: 7,
            today: vec![MachineWork { id: "other".to_owned(), answers: 2, tokens: 340 }],
            model: Some(model),
            loading: None,
            loads: Vec::new(),
        }
    }

    fn seen(status: &Status) -> Snapshot {
        snapshot(status, Taste::default(), Update::default())
    }

    fn peer(state: PeerState) -> PeerView {
        PeerView {
            id: "other".to_owned(),
            name: "Mini".to_owned(),
            fingerprint: "a b c".to_owned(),
            state,
            paired: Some(Paired { code: Some("482 915".to_owned()), at_s: 7 }),
            link: None,
            condition: None,
            bits_per_s: None,
            other_paths: Vec::new(),
            rights: None,
            profile: Some(Profile { sharing: true, offered_bytes: 5, ..Profile::default() }),
        }
    }

    fn unreachable(absence: Absence, since: u64) -> PeerState {
        PeerState::Unreachable { why: absence.to_string(), absence: Some(absence), since }
    }

    fn german(status: &Status) -> Snapshot {
        snapshot(status, Taste { language: Language::De, ..Taste::default() }, Update::default())
    }

    #[test]
    fn what_a_language_has_no_words_for_is_said_as_the_node_says_it() {
        let why = |state: PeerState| german(&status(profile(), vec![peer(state)])).machines[1].why.clone();
        assert_eq!(why(unreachable(Absence::Silent, 1)).as_deref(), Some("antwortet nicht"));
        let words = "the door is locked".to_owned();
        let newer = PeerState::Unreachable { why: words.clone(), absence: Some(Absence::Unknown), since: 1 };
        assert_eq!(why(newer), Some(words.clone()));
        assert_eq!(why(PeerState::Unreachable { why: words.clone(), absence: None, since: 1 }), Some(words.clone()));
        let line = |why_not_sharing| {
            let own = Profile { sharing: false, not_sharing: Some(words.clone()), why_not_sharing, ..profile() };
            german(&status(own, Vec::new())).line
        };
        assert_eq!(line(Some(NotSharing::Paused { minutes: 12 })), "Noch 12\u{a0}min pausiert");
        assert_eq!(line(Some(NotSharing::Unknown)), "The door is locked");
        assert_eq!(line(None), "The door is locked");
    }

    #[test]
    fn machines_that_are_in_show_what_they_hold_and_the_pool_is_what_those_here_give() {
        let here = seen(&status(profile(), vec![peer(PeerState::Approved)]));
        assert_eq!(here.machines.len(), 2);
        assert_eq!((&here.machines[0].code, here.machines[1].code.as_deref()), (&None, Some("482 915")));
        assert_eq!(
            (here.machines[0].own, here.machines[0].layers.clone(), here.machines[0].copies.clone()),
            (true, vec![[0, 20]], vec![[20, 30]])
        );
        assert_eq!((here.machines[1].here, here.machines[1].layers.clone()), (true, vec![[20, 30]]));
        let today = |machine: &Machine| (machine.today.answers, machine.today.tokens);
        assert_eq!((today(&here.machines[0]), today(&here.machines[1])), ((0, 0), (2, 340)));
        assert_eq!((here.pool_bytes, here.line.as_str(), here.state), (15.0, "Sharing · 2 machines", State::Sharing));
        let away = unreachable(Absence::Silent, 1);
        let alone = seen(&status(profile(), vec![peer(away.clone())]));
        assert_eq!((alone.pool_bytes, alone.machines[1].here), (10.0, false));
        assert_eq!((alone.machines[1].away_since_s, alone.line.as_str()), (Some(1), "Sharing · Mini is away"));
        let unknown = unreachable(Absence::NotHeard, 0);
        let both = seen(&status(profile(), vec![peer(away), peer(unknown)]));
        assert_eq!((both.machines[2].away_since_s, both.line.as_str()), (None, "Sharing · 2 machines are away"));
        let silent = PeerView { profile: Some(Profile::default()), ..peer(PeerState::Approved) };
        assert_eq!(seen(&status(profile(), vec![silent])).line, "Sharing · Mini is not sharing");
        assert_eq!(seen(&status(profile(), Vec::new())).line, "Sharing · no other machines yet");
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
        let kept_from = |why: NotSharing| {
            let not_sharing = Some(why.to_string());
            Profile { sharing: false, not_sharing, why_not_sharing: Some(why), ..profile() }
        };
        let paused = seen(&status(kept_from(NotSharing::OnBattery), Vec::new()));
        assert_eq!((paused.state, paused.share, paused.line.as_str()), (State::Paused, true, "Paused: on battery"));
        let off = Status { share: false, ..status(kept_from(NotSharing::SwitchedOff), Vec::new()) };
        let german = german(&off);
        let off = seen(&off);
        assert_eq!((off.state, off.share, off.line.as_str()), (State::Idle, false, "Sharing is switched off"));
        assert_eq!(german.line, "Nicht freigegeben");
        let busy = Profile { sessions: 1, ..profile() };
        assert_eq!(seen(&status(busy, Vec::new())).state, State::Busy);
    }
}
