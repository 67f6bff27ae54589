//! How fast this machine computes: what machines tell each other before any of them has carried a part of a large model.

use serde::{Deserialize, Serialize};

use crate::data::DataFolder;
use crate::membership::Membership;
use hive_protocol::Profile;

/// Figures for one machine and one version of HiveMind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// What it was measured with: the chip, the threads, the version.
    machine: String,
    /// Tokens of an answer in a second, by the starter model.
    pub decode_tokens_per_s: f64,
    /// Bytes of weights that are read in a second meanwhile.
    pub bytes_per_s: f64,
    /// Tokens of a prompt in a second.
    pub prefill_tokens_per_s: f64,
}

const FILE: &str = "speed.json";

/// What a measurement is good for.
fn machine() -> String {
    let chip = hive_host::this().chip();
    format!("{chip}, {} threads, HiveMind {}", hive_host::threads(), env!("CARGO_PKG_VERSION"))
}

impl Speed {
    /// Figures for this machine as it is.
    pub fn here(decode_tokens_per_s: f64, bytes_per_s: f64, prefill_tokens_per_s: f64) -> Self {
        Self { machine: machine(), decode_tokens_per_s, bytes_per_s, prefill_tokens_per_s }
    }

    fn is_of_this_machine(&self) -> bool {
        self.machine == machine()
    }

    /// What was measured before, on this machine and with this version. Anything else is measured again: a file that cannot
    /// be read is no reason not to start.
    pub fn kept(data: &DataFolder) -> Option<Self> {
        let kept: Result<Option<Self>, _> = data.read(FILE);
        let read = kept.inspect_err(|error| tracing::warn!("the speed of this machine is measured again: {error}"));
        read.ok().flatten().filter(Self::is_of_this_machine)
    }
}

impl Membership {
    /// Says from now on how fast this machine has turned out to be; remembered.
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

    /// Says from now on that this machine is so many times as fast as it said; remembered.
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
