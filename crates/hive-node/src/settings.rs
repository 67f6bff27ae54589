//! The owner's settings: `config.toml` in the data folder. A flag overrides an environment variable, which overrides
//! the file, which overrides the default.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hive_net::{Relay, border};
use serde::{Deserialize, Serialize};

pub use hive_types::{Accent, BrowserAccess, Language, Look};

use hive_peers::data::{DataError, DataFolder};

use hive_stage::{AtLoad, Fetches};

use crate::node::options::NodeOptions;
use crate::sharing::Policy;

/// The file. Every field is optional. Unknown fields are refused by name, so that a typo does not pass for a setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The name that other machines show; the computer's by default.
    pub name: Option<String>,
    /// The most memory to share, as people write it: "8GB".
    pub memory: Option<String>,
    /// The disk limit for fetched parts of models, as people write it: "100 GB". The least recently used parts are
    /// evicted first. No limit by default.
    pub disk: Option<String>,
    /// Whether to share memory with the swarm at all.
    pub share: Option<bool>,
    /// Share only on mains power.
    pub only_on_power: Option<bool>,
    /// Share only if nobody has used the machine for this many minutes.
    pub only_when_idle_minutes: Option<u64>,
    /// Limit on the rate of sending to other machines, in megabits per second.
    pub bandwidth_mbit_per_s: Option<u64>,
    /// Limit on the rate of downloads from Hugging Face, in megabits per second. Downloads from other machines do not
    /// count. 0 is no limit.
    pub download_mbit_per_s: Option<u64>,
    /// Bits per weight, 4, 6 or 8, in which models in 16 bits or FP8 are held in memory, on every machine that computes for
    /// this one; CPUs hold 6 as 8. As they are stored, unless set. Counts for models that are loaded from then on.
    pub quantize_at_load: Option<AtLoad>,
    /// Whether models that fit on this machine stay on it, so that no other machine sees the prompts, even if more
    /// machines would be faster.
    pub keep_prompts_here: Option<bool>,
    /// Unload a model after this many minutes without a question; never unless set. 0 unloads it right after its answers.
    pub unload_after_idle_minutes: Option<u64>,
    /// Whether this machine fetches missing layers: from approved machines and, unless `lan_only` is set, from the
    /// model's hub. True unless set.
    pub fetch_models: Option<bool>,
    /// Whether all traffic stays on the local network.
    pub lan_only: Option<bool>,
    /// Whether the app shows a notification when a machine wants to join. Absent if the owner has not been asked yet.
    pub notify: Option<bool>,
    /// The colour of the app's switches, buttons and lights.
    pub accent: Option<Accent>,
    /// Whether the app's pages are light or dark.
    pub look: Option<Look>,
    /// The language of the app; the system's by default.
    pub language: Option<Language>,
    /// The model of new chats in the app; the starter model by default.
    pub model: Option<String>,
    /// The shortcut that asks a question from any program, such as `CmdOrCtrl+Shift+Space`; none by default.
    pub quick_ask: Option<String>,
    /// The address of the API; must be loopback.
    pub api: Option<SocketAddr>,
    /// Origins of web pages that may use the API, in addition to this machine's own.
    pub allow_origins: Option<Vec<String>>,
    /// Host names under which the API may be requested, in addition to this machine's own.
    pub allow_hosts: Option<Vec<String>>,
    /// Where browsers may open HiveMind's pages; nowhere by default.
    pub browser: Option<BrowserAccess>,
    /// The address of the pages for other devices.
    pub browser_bind: Option<SocketAddr>,
    /// The address on which other machines reach this one.
    pub bind: Option<SocketAddr>,
    /// `none`, `public`, or the URL of your own relay.
    pub relay: Option<String>,
}

/// Its name in the data folder.
pub const FILE: &str = "config.toml";

