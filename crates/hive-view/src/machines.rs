//! Machines as the app shows them: approved, waiting for a decision, and nearby.

use hive_types::{Language, Link, MachineWork, PeerState, PeerView, Profile, Rights, StageView, Status};
use serde::Serialize;
use specta::Type;

use crate::words::words;

/// An approved machine.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Machine {
    /// Its node ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Three-word fingerprint of its ID.
    pub fingerprint: String,
    /// The six-digit code that both owners compared when it was approved, if known.
    pub code: Option<String>,
    /// Whether it is this machine.
    pub own: bool,
    /// Whether it is online.
    pub here: bool,
    /// Whether it shares memory now.
    pub sharing: bool,
    /// Why it is offline or not sharing, in words.
    pub why: Option<String>,
    /// Since when it is offline, in seconds since 1970, if that is known.
    pub away_since_s: Option<u64>,
    /// Its work of today for people and programs on this machine.
    pub today: Today,
    /// Its processor.
    pub chip: String,
    /// Memory it shares, in bytes.
    #[specta(type = i32)]
    pub offered: f64,
    /// Layers it holds, `[start, end)`; adjacent ranges are merged.
    pub layers: Vec<[u32; 2]>,
    /// Layers it holds as a standby replica.
    pub copies: Vec<[u32; 2]>,
    /// How fast it answers alone with the starter model, in tokens per second.
    #[specta(type = Option<i32>)]
    pub tokens_per_s: Option<f64>,
    /// The link to it.
    pub link: Option<LinkView>,
    /// Other links to it that were measured.
    pub other_links: Vec<LinkView>,
    /// Its rights; this machine has all of them.
    pub rights: Option<RightsView>,
}

/// A machine's work of today.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Type)]
pub struct Today {
    /// Answers that it took part in.
    pub answers: u64,
    /// Tokens of these answers.
    pub tokens: u64,
}

/// A machine's rights.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct RightsView {
    /// Whether it may use this machine's memory.
    pub memory: bool,
    /// Whether it may see this owner's prompts.
    pub prompts: bool,
    /// Maximum memory it may use here, in bytes.
    #[specta(type = Option<i32>)]
    pub memory_limit: Option<f64>,
    /// Maximum number of its answers computed here at a time.
    pub session_limit: Option<u32>,
}

/// A link to a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct LinkView {
    /// "Thunderbolt", "Wi-Fi", …
    pub kind: String,
    /// Round trip in milliseconds.
    #[specta(type = i32)]
    pub round_trip_ms: f64,
    /// Bandwidth in bits per second, once measured.
    #[specta(type = Option<i32>)]
    pub bits_per_s: Option<f64>,
}

/// A pairing request that waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Request {
    /// The machine's node ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Three-word fingerprint of its ID.
    pub fingerprint: String,
    /// The six-digit code that both machines show.
    pub code: String,
    /// Whether this owner has approved and the other owner's decision is pending.
    pub approved_here: bool,
    /// Whether the other machine asked first.
    pub asked_by_them: bool,
}

/// A machine nearby that is not paired.
#[derive(Debug, Clone, PartialEq, Serialize, Type)]
pub struct Found {
    /// Its node ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Three-word fingerprint of its ID.
    pub fingerprint: String,
}

/// This machine first, then the other approved ones.
pub(crate) fn machines(status: &Status, language: Language) -> Vec<Machine> {
    let stages = status.model.as_ref().map_or(&[][..], |model| &model.stages);
    let copies = status.model.as_ref().map_or(&[][..], |model| &model.copies);
    let profile = &status.profile;
    let own = machine_of(&status.id, &profile.name, &status.fingerprint, Some(profile), stages, copies, language);
    let others = status.peers.iter().filter_map(|peer| other(peer, stages, copies, language));
    let all = std::iter::once(Machine { own: true, here: true, ..own }).chain(others);
    all.map(|machine| Machine { today: today(&status.today, &machine.id), ..machine }).collect()
}

/// Why a machine does not share: in the language, or in the machine's own words if the language has none.
pub(crate) fn kept_from_sharing(profile: &Profile, language: Language) -> Option<String> {
    let known = profile.why_not_sharing.and_then(words(language).kept_from_sharing);
    known.or_else(|| profile.not_sharing.clone())
}

