//! A machine's profile: its report about itself to the machines it has approved.
//!
//! The profile is sent as JSON, and readers skip fields that they do not know, so older and newer versions understand
//! each other.

use hive_host::{Heat, Power};
use hive_net::border;
use hive_types::{NotSharing, if_known};
use serde::{Deserialize, Serialize};

use crate::ModelCopy;

/// A machine's report about itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Profile {
    /// Its name for itself.
    pub name: String,
    /// Its version of HiveMind.
    pub version: String,
    /// Its processor.
    pub chip: String,
    /// `macos` or `linux`.
    pub os: String,
    /// Threads that can compute at the same time.
    pub threads: usize,
    /// Installed memory, in bytes.
    pub memory_bytes: u64,
    /// Memory used by the system and the owner's programs, in bytes.
    pub taken_bytes: u64,
    /// Memory it offers the swarm now, in bytes.
    pub offered_bytes: u64,
    /// Whether it shares now.
    pub sharing: bool,
    /// Why it does not share, for people.
    pub not_sharing: Option<String>,
    /// The same reason, as a value.
    #[serde(deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    pub why_not_sharing: Option<NotSharing>,
    /// Whether it computes on a GPU, where models have another form in memory.
    pub gpu: bool,
    /// Decode speed with the starter model, in tokens per second.
    pub decode_tokens_per_s: Option<f64>,
    /// Weights read during that decode, in bytes per second; predicts the speed of other models.
    pub bytes_per_s: Option<f64>,
    /// Prefill speed with the starter model, in tokens per second.
    pub prefill_tokens_per_s: Option<f64>,
    /// The owner's cap on shared memory, in bytes, if set.
    pub cap_bytes: Option<u64>,
    /// Memory of the layers it holds, in bytes.
    pub held_bytes: u64,
    /// Whether that exceeds the cap, so that other machines must take layers over.
    pub over_cap: bool,
    /// The most it could offer with nothing else in memory, in bytes: the owner's cap, or its GPU's memory.
    pub limit_bytes: Option<u64>,
    /// The owner's limit on sending, in bits per second, if set.
    pub sends_bits_per_s: Option<u64>,
    /// The models on its disk that can be used.
    pub models: Vec<String>,
    /// Every model on its disk; `None` until all of them have been read.
    pub copies: Option<Vec<ModelCopy>>,
    /// Whether it fetches missing layers: from the machine that asks for them, from others, or from a hub.
    pub fetches: bool,
    /// Answers it is computing a part of.
    pub sessions: usize,
    /// Its power source.
    pub power: Power,
    /// Its thermal state.
    pub heat: Heat,
}

/// Maximum number of another machine's models that are listed; a real cache has dozens.
const LISTED_MODELS: usize = 1024;

impl Profile {
    /// Writes down whether it shares, and if not, why not.
    pub fn set_sharing(&mut self, decided: Result<(), NotSharing>) {
        self.sharing = decided.is_ok();
        self.not_sharing = decided.err().map(|why| why.to_string());
        self.why_not_sharing = decided.err();
    }

    /// Cleans the texts in another machine's profile, so that they can be shown. Models whose names would need cleaning
    /// are dropped, since models are looked up by name.
    #[must_use]
    pub fn at_the_border(self) -> Self {
        let models = self.models.into_iter().filter(|model| border::is_plain(model)).take(LISTED_MODELS);
        let is_plain = |copy: &ModelCopy| {
            let is_digest =
                |digest: &String| digest.len() <= 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
            copy.name.as_deref().is_none_or(border::is_plain) && copy.digest.as_ref().is_none_or(is_digest)
        };
        let copies = self.copies.map(|copies| copies.into_iter().filter(is_plain).take(LISTED_MODELS).collect());
        Self {
            name: border::name(&self.name),
            version: border::label(&self.version),
            chip: border::label(&self.chip),
            os: border::label(&self.os),
            not_sharing: self.not_sharing.as_deref().map(border::reason),
            models: models.collect(),
            copies,
            ..self
        }
    }

