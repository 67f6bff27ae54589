//! What a machine tells about itself, whatever its system.

use std::path::Path;
use std::time::Duration;

use crate::awake::{KeepAwake, KeepAwakeError};
use crate::energy::{Heat, Power};
use crate::interfaces::Interface;
use crate::secret::SecretStore;

/// What this machine tells about itself. Every answer is a snapshot; `None` is "the system does not say".
pub trait Host: Send + Sync {
    /// Identifies the hardware or installation, and survives restarts; a copy of the disk has another one.
    fn machine_id(&self) -> Option<String>;

    /// The processor as its maker calls it: "Apple M4 Pro", "AMD EPYC 9B14".
    fn chip(&self) -> String;

    /// Interfaces that are up and have an address.
    fn interfaces(&self) -> Vec<Interface>;

    /// The most memory the GPU may hold at a time, where it shares the machine's.
    fn gpu_working_set_bytes(&self) -> Option<u64>;

    /// Where the power comes from.
    fn power(&self) -> Power;

    /// How hot the machine is.
    fn heat(&self) -> Heat;

    /// How long nobody has touched keyboard, mouse or screen.
    fn idle(&self) -> Option<Duration>;

    /// Keeps the machine from falling asleep while the result lives; the display may still turn off.
    fn keep_awake(&self, reason: &str) -> Result<KeepAwake, KeepAwakeError>;

    /// Where secrets are kept: the Keychain, or files that only the owner reads in `folder`.
    fn secrets(&self, folder: &Path) -> Box<dyn SecretStore>;
}
