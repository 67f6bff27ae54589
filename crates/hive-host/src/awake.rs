//! Keeps the machine awake.

/// Prevents sleep until dropped.
pub struct KeepAwake {
    _awake: keepawake::KeepAwake,
}

/// Why the machine cannot be kept awake.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot be kept awake: {0}")]
pub struct KeepAwakeError(String);

pub(crate) fn keep_awake(reason: &str) -> Result<KeepAwake, KeepAwakeError> {
    let created = keepawake::Builder::default()
        .idle(true)
        .reason(reason)
        .app_name("HiveMind")
        .app_reverse_domain("dev.hivemind.desktop")
        .create();
    created.map(|awake| KeepAwake { _awake: awake }).map_err(|error| KeepAwakeError(error.to_string()))
}
