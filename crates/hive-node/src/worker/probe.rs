//! A worker that tries to break out of its confinement, for `hivemind doctor` and for tests.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use hive_host::sandbox::{Confine, Confinement};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::protocol::encode;
use super::spawn::{SpawnError, spawn};
use super::start::Role;

/// What a probe tries its hand at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// A file that it was not given.
    pub secret: PathBuf,
    /// A folder that anyone may write to.
    pub folder: PathBuf,
}

/// What a probe could do; all of it should be `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escapes {
    /// Open a TCP or UDP socket.
    pub socket: bool,
    /// Read a file that it was not given.
    pub read: bool,
    /// Create, write or remove a file.
    pub write: bool,
    /// Start a program.
    pub program: bool,
    /// See the node's environment.
    pub environment: bool,
    /// Hold a file or socket of the node's.
    pub descriptor: bool,
}

impl Escapes {
    /// What got out, in words.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.socket, "network"),
            (self.read, "reading files"),
            (self.write, "writing files"),
            (self.program, "starting programs"),
            (self.environment, "the environment"),
            (self.descriptor, "open files"),
        ];
        all.into_iter().filter(|(got_out, _)| *got_out).map(|(_, name)| name).collect()
    }
}

/// Starts a confined worker that tries to break out.
pub async fn probe(targets: Targets) -> Result<(Confinement, Escapes), SpawnError> {
    let mut spawned = spawn(Role::Probe(targets), Confine::default())?;
    let mut said = Vec::new();
    spawned.answers.read_to_end(&mut said).await?;
    let message = said.get(4..).unwrap_or_default();
    match postcard::from_bytes(message) {
        Ok(found) => Ok(found),
        Err(_) => Err(std::io::Error::other(spawned.end.learn().await).into()),
    }
}

/// The worker's side.
pub(super) fn serve(targets: &Targets, confinement: Confinement, answers: &mut File) -> std::io::Result<()> {
    let found: (Confinement, Escapes) = (confinement, attempt(targets));
    answers.write_all(&encode(&found).map_err(std::io::Error::other)?)
}

fn attempt(Targets { secret, folder }: &Targets) -> Escapes {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let new = folder.join(format!("hivemind-probe-{}", std::process::id()));
    let created = OpenOptions::new().write(true).create(true).truncate(true).open(&new).is_ok();
    let _ = std::fs::remove_file(&new);
    // What was open in the node when it started this process: everything but the pipes is its business alone.
    let descriptors = (3..256).filter(|number| rustix_knows(*number)).count();
    Escapes {
        socket: TcpListener::bind(any).is_ok() || UdpSocket::bind(any).is_ok(),
        read: File::open(secret).is_ok() || std::fs::read_dir(folder).is_ok(),
        write: created || OpenOptions::new().append(true).open(secret).is_ok(),
        program: Command::new("/bin/true").status().is_ok(),
        environment: std::env::var_os("HOME").is_some() || std::env::var_os("PATH").is_some(),
        // The pair that this process made of its own pipes.
        descriptor: descriptors > 2,
    }
}

/// Whether a descriptor of this number is open.
fn rustix_knows(number: u32) -> bool {
    std::path::Path::new("/dev/fd").join(number.to_string()).symlink_metadata().is_ok()
}
