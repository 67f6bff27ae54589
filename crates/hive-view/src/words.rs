//! Every word that the view model writes, in each language. Both have the same entries, or this does not compile.
//!
//! What the node says about machines comes as values, and in English for whoever has no words for them.

use hive_types::{Absence, Condition, Language, LinkKind, NotSharing};

/// What a language says.
pub(crate) struct Words {
    pub(crate) share: &'static str,
    pub(crate) pause: &'static str,
    pub(crate) resume: &'static str,
    pub(crate) machines: &'static str,
    pub(crate) this_machine: &'static str,
    pub(crate) not_sharing: &'static str,
    pub(crate) requests: &'static str,
    pub(crate) no_requests: &'static str,
    pub(crate) awaited: &'static str,
    pub(crate) approve: fn(&str) -> String,
    pub(crate) deny: &'static str,
    pub(crate) overview: &'static str,
    pub(crate) chat: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) quit: &'static str,
    pub(crate) update: UpdateWords,
    pub(crate) line: LineWords,
    pub(crate) link: fn(LinkKind) -> &'static str,
    pub(crate) condition: fn(Condition) -> &'static str,
    /// Why a machine is away; nothing if there are no words for it here.
    pub(crate) absence: fn(&Absence) -> Option<String>,
    /// Why a machine does not share; nothing if there are no words for it here.
    pub(crate) kept_from_sharing: fn(NotSharing) -> Option<String>,
}

/// The menu entry of an update.
pub(crate) struct UpdateWords {
    pub(crate) check: &'static str,
    pub(crate) checking: &'static str,
    pub(crate) found: fn(&str) -> String,
    pub(crate) fetching: fn(&str, u32) -> String,
    pub(crate) ready: fn(&str) -> String,
    pub(crate) failed: &'static str,
}

/// The line about this machine and its swarm.
pub(crate) struct LineWords {
    pub(crate) together: fn(usize) -> String,
    pub(crate) alone: &'static str,
    pub(crate) one_away: fn(&str) -> String,
    pub(crate) one_not_sharing: fn(&str) -> String,
    pub(crate) all_away: fn(usize) -> String,
    pub(crate) nobody_sharing: &'static str,
}

/// The words of a language.
pub(crate) fn words(language: Language) -> &'static Words {
    match language {
        Language::En => &ENGLISH,
        Language::De => &GERMAN,
    }
}

/// A number with this many decimals, and its unit.
pub(crate) fn unit(language: Language, value: f64, decimals: usize, name: &str) -> String {
    let number = format!("{value:.decimals$}");
    match language {
        Language::En => format!("{number} {name}"),
        // A number does not leave its unit at the end of a line.
        Language::De => format!("{}\u{a0}{name}", number.replace('.', ",")),
    }
}

static ENGLISH: Words = Words {
    share: "Share Compute",
    pause: "Pause for an Hour",
    resume: "Resume Sharing",
    machines: "Machines",
    this_machine: "This machine",
    not_sharing: "not sharing",
    requests: "Requests",
    no_requests: "No requests",
    awaited: "Approved here; waiting for the other machine",
    approve: |code| format!("Approve: both show {code}"),
    deny: "Deny",
    overview: "Show Overview…",
    chat: "Open Chat…",
    settings: "Settings…",
    quit: "Quit HiveMind",
    update: UpdateWords {
        check: "Check for Updates…",
        checking: "Checking for Updates…",
        found: |version| format!("Update to {version}…"),
        fetching: |version, percent| format!("Downloading {version}: {percent}%"),
        ready: |version| format!("Restart to Update to {version}"),
        failed: "Update Failed. Try Again…",
    },
    line: LineWords {
        together: |machines| format!("Sharing · {machines} machines"),
        alone: "Sharing · no other machines yet",
        one_away: |name| format!("Sharing · {name} is away"),
        one_not_sharing: |name| format!("Sharing · {name} is not sharing"),
        all_away: |machines| format!("Sharing · {machines} machines are away"),
        nobody_sharing: "Sharing · no other machine is sharing",
    },
    link: |kind| match kind {
        LinkKind::Loopback => "Same computer",
        LinkKind::Thunderbolt => "Thunderbolt",
        LinkKind::Ethernet => "Ethernet",
        LinkKind::Wifi => "Wi-Fi",
        LinkKind::Vpn => "VPN",
        LinkKind::Relay => "Relay",
        LinkKind::Other => "Network",
    },
    condition: Condition::explain,
    absence: |why| (*why != Absence::Unknown).then(|| why.to_string()),
    kept_from_sharing: |why| (why != NotSharing::Unknown).then(|| why.to_string()),
};