/// An invalid setting.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// An empty name, or one that cannot be shown.
    #[error("a machine needs a name; give it one, or leave the setting out to use the computer's")]
    Name,
    /// Not an amount of memory.
    #[error("\"{0}\" is not an amount of memory; give it with a unit, as in 8GB")]
    Memory(String),
    /// Not an amount of disk space.
    #[error("\"{0}\" is not an amount of disk space; give it with a unit, as in 100GB")]
    Disk(String),
    /// Not a relay.
    #[error("\"{0}\" is not a relay; use none, public, or a URL")]
    Relay(String),
}

impl Settings {
    /// Reads the file in a data folder; a missing file counts as empty.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| DataError::Damaged { path, why: error.to_string().trim().replace('\n', " ") }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(DataError::Unusable { path, error }),
        }
    }
}

impl Settings {
    /// Writes the file in a data folder.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join(FILE);
        let text = toml::to_string_pretty(self)
            .map_err(|error| DataError::Damaged { path: path.clone(), why: error.to_string() })?;
        hive_host::folders::write_private(&path, text.as_bytes()).map_err(|error| DataError::Unusable { path, error })
    }

    /// The owner's policy; it applies as soon as the file is written.
    pub(crate) fn policy(&self) -> Policy {
        let time = |minutes: u64| Duration::from_secs(minutes.saturating_mul(60));
        Policy {
            only_on_power: self.only_on_power.unwrap_or(false),
            only_when_idle: self.only_when_idle_minutes.map(time),
            unload_after: self.unload_after_idle_minutes.map(time),
            bits_per_s: self.bandwidth_mbit_per_s.map(|megabits| megabits.saturating_mul(1_000_000)),
            download_bytes_per_s: self.download_bytes_per_s(),
            quantize_at_load: self.quantize_at_load,
            keep_prompts_here: self.keep_prompts_here.unwrap_or(false),
        }
    }

    /// The owner's model for new chats, if it is `there`; a model may be removed after it was chosen.
    pub(crate) fn model_if(&self, there: impl FnOnce(&str) -> bool) -> Option<&str> {
        self.model.as_deref().filter(|name| there(name))
    }

    /// When the file in a data folder was last written; `None` if it does not exist.
    pub(crate) fn written(folder: &Path) -> Option<SystemTime> {
        std::fs::metadata(folder.join(FILE)).and_then(|about| about.modified()).ok()
    }

    /// The limit on the rate of downloads. 0 is no limit.
    pub fn download_bytes_per_s(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.download_mbit_per_s?.saturating_mul(1_000_000 / 8))
    }

    fn memory_cap(&self) -> Result<Option<u64>, SettingError> {
        let parse = |text: &String| parse_bytes(text).ok_or_else(|| SettingError::Memory(text.clone()));
        self.memory.as_ref().map(parse).transpose()
    }

    /// The most disk for fetched parts of models, in bytes.
    pub(crate) fn disk_cap(&self) -> Result<Option<u64>, SettingError> {
        let parse = |text: &String| parse_bytes(text).ok_or_else(|| SettingError::Disk(text.clone()));
        self.disk.as_ref().map(parse).transpose()
    }

    fn relay(&self) -> Result<Relay, SettingError> {
        match self.relay.as_deref() {
            None | Some("none") => Ok(Relay::None),
            Some(_) if self.lan_only.unwrap_or(false) => Ok(Relay::None),
            Some("public") => Ok(Relay::Public),
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => Ok(Relay::Own(url.to_owned())),
            Some(other) => Err(SettingError::Relay(other.to_owned())),
        }
    }

    /// The machine's name; the computer's, unless set.
    fn machine_name(&self) -> Result<String, SettingError> {
        match &self.name {
            Some(name) if border::label(name).is_empty() => Err(SettingError::Name),
            Some(name) => Ok(name.clone()),
            None => Ok(hive_host::name()),
        }
    }

    /// The node options for these settings.
    pub fn options(self, data: DataFolder) -> Result<NodeOptions, SettingError> {
        let name = self.machine_name()?;
        let (policy, relay) = (self.policy(), self.relay()?);
        let (memory_cap, disk_cap) = (self.memory_cap()?, self.disk_cap()?);
        let bind = self.bind.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Ok(NodeOptions {
            data: Some(data),
            // On loopback there is nobody to discover.
            discover: !bind.ip().is_loopback(),
            relay,
            lan_only: self.lan_only.unwrap_or(false),
            fetches: match (self.fetch_models.unwrap_or(true), self.lan_only.unwrap_or(false)) {
                (false, _) => Fetches::Nothing,
                (true, true) => Fetches::Machines,
                (true, false) => Fetches::MachinesAndHub,
            },
            share: self.share.unwrap_or(true),
            memory_cap,
            disk_cap,
            policy,
            ..NodeOptions::new(name, bind)
        })
    }
}

