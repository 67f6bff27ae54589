//! The text of entries.

use hive_types::grouped;

use super::entry::{Asked, AuditEvent, Entry, PairingEnd, Refusal};

impl Entry {
    /// The entry's text, without the time: "mallory loaded layers 1–16 of SmolLM2 (204 MB)".
    pub(crate) fn words(&self) -> String {
        of(self)
    }
}

fn of(entry: &Entry) -> String {
    let machine = entry.machine.as_ref();
    let name = machine.map_or("a machine", |machine| machine.name.as_str());
    let key = machine.map(|machine| machine.fingerprint.as_str()).unwrap_or_default();
    match &entry.event {
        AuditEvent::Started { version } => format!("HiveMind {version} started"),
        AuditEvent::Stopped => "HiveMind stopped".to_owned(),
        AuditEvent::PairingAsked { by_them: true, invited, code } => {
            let with = if *invited { " with an invitation" } else { "" };
            format!("{name} ({key}) asked to join{with}, code {code}")
        }
        AuditEvent::PairingAsked { by_them: false, code, .. } => {
            format!("this machine asked to pair with {name} ({key}), code {code}")
        }
        AuditEvent::Approved { code } => format!("{name} ({key}) was approved, code {code}"),
        AuditEvent::PairingEnded { how } => match how {
            PairingEnd::DeniedHere => format!("{name} ({key}) was denied"),
            PairingEnd::DeniedThere => format!("the owner of {name} ({key}) said no"),
            PairingEnd::TimedOut => format!("{name} ({key}) was not approved in time"),
            PairingEnd::BrokeOff => format!("{name} ({key}) broke off before both owners had approved"),
            PairingEnd::NotKept => format!("{name} ({key}) could not be approved: the disk cannot be written"),
        },
        AuditEvent::NameTaken { approved } => {
            format!("another machine ({key}) calls itself {name}, like the approved one ({approved})")
        }
        AuditEvent::Removed => format!("{name} ({key}) was removed"),
        AuditEvent::Restored => format!("{name} ({key}) was put back"),
        AuditEvent::Blocked => format!("{name} ({key}) was blocked"),
        AuditEvent::Renamed { name: new } => format!("{name} ({key}) is called {new} from now on"),
        AuditEvent::Invited { valid_for_s } => {
            format!("an invitation was made, valid for {}", duration(*valid_for_s))
        }
        AuditEvent::RightsChanged { memory, prompts, memory_limit_bytes, session_limit } => {
            let may = |allowed: bool| if allowed { "may" } else { "may not" };
            let limits = [
                memory_limit_bytes.map(|bytes| format!("at most {}", megabytes(bytes))),
                session_limit.map(|limit| format!("at most {} at a time", many(u64::from(limit), "answer"))),
            ];
            let limits = limits.into_iter().flatten().collect::<Vec<_>>().join(", ");
            let limits = if limits.is_empty() { limits } else { format!(" ({limits})") };
            let (memory, prompts) = (may(*memory), may(*prompts));
            format!("{name} {memory} use this machine's memory{limits} and {prompts} see your prompts")
        }
        AuditEvent::AdminAction { program, action } => format!("the program \"{program}\" did this: {action}"),
        AuditEvent::Loaded { model, layers, bytes, standby } => {
            let copy = if *standby { "a standby replica of " } else { "" };
            format!("{name} loaded {copy}{} of {model} ({})", range(*layers), megabytes(*bytes))
        }
        AuditEvent::Freed { model, layers } => format!("{} of {model} for {name} were freed", range(*layers)),
        AuditEvent::Used { sessions, tokens, seconds } => {
            let (sessions, tokens) = (many(*sessions, "conversation"), many(*tokens, "token"));
            format!("{name} used this machine: {sessions}, {tokens}, {}", duration(*seconds))
        }
        AuditEvent::Refused { asked, why } => {
            let times = if entry.count > 1 { format!(", {} times", grouped(entry.count)) } else { String::new() };
            format!("{name} was refused {}: {}{times}", what(*asked), because(*why))
        }
        AuditEvent::LeftOut { entries } => match machine {
            Some(_) => format!("{} more about {name} not recorded that day", many_entries(*entries)),
            None => format!("{} more not recorded that day", many_entries(*entries)),
        },
        AuditEvent::Lost { entries } => format!("{} could not be written to the disk", many_entries(*entries)),
    }
}

fn what(asked: Asked) -> &'static str {
    match asked {
        Asked::Pairing => "a pairing",
        Asked::Load => "to load layers",
        Asked::Connect => "to connect layers",
        Asked::Session => "a conversation",
        Asked::HandOver => "to move conversations",
        Asked::Other => "a request",
    }
}

fn because(why: Refusal) -> &'static str {
    match why {
        Refusal::NotSharing => "this machine was not sharing",
        Refusal::NoRoom => "no room within the memory given",
        Refusal::NotAllowed => "it had no right to it",
        Refusal::NotPossible => "it could not be done",
        Refusal::TooMany => "too many had asked",
        Refusal::Invitation => "the invitation was not valid",
    }
}

/// "layers 1–16", counted from 1 as people do.
fn range([start, end]: [usize; 2]) -> String {
    if start.checked_add(1) == Some(end) {
        format!("layer {end}")
    } else {
        format!("layers {}–{end}", start.saturating_add(1))
    }
}

fn megabytes(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{} MB", hive_types::megabytes(bytes))
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn many(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn many_entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{} entries", grouped(count)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Machine;

    #[test]
    fn entries_read_as_sentences() {
        let machine = || {
            let (id, name, fingerprint) = ("id".to_owned(), "mallory".to_owned(), "otter-lamp-river".to_owned());
            Some(Machine { id, name, fingerprint })
        };
        let words = |event| Entry::now(machine(), event).words();
        let model = "SmolLM2".to_owned();
        assert_eq!(
            words(AuditEvent::Loaded { model, layers: [0, 16], bytes: 203_900_000, standby: false }),
            "mallory loaded layers 1–16 of SmolLM2 (204 MB)"
        );
        assert_eq!(
            words(AuditEvent::Approved { code: "482 915".to_owned() }),
            "mallory (otter-lamp-river) was approved, code 482 915"
        );
        assert_eq!(
            words(AuditEvent::Used { sessions: 1, tokens: 12_345, seconds: 150 }),
            "mallory used this machine: 1 conversation, 12,345 tokens, 2 min"
        );
        let refused = AuditEvent::Refused { asked: Asked::Load, why: Refusal::NotSharing };
        let refused = Entry { count: 4812, ..Entry::now(machine(), refused) };
        assert_eq!(refused.words(), "mallory was refused to load layers: this machine was not sharing, 4,812 times");
        assert_eq!(
            Entry::now(None, AuditEvent::Invited { valid_for_s: 86_400 }).words(),
            "an invitation was made, valid for 24 h"
        );
    }
}
