//! A worker's first message: the version of HiveMind, the worker's role, and its confinement.

use std::io::{Error, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use data_encoding::HEXLOWER;
use hive_host::sandbox::{Confine, Confinement, Step, confine, confine_again};
use serde::{Deserialize, Serialize};

/// Limit of a start message, which has only some paths.
const MAX_START_BYTES: usize = 1 << 20;

/// Passes the start message to a worker that executes itself again.
const AGAIN: &str = "HIVEMIND_WORKER_AGAIN";

/// The role of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// Holds layers and computes.
    Shard,
    /// Reads a model's headers, tokenizer and chat template.
    Text(PathBuf),
    /// Tries to escape, and reports its success.
    Probe(super::probe::Targets),
}

impl Role {
    /// The process name in process lists.
    pub(super) fn process_name(&self) -> &'static str {
        match self {
            Self::Shard => "hivemind-shard",
            Self::Text(_) => "hivemind-text",
            Self::Probe(_) => "hivemind-probe",
        }
    }
}

/// The first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// First, so that any version can read it.
    version: String,
    role: Role,
    confine: Confine,
}

impl Start {
    pub(super) fn new(role: Role, confine: Confine) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), role, confine }
    }

    /// Reads the first message, and permanently drops every privilege that the role does not need.
    pub(super) fn take(orders: &mut impl Read) -> std::io::Result<(Role, Confinement)> {
        if let Some(read_before) = std::env::var_os(AGAIN) {
            let message = HEXLOWER.decode(read_before.as_encoded_bytes()).map_err(Error::other)?;
            let start: Self = postcard::from_bytes(&message).map_err(Error::other)?;
            let confinement = confine_again(&start.confine).map_err(Error::other)?;
            return Ok((start.role, confinement));
        }
        let start = Self::read(orders)?;
        match confine(&start.confine).map_err(Error::other)? {
            Step::Done(confinement) => Ok((start.role, confinement)),
            Step::Restart => Err(start.restart()),
        }
    }

    /// Executes this program again; returns only on error.
    fn restart(&self) -> Error {
        let message = match postcard::to_allocvec(self) {
            Ok(message) => HEXLOWER.encode(&message),
            Err(error) => return Error::other(error),
        };
        let mut again = Command::new("/proc/self/exe");
        again.arg0(self.role.process_name()).arg(super::SUBCOMMAND).env(AGAIN, message).exec()
    }

    /// Reads the first message, and no byte beyond it.
    fn read(orders: &mut impl Read) -> std::io::Result<Self> {
        let mut length = [0; 4];
        orders.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_START_BYTES {
            return Err(Error::other("the node's first message is too long"));
        }
        let mut message = vec![0; length];
        orders.read_exact(&mut message)?;
        let (version, _) = postcard::take_from_bytes::<String>(&message).map_err(Error::other)?;
        if version != env!("CARGO_PKG_VERSION") {
            let here = env!("CARGO_PKG_VERSION");
            let why = format!("this worker is of HiveMind {here}, its node of {version}; restart HiveMind");
            return Err(Error::other(why));
        }
        postcard::from_bytes(&message).map_err(Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::encode;
    use super::*;

    #[test]
    fn a_start_is_read_whole_and_nothing_after_it() {
        let start = Start::new(Role::Text("/m.gguf".into()), Confine::default());
        let mut bytes = encode(&start).unwrap();
        bytes.extend(b"next");
        let mut pipe = bytes.as_slice();
        assert_eq!(Start::read(&mut pipe).unwrap(), start);
        assert_eq!(pipe, b"next");
    }

    #[test]
    fn another_version_is_named() {
        let start = Start { version: "9.9.9".to_owned(), ..Start::new(Role::Shard, Confine::default()) };
        let why = Start::read(&mut encode(&start).unwrap().as_slice()).unwrap_err().to_string();
        assert!(why.contains("9.9.9") && why.contains("restart"), "{why}");
        // Whatever a later version appends.
        let mut bytes = postcard::to_allocvec(&"9.9.9").unwrap();
        bytes.extend([255; 9]);
        let message: Vec<u8> = (bytes.len() as u32).to_le_bytes().into_iter().chain(bytes).collect();
        assert!(Start::read(&mut message.as_slice()).unwrap_err().to_string().contains("9.9.9"));
    }
}