/// The smallest number allowed without a unit: a person who writes "8" does not mean eight bytes.
const LEAST_BARE_BYTES: f64 = 1e6;

/// Parses an amount of memory as people write it: "8GiB", "500 MB", "1073741824". 0 is zero in any unit.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" if number > 0.0 && number < LEAST_BARE_BYTES => return None,
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    Some((number * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_model_that_is_gone_is_not_asked_for() {
        let settings = Settings { model: Some("a/b".to_owned()), ..Settings::default() };
        assert_eq!((settings.model_if(|name| name == "a/b"), settings.model_if(|_| false)), (Some("a/b"), None));
        assert_eq!(Settings::default().model_if(|_| true), None);
    }

    #[test]
    fn a_machine_needs_a_name() {
        let named = |name: Option<&str>| Settings { name: name.map(str::to_owned), ..Settings::default() };
        assert_eq!(named(Some("Attic")).machine_name().unwrap(), "Attic");
        assert_eq!(named(None).machine_name().unwrap(), hive_host::name());
        for blank in ["", "  ", "\u{200b}"] {
            assert!(matches!(named(Some(blank)).machine_name(), Err(SettingError::Name)), "{blank:?}");
        }
    }

    #[test]
    fn the_download_limit_is_in_megabits() {
        let limit = |megabits| Settings { download_mbit_per_s: megabits, ..Settings::default() }.download_bytes_per_s();
        assert_eq!([limit(None), limit(Some(0)), limit(Some(8))], [None, None, NonZeroU64::new(1_000_000)]);
        assert_eq!(limit(Some(u64::MAX)), NonZeroU64::new(u64::MAX));
    }

    #[test]
    fn settings_are_read_and_typos_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), Settings::default());
        std::fs::write(folder.path().join(FILE), "name = \"Attic\"\nlan_only = true\n").unwrap();
        let settings = Settings::read(folder.path()).unwrap();
        assert_eq!((settings.name.as_deref(), settings.lan_only), (Some("Attic"), Some(true)));
        std::fs::write(folder.path().join(FILE), "shaer = false\n").unwrap();
        let message = Settings::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("config.toml") && message.contains("shaer"), "{message}");
        std::fs::write(folder.path().join(FILE), "accent = \"honeydew\"\n").unwrap();
        let message = Settings::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("honeydew") && message.contains("graphite"), "{message}");
        std::fs::write(folder.path().join(FILE), "language = \"de\"\n").unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap().language, Some(Language::De));
    }

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("8GiB"), Some(8 << 30));
        assert_eq!(parse_bytes("500 MB"), Some(500_000_000));
        assert_eq!(parse_bytes("1.5g"), Some(3 << 29));
        assert_eq!(parse_bytes("1073741824"), Some(1 << 30));
        assert_eq!(
            (parse_bytes("77"), parse_bytes("0.5"), parse_bytes("0"), parse_bytes("77b")),
            (None, None, Some(0), Some(77))
        );
        assert_eq!(parse_bytes("lots"), None);
        assert_eq!(parse_bytes("8 GiBs"), None);
    }
}
