//! What the log holds: events, and the lines they become.

use hive_net::{PeerId, fingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that an owner may want to read later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AuditEvent {
    /// The node started.
    Started {
        /// The version of HiveMind.
        version: String,
    },
    /// The node stopped in peace. A start without a stop before it was a crash or a kill.
    Stopped,
    /// A code was shown on both machines.
    PairingAsked {
        /// Whether the other machine asked.
        by_them: bool,
        /// Whether it came with an invitation.
        invited: bool,
        /// The six digits, as "482 915".
        code: String,
    },
    /// Both owners approved.
    Approved {
        /// The six digits that they compared.
        code: String,
    },
    /// A pairing ended without an approval.
    PairingEnded {
        /// How.
        how: PairingEnd,
    },
    /// The machine calls itself as one does that was approved under another key.
    NameTaken {
        /// Three words of the approved machine's key.
        approved: String,
    },
    /// The owner took the machine out.
    Removed,
    /// The owner refuses the machine everything from now on.
    Blocked,
    /// The owner calls the machine otherwise.
    Renamed {
        /// The new name.
        name: String,
    },
    /// An invitation was made.
    Invited {
        /// How long it is valid, in seconds.
        valid_for_s: u64,
    },
    /// What a machine may do here was changed.
    RightsChanged {
        /// Whether it may use this machine's memory.
        memory: bool,
        /// Whether it may see the prompts of this machine's owner.
        prompts: bool,
        /// The most memory it may use here, in bytes, if there is a limit.
        #[serde(default)]
        memory_limit_bytes: Option<u64>,
        /// The most of its answers that are computed here at a time, if there is a limit.
        #[serde(default)]
        session_limit: Option<u32>,
    },
    /// A program used its token for something that only an owner should do.
    AdminAction {
        /// The name of the program's token.
        program: String,
        /// What it did.
        action: String,
    },
    /// Layers were loaded here for another machine.
    Loaded {
        /// The model.
        model: String,
        /// Layers `[start, end)`.
        layers: [usize; 2],
        /// Memory set aside for them, in bytes.
        bytes: u64,
        /// Whether they stand by as a copy.
        standby: bool,
    },
    /// They are out of memory again.
    Freed {
        /// The model.
        model: String,
        /// Layers `[start, end)`.
        layers: [usize; 2],
    },
    /// What another machine's layers computed here, within ten minutes in the file, within an hour when it is read.
    Used {
        /// Conversations that were opened.
        sessions: u64,
        /// Tokens that passed the layers.
        tokens: u64,
        /// Time with a conversation in progress, in seconds.
        seconds: u64,
    },
    /// Another machine was refused something; counted by the hour.
    Refused {
        /// What it asked for.
        asked: Asked,
        /// Why it was refused.
        why: Refusal,
    },
    /// Entries were left out, because there had been too many of their kind that day.
    LeftOut {
        /// How many.
        entries: u64,
    },
    /// Entries could not be written to the disk.
    Lost {
        /// How many.
        entries: u64,
    },
}

/// How a pairing ended without an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairingEnd {
    /// This owner said no.
    DeniedHere,
    /// The other owner said no.
    DeniedThere,
    /// Nobody decided in time.
    TimedOut,
    /// The other machine broke off.
    BrokeOff,
    /// It was approved, but that could not be written to the disk, so it is not in.
    NotKept,
}

/// What another machine asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To pair.
    Pairing,
    /// To load layers.
    Load,
    /// To connect layers to other machines, or to change what they are connected to.
    Connect,
    /// To open, close or continue a conversation.
    Session,
    /// To carry conversations from one machine to another.
    HandOver,
    /// Something else.
    Other,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// This machine does not share at present.
    NotSharing,
    /// There is no room within what the owner gives.
    NoRoom,
    /// It has no right to it: it is another machine's, or its owner has not allowed it.
    NotAllowed,
    /// It cannot be done here.
    NotPossible,
    /// Too many have asked.
    TooMany,
    /// The invitation is not valid (any more).
    Invitation,
}

/// The machine that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its key, as text.
    pub id: String,
    /// What it was called at that time.
    pub name: String,
    /// Three words of its key.
    pub fingerprint: String,
}

impl Machine {
    /// The machine of this key, by the name it has now.
    pub fn new(peer: PeerId, name: &str) -> Self {
        Self { id: peer.to_text(), name: hive_net::border::name(name), fingerprint: fingerprint(peer) }
    }

    /// Whether a person means this machine: by its name, its three words, or the beginning of its key.
    pub(super) fn is_called(&self, who: &str) -> bool {
        let begins = who.len() >= SHORTEST_ID && self.id.starts_with(&who.to_lowercase());
        begins || self.fingerprint.eq_ignore_ascii_case(who) || self.name.to_lowercase() == who.to_lowercase()
    }
}

/// Less of a key could be anybody's.
const SHORTEST_ID: usize = 4;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in UTC, to the second; of a count, when the first of it happened.
    pub at: Timestamp,
    /// The machine it is about, unless it is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// How often.
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

    /// Adds another entry of the same kind.
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

/// Entries that are counted together: those of one kind about one machine.
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
