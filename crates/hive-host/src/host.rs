//! The system-independent interface to the machine.

use std::path::Path;
use std::time::Duration;

use crate::awake::{KeepAwake, KeepAwakeError};
use crate::energy::{Heat, Power};
use crate::interfaces::Interface;
use crate::secret::SecretStore;

/// The machine as its system reports it. Every result is a snapshot; `None` means that the system does not say.
pub trait Host: Send + Sync {
    /// Identifies the hardware or installation. Survives restarts; differs on a cloned disk.
    fn machine_id(&self) -> Option<String>;

    /// The processor's product name: "Apple M4 Pro", "AMD EPYC 9B14".
    fn chip(&self) -> String;

    /// Interfaces that are up and have an address.
    fn interfaces(&self) -> Vec<Interface>;

    /// The GPU's memory limit in bytes, if it shares the machine's memory.
    fn gpu_working_set_bytes(&self) -> Option<u64>;

    /// The power source.
    fn power(&self) -> Power;

    /// The thermal state.
    fn heat(&self) -> Heat;

    /// Time since the last keyboard, mouse or touch input.
    fn idle(&self) -> Option<Duration>;

    /// Keeps the machine awake until the result is dropped; the display may still turn off.
    fn keep_awake(&self, reason: &str) -> Result<KeepAwake, KeepAwakeError>;

    /// The secret store: the Keychain, or private files in `folder`.
    fn secrets(&self, folder: &Path) -> Box<dyn SecretStore>;
}