static GERMAN: Words = Words {
    share: "Rechenleistung freigeben",
    pause: "Eine Stunde pausieren",
    resume: "Freigabe fortsetzen",
    machines: "Rechner",
    this_machine: "Dieser Rechner",
    not_sharing: "nicht freigegeben",
    requests: "Anfragen",
    no_requests: "Keine Anfragen",
    awaited: "Hier zugelassen; der andere Rechner fehlt noch",
    approve: |code| format!("Zulassen: Beide zeigen {code}"),
    deny: "Ablehnen",
    overview: "Übersicht zeigen …",
    chat: "Chat öffnen …",
    settings: "Einstellungen …",
    quit: "HiveMind beenden",
    update: UpdateWords {
        check: "Nach Updates suchen …",
        checking: "Updates werden gesucht …",
        found: |version| format!("Auf {version} aktualisieren …"),
        fetching: |version, percent| format!("{version} wird geladen: {percent}\u{a0}%"),
        ready: |version| format!("Neustart für Update auf {version}"),
        failed: "Update fehlgeschlagen. Erneut versuchen …",
    },
    line: LineWords {
        together: |machines| format!("Freigegeben · {machines} Rechner"),
        alone: "Freigegeben · noch kein anderer Rechner",
        one_away: |name| format!("Freigegeben · {name} ist abwesend"),
        one_not_sharing: |name| format!("Freigegeben · {name} gibt nichts frei"),
        all_away: |machines| format!("Freigegeben · {machines} Rechner sind abwesend"),
        nobody_sharing: "Freigegeben · kein anderer Rechner gibt etwas frei",
    },
    link: |kind| match kind {
        LinkKind::Loopback => "Selber Computer",
        LinkKind::Thunderbolt => "Thunderbolt",
        LinkKind::Ethernet => "Ethernet",
        LinkKind::Wifi => "WLAN",
        LinkKind::Vpn => "VPN",
        LinkKind::Relay => "Relay",
        LinkKind::Other => "Netzwerk",
    },
    condition: german_condition,
    absence: |why| {
        Some(match why {
            Absence::NotHeard => "noch nicht gemeldet".to_owned(),
            Absence::Silent => "antwortet nicht".to_owned(),
            Absence::Removed => "wurde entfernt".to_owned(),
            Absence::NotApproved { machine } => {
                format!("{machine} hat diesen Rechner nicht zugelassen; bitte neu koppeln")
            }
            Absence::BrokeOff => "hat diesen Rechner nicht zugelassen oder die Verbindung abgebrochen".to_owned(),
            Absence::TooOld { machine } => {
                format!(
                    "HiveMind auf {machine} ist zu alt für das HiveMind auf diesem Rechner; bitte {machine} aktualisieren"
                )
            }
            Absence::TooNew { machine } => {
                format!(
                    "HiveMind auf {machine} ist zu neu für das HiveMind auf diesem Rechner; bitte diesen Rechner aktualisieren"
                )
            }
            Absence::OtherVersion { machine } => {
                format!("auf {machine} läuft eine andere Version von HiveMind; bitte die ältere aktualisieren")
            }
            Absence::ElsewhereOnly => "in keinem Netzwerk dieses Rechners".to_owned(),
            Absence::TooManyAddresses => {
                "zu viele verschiedene Adressen gemeldet; in einer Minute neuer Versuch".to_owned()
            }
            Absence::Hindered { condition } => german_condition(*condition).to_owned(),
            Absence::Other { .. } | Absence::Unknown => return None,
        })
    },
    kept_from_sharing: |why| {
        let known = match why {
            NotSharing::SwitchedOff => "nicht freigegeben",
            NotSharing::Paused { minutes } => return Some(format!("noch {minutes}\u{a0}min pausiert")),
            NotSharing::Quitting => "HiveMind wird beendet",
            NotSharing::OnBattery => "pausiert: Batteriebetrieb",
            NotSharing::SavingEnergy => "pausiert: Stromsparmodus",
            NotSharing::Hot => "pausiert: zu heiß",
            NotSharing::InUse => "pausiert: wird benutzt",
            NotSharing::ShortOfMemory => "pausiert: zu wenig Speicher",
            NotSharing::NotWithYou => "nicht für diesen Rechner freigegeben",
            NotSharing::Unknown => return None,
        };
        Some(known.to_owned())
    },
};

fn german_condition(condition: Condition) -> &'static str {
    match condition {
        Condition::LocalNetworkDenied => {
            "macOS lässt HiveMind nicht in das lokale Netzwerk. In den Systemeinstellungen unter „Datenschutz & \
             Sicherheit“ > „Lokales Netzwerk“ HiveMind einschalten"
        }
        Condition::Firewalled => {
            "ist zu sehen, antwortet aber nicht: Eine Firewall auf einem der beiden Rechner sperrt UDP, oder das WLAN \
             trennt seine Gäste"
        }
        Condition::RelayedNearby => {
            "beide Rechner sind in diesem Netzwerk, erreichen sich aber nur über ein Relay: Eine Firewall auf einem \
             davon sperrt UDP"
        }
        Condition::Unknown => "nicht erreichbar aus einem Grund, den erst eine neuere Version kennt",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_the_language() {
        let numbers = |language| [unit(language, 4.12, 1, "GB"), unit(language, 36.4, 0, "tok/s")];
        assert_eq!(numbers(Language::En), ["4.1 GB", "36 tok/s"]);
        assert_eq!(numbers(Language::De), ["4,1\u{a0}GB", "36\u{a0}tok/s"]);
    }
}
