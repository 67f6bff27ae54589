//! A worker that tries to escape its confinement, for `hivemind doctor` and for tests.

mod targets;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

use hive_host::sandbox::{Confine, Confinement};
use rustix::process::{getppid, test_kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::protocol::encode;
use super::spawn::{SpawnError, spawn};
use super::start::Role;
use super::{process, text};

pub use targets::Targets;

/// An escape that a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Escape {
    /// It can open a TCP or UDP socket.
    Network,
    /// It can read a file or folder that it was not given.
    Read,
    /// It can create, write or remove a file.
    Write,
    /// It can start a program.
    Program,
    /// It can send a signal to another process.
    Signal,
    /// It sees the node's environment.
    Environment,
    /// It holds a file or socket of the node.
    Descriptor,
}

impl Escape {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "the network",
            Self::Read => "files of others",
            Self::Write => "files it may not write",
            Self::Program => "other programs",
            Self::Signal => "other processes",
            Self::Environment => "the environment",
            Self::Descriptor => "open files",
        }
    }
}

/// Starts confined workers that try to escape, one for each confinement used on this machine. Returns the confinement
/// in force for all of them, and every escape that one of them found.
pub async fn probe(targets: Targets) -> Result<(Confinement, Vec<Escape>), SpawnError> {
    let (mut together, mut escapes) = attempts(targets.clone(), text::confine(Vec::new())).await?;
    // Without a GPU, shard and text workers have the same confinement.
    let computes = process::confine(Vec::new());
    if computes.gpu_cache.is_some() {
        let (confinement, found) = attempts(targets, computes).await?;
        together.files &= confinement.files;
        together.calls &= confinement.calls;
        escapes.extend(found);
        escapes.sort_unstable();
        escapes.dedup();
    }
    Ok((together, escapes))
}

/// Runs one probe.
async fn attempts(targets: Targets, confine: Confine) -> Result<(Confinement, Vec<Escape>), SpawnError> {
    let mut spawned = spawn(Role::Probe(targets), confine)?;
    let mut said = Vec::new();
    spawned.answers.read_to_end(&mut said).await?;
    let message = said.get(4..).unwrap_or_default();
    match postcard::from_bytes(message) {
        Ok(found) => Ok(found),
        Err(_) => Err(std::io::Error::other(spawned.end.learn().await.to_string()).into()),
    }
}

/// The worker's side.
pub(super) fn serve(targets: &Targets, confinement: Confinement, answers: &mut File) -> std::io::Result<()> {
    let found: (Confinement, Vec<Escape>) = (confinement, attempt(targets));
    answers.write_all(&encode(&found).map_err(std::io::Error::other)?)
}

fn attempt(Targets { secret, folder }: &Targets) -> Vec<Escape> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let new = folder.join(format!("hivemind-probe-{}", std::process::id()));
    let created = OpenOptions::new().write(true).create(true).truncate(true).open(&new).is_ok();
    let _ = std::fs::remove_file(&new);
    // Sets the permissions it already has: even if that works, nothing changes.
    let changed = std::fs::metadata(secret).and_then(|about| std::fs::set_permissions(secret, about.permissions()));
    let found = [
        (Escape::Network, TcpListener::bind(any).is_ok() || UdpSocket::bind(any).is_ok()),
        (Escape::Read, File::open(secret).is_ok() || std::fs::read_dir(folder).is_ok()),
        (Escape::Write, created || changed.is_ok() || OpenOptions::new().append(true).open(secret).is_ok()),
        (Escape::Program, Command::new("/bin/true").status().is_ok()),
        (Escape::Signal, getppid().is_some_and(|node| test_kill_process(node).is_ok())),
        (Escape::Environment, ["HOME", "PATH", "HF_TOKEN"].iter().any(|name| std::env::var_os(name).is_some())),
        // This process opened two descriptors itself, a pair of pipes; any other was inherited from the node.
        (Escape::Descriptor, (3..256).filter(|number| is_open(*number)).count() > 2),
    ];
    found.into_iter().filter(|(_, got_out)| *got_out).map(|(escape, _)| escape).collect()
}

/// Whether this descriptor is open.
fn is_open(number: u32) -> bool {
    std::path::Path::new("/dev/fd").join(number.to_string()).symlink_metadata().is_ok()
}
