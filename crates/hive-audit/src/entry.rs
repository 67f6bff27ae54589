//! The entries of the log, and the events they record.

use hive_net::{PeerId, fingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An event that an owner may want to read about later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent {
    /// The node started.
    Started {
        /// The version of HiveMind.
        version: String,
    },
    /// The node stopped cleanly. A start without a preceding stop means a crash or a kill.
    Stopped,
    /// A code was shown on both machines.
    PairingAsked {
        /// Whether the other machine asked.
        by_them: bool,
        /// Whether it used an invitation.
        invited: bool,
        /// The six-digit code, as "482 915".
        code: String,
    },
    /// Both owners approved.
    Approved {
        /// The six-digit code that they compared.
        code: String,
    },
    /// A pairing ended without an approval.
    PairingEnded {
        /// How it ended.
        how: PairingEnd,
    },
    /// The machine uses the name of a machine that was approved under another key.
    NameTaken {
        /// Three words of the approved machine's key.
        approved: String,
    },
    /// The owner removed the machine.
    Removed,
    /// The owner undid the machine's removal.
    Restored,
    /// The owner blocked the machine.
    Blocked,
    /// The owner renamed the machine.
    Renamed {
        /// The new name.
        name: String,
    },
    /// An invitation was created.
    Invited {
        /// Its validity, in seconds.
        valid_for_s: u64,
    },
    /// The machine's rights here were changed.
    RightsChanged {
        /// Whether it may use this machine's memory.
        memory: bool,
        /// Whether it may see the prompts of this machine's owner.
        prompts: bool,
        /// Maximum memory it may use here, in bytes, if limited.
        #[serde(default)]
        memory_limit_bytes: Option<u64>,
        /// Maximum number of its answers computed here at the same time, if limited.
        #[serde(default)]
        session_limit: Option<u32>,
    },
    /// A program used its token for something that only an owner should do.
    AdminAction {
        /// The name of the program's token.
        program: String,
        /// The program's action.
        action: String,
    },
    /// Another machine loaded layers here.
    Loaded {
        /// The model.
        model: String,
        /// Layers `[start, end)`.
        layers: [usize; 2],
        /// Memory reserved for them, in bytes.
        bytes: u64,
        /// Whether they are a standby replica.
        standby: bool,
    },
    /// The layers were freed.
    Freed {
        /// The model.
        model: String,
        /// Layers `[start, end)`.
        layers: [usize; 2],
    },
    /// Another machine's use of its layers here: per ten minutes in the file, per hour when read.
    Used {
        /// Sessions opened.
        sessions: u64,
        /// Tokens that passed through the layers.
        tokens: u64,
        /// Time with a session in progress, in seconds.
        seconds: u64,
    },
    /// Another machine was refused something; counted per hour.
    Refused {
        /// The kind of its request.
        asked: Asked,
        /// Why it was refused.
        why: Refusal,
    },
    /// Entries were dropped because there were too many of their kind that day.
    LeftOut {
        /// How many.
        entries: u64,
    },
    /// Entries could not be written to disk.
    Lost {
        /// How many.
        entries: u64,
    },
}

/// How a pairing ended without an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairingEnd {
    /// This owner denied it.
    DeniedHere,
    /// The other owner denied it.
    DeniedThere,
    /// It was not decided in time.
    TimedOut,
    /// The other machine disconnected.
    BrokeOff,
    /// Both owners approved, but the approval could not be saved, so the machine was not admitted.
    NotKept,
}

/// The kind of another machine's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To pair.
    Pairing,
    /// To load layers.
    Load,
    /// To connect layers to other machines, or to change those connections.
    Connect,
    /// To open, close or continue a conversation.
    Session,
    /// To move conversations from one machine to another.
    HandOver,
    /// Something else.
    Other,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// This machine does not share now.
    NotSharing,
    /// It does not fit within the memory that the owner shares.
    NoRoom,
    /// The machine has no right to it: it belongs to another machine, or the owner has not allowed it.
    NotAllowed,
    /// It cannot be done here.
    NotPossible,
    /// Too many machines asked.
    TooMany,
    /// The invitation is invalid or has expired.
    Invitation,
}

/// The machine that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its key, as text.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
}

impl Machine {
    /// The machine with this key, under its current name.
    pub fn new(peer: PeerId, name: &str) -> Self {
        Self { id: peer.to_text(), name: hive_net::border::name(name), fingerprint: fingerprint(peer) }
    }

    /// Whether a person means this machine: by its name, its three words, or the beginning of its key.
    pub(super) fn is_called(&self, who: &str) -> bool {
        let begins = who.len() >= SHORTEST_ID && self.id.starts_with(&who.to_lowercase());
        begins || self.fingerprint.eq_ignore_ascii_case(who) || self.name.to_lowercase() == who.to_lowercase()
    }
}

/// Minimum length of a key's beginning; a shorter one could be anybody's.
const SHORTEST_ID: usize = 4;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// UTC, to the second. For a count, the time of its first event.
    pub at: Timestamp,
    /// The machine it is about; `None` for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// The number of events.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
}

fn once() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_once(count: &u64) -> bool {
    *count == 1
}

impl Entry {
    pub(super) fn now(machine: Option<Machine>, event: AuditEvent) -> Self {
        Self::at(Timestamp::now(), machine, event)
    }

    pub(super) fn at(at: Timestamp, machine: Option<Machine>, event: AuditEvent) -> Self {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self { at, machine, event, count: 1 }
    }

    /// Adds an entry of the same kind to this one.
    pub(super) fn add(&mut self, other: &Self) {
        self.count += other.count;
        if let (
            AuditEvent::Used { sessions, tokens, seconds },
            AuditEvent::Used { sessions: s, tokens: t, seconds: d },
        ) = (&mut self.event, &other.event)
        {
            (*sessions, *tokens, *seconds) = (*sessions + s, *tokens + t, *seconds + d);
            self.count = 1;
        }
    }
}

/// The kinds of entries that are counted together, each per machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Used(Option<String>),
    Refused(Option<String>, Asked, Refusal),
}

impl Kind {
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let machine = entry.machine.as_ref().map(|machine| machine.id.clone());
        match entry.event {
            AuditEvent::Used { .. } => Some(Self::Used(machine)),
            AuditEvent::Refused { asked, why } => Some(Self::Refused(machine, asked, why)),
            _ => None,
        }
    }
}