    /// Memory it offers once `freed_bytes` of its layers are freed.
    pub fn offered_after(&self, freed_bytes: u64) -> u64 {
        let offered = self.offered_bytes.saturating_add(freed_bytes);
        offered.min(self.limit_bytes.unwrap_or(u64::MAX)).max(self.offered_bytes)
    }

    /// The part of the offered memory that the owner's cap leaves beside the layers already held.
    pub fn room_bytes(&self) -> u64 {
        let under_cap = self.cap_bytes.map_or(u64::MAX, |cap| cap.saturating_sub(self.held_bytes));
        self.offered_bytes.min(under_cap)
    }
}

/// Memory always left to the system and the owner's programs, in bytes.
const HEADROOM_BYTES: u64 = 1 << 30;

/// The memory that a machine can offer: the available memory beyond the headroom, up to its limit.
pub fn offered_bytes(available: u64, limit: Option<u64>) -> u64 {
    available.saturating_sub(HEADROOM_BYTES).min(limit.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_keeps_to_its_limit_and_leaves_room() {
        let gib = 1 << 30;
        assert_eq!(offered_bytes(16 * gib, None), 15 * gib);
        assert_eq!(offered_bytes(16 * gib, Some(8 * gib)), 8 * gib);
        assert_eq!(offered_bytes(gib / 2, None), 0);
    }

    #[test]
    fn what_is_held_takes_room_under_the_cap_only() {
        let capped = Profile { offered_bytes: 200, cap_bytes: Some(200), held_bytes: 120, ..Profile::default() };
        assert_eq!(capped.room_bytes(), 80);
        // Without a cap, held layers are already missing from the available memory.
        assert_eq!(Profile { cap_bytes: None, ..capped.clone() }.room_bytes(), 200);
        assert_eq!(Profile { held_bytes: 300, ..capped }.room_bytes(), 0);
    }

    #[test]
    fn what_makes_room_is_offered_up_to_the_limit() {
        let open = Profile { offered_bytes: 200, held_bytes: 500, ..Profile::default() };
        assert_eq!(open.offered_after(500), 700, "a model that nobody uses is not in the next one's way");
        let limited = Profile { limit_bytes: Some(600), ..open.clone() };
        assert_eq!((limited.offered_after(500), limited.offered_after(0)), (600, 200));
        let lowered = Profile { limit_bytes: Some(100), ..open };
        assert_eq!(lowered.offered_after(500), 200, "what it says itself counts");
    }

    #[test]
    fn what_a_machine_says_of_itself_writes_to_no_terminal() {
        let hostile = "a\u{1b}]0;owned\u{7}\u{202e}\nb";
        let copy = |name: Option<&str>, digest: &str| ModelCopy {
            name: name.map(str::to_owned),
            digest: Some(digest.to_owned()),
        };
        let said = Profile {
            name: hostile.to_owned(),
            version: hostile.to_owned(),
            chip: hostile.to_owned(),
            os: hostile.to_owned(),
            not_sharing: Some(hostile.to_owned()),
            models: vec!["owner/name".to_owned(), hostile.to_owned()],
            copies: Some(vec![copy(Some("owner/name"), "1f"), copy(Some(hostile), "1f"), copy(None, hostile)]),
            ..Profile::default()
        };
        let entered = said.at_the_border();
        let clean = "a]0;owned b";
        assert_eq!([&entered.name, &entered.version, &entered.chip, &entered.os], [clean; 4]);
        assert_eq!(entered.not_sharing.as_deref(), Some(clean));
        assert_eq!(entered.models, ["owner/name"]);
        assert_eq!(entered.copies, Some(vec![copy(Some("owner/name"), "1f")]));
    }

    #[test]
    fn a_newer_machine_is_understood() {
        let newer = r#"{"name":"New","quantum":true,"offered_bytes":5}"#;
        let profile: Profile = serde_json::from_str(newer).unwrap();
        assert_eq!((profile.name.as_str(), profile.offered_bytes, profile.sharing), ("New", 5, false));
    }
}
