//! How fast this machine computes. Plans use it before a machine has run a part of a large model.

use serde::{Deserialize, Serialize};

use crate::data::DataFolder;
use crate::membership::Membership;
use hive_protocol::Profile;

/// Measurements on one machine with one version of HiveMind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The chip, threads and version they apply to.
    machine: String,
    /// Decode speed with the starter model, in tokens per second.
    pub decode_tokens_per_s: f64,
    /// Weights read during that decode, in bytes per second.
    pub bytes_per_s: f64,
    /// Prefill speed, in tokens per second.
    pub prefill_tokens_per_s: f64,
}

const FILE: &str = "speed.json";

/// The machine and version that a measurement applies to.
fn machine() -> String {
    let chip = hive_host::this().chip();
    format!("{chip}, {} threads, HiveMind {}", hive_host::threads(), env!("CARGO_PKG_VERSION"))
}

impl Speed {
    /// Measurements of this machine and version.
    pub fn here(decode_tokens_per_s: f64, bytes_per_s: f64, prefill_tokens_per_s: f64) -> Self {
        Self { machine: machine(), decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s }
    }

    fn is_of_this_machine(&self) -> bool {
        self.machine == machine()
    }

    /// The saved measurements, if they apply to this machine and version. Otherwise, or if the file cannot be read, the
    /// caller measures again.
    pub fn kept(data: &DataFolder) -> Option<Self> {
        let kept: Result<Option<Self>, _> = data.read(FILE);
        let read = kept.inspect_err(|error| tracing::warn!("the speed of this machine is measured again: {error}"));
        read.ok().flatten().filter(Self::is_of_this_machine)
    }
}

impl Membership {
    /// Publishes this machine's measured speed and saves it.
    pub fn computes_at(&self, speed: &Speed) {
        if let Err(error) = self.save(FILE, speed) {
            tracing::debug!("the measured speed was not kept: {error}");
        }
        self.describe(|profile| {
            profile.decode_tokens_per_s = Some(speed.decode_tokens_per_s);
            profile.bytes_per_s = Some(speed.bytes_per_s);
            profile.prefill_tokens_per_s = Some(speed.prefill_tokens_per_s);
            true
        });
    }

    /// Publishes that this machine is `times` as fast as its profile says, and saves that.
    pub fn is_faster(&self, times: f64) {
        let Profile { decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s, .. } = self.profile();
        if let (Some(decode), Some(bytes), Some(prefill)) = (decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s) {
            self.computes_at(&Speed::here(decode * times, bytes * times, prefill));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_or_of_another_version_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let kept_of = |text: &str| {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            Speed::kept(&data)
        };
        let here = Speed::here(1.0, 2.0, 3.0);
        let text = serde_json::to_string(&here).unwrap();
        assert_eq!(kept_of(&text), Some(here));
        for other in ["[]", "", "{\"machine\": 7}", &text[..text.len() / 2]] {
            assert_eq!(kept_of(other), None, "{other}");
        }
    }
}