fn today(work: &[MachineWork], id: &str) -> Today {
    let done = work.iter().find(|work| work.id == id);
    done.map_or_else(Today::default, |work| Today { answers: work.answers, tokens: work.tokens })
}

pub(crate) fn layers(stage: &StageView) -> [u32; 2] {
    stage.layers.map(|layer| layer as u32)
}

/// Sorts ranges and merges adjacent ones.
fn joined(mut ranges: Vec<[u32; 2]>) -> Vec<[u32; 2]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let touches = next[0] <= last[1];
        if touches {
            last[1] = last[1].max(next[1]);
        }
        touches
    });
    ranges
}

fn machine_of(
    id: &str,
    name: &str,
    fingerprint: &str,
    profile: Option<&Profile>,
    stages: &[StageView],
    copies: &[StageView],
    language: Language,
) -> Machine {
    let holds = |held: &[StageView]| joined(held.iter().filter(|stage| stage.node == name).map(layers).collect());
    Machine {
        id: id.to_owned(),
        name: name.to_owned(),
        fingerprint: fingerprint.to_owned(),
        code: None,
        own: false,
        here: false,
        sharing: profile.is_some_and(|profile| profile.sharing),
        why: profile.and_then(|profile| kept_from_sharing(profile, language)),
        away_since_s: None,
        today: Today::default(),
        chip: profile.map(|profile| profile.chip.clone()).unwrap_or_default(),
        offered: profile.map_or(0.0, |profile| profile.offered_bytes as f64),
        layers: holds(stages),
        copies: holds(copies),
        tokens_per_s: profile.and_then(|profile| profile.decode_tokens_per_s),
        link: None,
        other_links: Vec::new(),
        rights: None,
    }
}

fn link_view(link: &Link, bits_per_s: Option<u64>, language: Language) -> LinkView {
    LinkView {
        kind: (words(language).link)(link.kind).to_owned(),
        round_trip_ms: link.round_trip_us as f64 / 1e3,
        bits_per_s: bits_per_s.map(|bits| bits as f64),
    }
}

fn other(peer: &PeerView, stages: &[StageView], copies: &[StageView], language: Language) -> Option<Machine> {
    let profile = peer.profile.as_ref();
    let machine = machine_of(&peer.id, &peer.name, &peer.fingerprint, profile, stages, copies, language);
    let code = peer.paired.as_ref().and_then(|paired| paired.code.clone());
    let machine = Machine { code, rights: peer.rights.map(rights_view), ..machine };
    let condition = peer.condition.map(words(language).condition).map(str::to_owned);
    match &peer.state {
        PeerState::Approved => {
            let link = peer.link.as_ref().map(|link| link_view(link, peer.bits_per_s, language));
            let other_links =
                peer.other_paths.iter().map(|path| link_view(&path.link, Some(path.bits_per_s), language)).collect();
            let why = condition.or(machine.why);
            Some(Machine { here: true, link, other_links, why, ..machine })
        }
        PeerState::Unreachable { why, absence, since } => {
            let known = || absence.as_ref().and_then(words(language).absence);
            let why = condition.or_else(known).unwrap_or_else(|| why.clone());
            let away_since_s = Some(*since).filter(|since| *since > 0);
            Some(Machine { sharing: false, why: Some(why), away_since_s, ..machine })
        }
        PeerState::Found | PeerState::Pending { .. } | PeerState::Blocked | PeerState::Unknown => None,
    }
}

fn rights_view(rights: Rights) -> RightsView {
    let Rights { memory, prompts, memory_limit_bytes, session_limit } = rights;
    RightsView { memory, prompts, memory_limit: memory_limit_bytes.map(|bytes| bytes as f64), session_limit }
}

pub(crate) fn request(peer: &PeerView) -> Option<Request> {
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

pub(crate) fn found(peer: &PeerView) -> Option<Found> {
    let is_found = matches!(peer.state, PeerState::Found);
    is_found.then(|| Found { id: peer.id.clone(), name: peer.name.clone(), fingerprint: peer.fingerprint.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_several_stages_shows_all_its_layers() {
        assert_eq!(joined(vec![[20, 30], [0, 5], [5, 9]]), [[0, 9], [20, 30]]);
        assert_eq!(joined(Vec::new()), [[0; 2]; 0]);
    }
}
