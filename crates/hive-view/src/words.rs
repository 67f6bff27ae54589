//! Every word that the view model writes, in each language. Both have the same entries, or this does not compile.
//!
//! What the node itself says comes in English. Its commonest words about machines are known here; the others are shown
//! as they are.

use hive_types::{Condition, Language, LinkKind};

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
    /// What the node says about a machine, such as why it does not share; nothing if that is not known here.
    pub(crate) reason: fn(&str) -> Option<String>,
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
    reason: |why| Some(why.to_owned()),
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
    condition: |condition| match condition {
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
    },
    reason: |why| {
        let known = GERMAN_REASONS.iter().find(|(english, _)| *english == why);
        let minutes = || why.strip_prefix(PAUSED_FOR)?.strip_suffix(" min");
        let paused = || minutes().map(|minutes| format!("noch {minutes}\u{a0}min pausiert"));
        known.map(|(_, german)| (*german).to_owned()).or_else(paused)
    },
};

/// How the node begins to say that the owner has paused sharing.
const PAUSED_FOR: &str = "paused for another ";

/// The node's words about machines, and the German ones.
const GERMAN_REASONS: [(&str, &str); 10] = [
    ("sharing is switched off", "nicht freigegeben"),
    ("HiveMind is being quit", "HiveMind wird beendet"),
    ("paused: on battery", "pausiert: Batteriebetrieb"),
    ("paused: saving energy", "pausiert: Stromsparmodus"),
    ("paused: too hot", "pausiert: zu heiß"),
    ("paused: in use", "pausiert: wird benutzt"),
    ("paused: short of memory", "pausiert: zu wenig Speicher"),
    ("it does not answer", "antwortet nicht"),
    ("it has not been heard yet", "noch nicht gemeldet"),
    ("it was removed", "wurde entfernt"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_the_language() {
        let numbers = |language| [unit(language, 4.12, 1, "GB"), unit(language, 36.4, 0, "tok/s")];
        assert_eq!(numbers(Language::En), ["4.1 GB", "36 tok/s"]);
        assert_eq!(numbers(Language::De), ["4,1\u{a0}GB", "36\u{a0}tok/s"]);
    }

    #[test]
    fn reasons_that_are_known_are_said_in_the_language_and_no_others() {
        let german = |why| (words(Language::De).reason)(why);
        assert_eq!(german("paused for another 12 min").as_deref(), Some("noch 12\u{a0}min pausiert"));
        assert_eq!(german("paused: on battery").as_deref(), Some("pausiert: Batteriebetrieb"));
        assert_eq!(german("the door is locked"), None);
        assert_eq!((words(Language::En).reason)("the door is locked").as_deref(), Some("the door is locked"));
    }

    #[test]
    fn the_node_still_says_what_is_known_here() {
        let node = [
            include_str!("../../hive-node/src/sharing.rs"),
            include_str!("../../hive-peers/src/peers/presence.rs"),
            include_str!("../../hive-peers/src/peers/shown.rs"),
        ]
        .concat();
        for english in GERMAN_REASONS.iter().map(|(english, _)| english).chain([&PAUSED_FOR]) {
            assert!(node.contains(&format!("\"{english}")), "{english}");
        }
    }
}
