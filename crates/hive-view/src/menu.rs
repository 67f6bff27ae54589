//! The tray menu as a value, derived from the snapshot alone.

use hive_types::Language;

use crate::machines::{Machine, Request};
use crate::snapshot::Snapshot;
use crate::update::Next;
use crate::words::{unit, words};

/// A menu entry. Clicks are identified by the entry's ID.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Text; an action if enabled, information otherwise.
    Text {
        /// Its ID.
        id: String,
        /// Its label.
        text: String,
        /// Whether it can be clicked.
        enabled: bool,
    },
    /// A check box.
    Check {
        /// Its ID.
        id: String,
        /// Its label.
        text: String,
        /// Whether it is checked.
        on: bool,
    },
    /// A submenu.
    Within {
        /// Its ID.
        id: String,
        /// Its label.
        text: String,
        /// Its entries.
        entries: Vec<Entry>,
    },
    /// A separator.
    Line,
}

fn text(id: impl Into<String>, text: impl Into<String>) -> Entry {
    Entry::Text { id: id.into(), text: text.into(), enabled: true }
}

fn says(id: impl Into<String>, text: impl Into<String>) -> Entry {
    Entry::Text { id: id.into(), text: text.into(), enabled: false }
}

/// The whole menu.
pub fn menu(shown: &Snapshot) -> Vec<Entry> {
    let (language, words) = (shown.language, words(shown.language));
    let pause = if shown.paused { text("resume", words.resume) } else { text("pause", words.pause) };
    let requests = if shown.requests.is_empty() {
        vec![says("no-requests", words.no_requests)]
    } else {
        shown.requests.iter().flat_map(|asks| request(asks, language)).collect()
    };
    vec![
        says("status", &shown.line),
        Entry::Check { id: "share".to_owned(), text: words.share.to_owned(), on: shown.share },
        pause,
        Entry::Line,
        Entry::Within {
            id: "machines".to_owned(),
            text: words.machines.to_owned(),
            entries: shown.machines.iter().map(|shown| machine(shown, language)).collect(),
        },
        Entry::Within {
            id: "requests".to_owned(),
            text: match shown.requests.len() {
                0 => words.requests.to_owned(),
                waiting => format!("{} ({waiting})", words.requests),
            },
            entries: requests,
        },
        Entry::Line,
        text("overview", words.overview),
        text("chat", words.chat),
        text("settings", words.settings),
        Entry::Text {
            id: "update".to_owned(),
            text: shown.update.words(language),
            enabled: shown.update.next() != Next::Wait,
        },
        Entry::Line,
        text("quit", words.quit),
    ]
}

fn machine(machine: &Machine, language: Language) -> Entry {
    let words = words(language);
    let name = if machine.own { words.this_machine } else { &machine.name };
    let link = machine.link.as_ref();
    let link = link.map(|link| format!(" · {} {}", link.kind, unit(language, link.round_trip_ms, 1, "ms")));
    let speed = machine.tokens_per_s.map(|speed| format!(" · {}", unit(language, speed, 0, "tok/s")));
    let details = if machine.here && machine.sharing {
        let memory = unit(language, machine.offered / 1e9, 1, "GB");
        format!("{memory}{}{}", link.unwrap_or_default(), speed.unwrap_or_default())
    } else {
        machine.why.clone().unwrap_or_else(|| words.not_sharing.to_owned())
    };
    says(format!("machine {}", machine.id), format!("{name} · {details}"))
}

fn request(request: &Request, language: Language) -> Vec<Entry> {
    let words = words(language);
    let Request { id, name, fingerprint, code, approved_here, .. } = request;
    let mut entries = vec![says(format!("request {id}"), format!("{name} · {fingerprint} · {code}"))];
    if *approved_here {
        entries.push(says(format!("awaited {id}"), words.awaited));
    } else {
        // The code is part of the ID, so that a click approves the code that was shown and no later one.
        entries.push(text(format!("approve {id} {code}"), (words.approve)(code)));
    }
    entries.push(text(format!("deny {id}"), words.deny));
    entries
}

/// The action of a menu entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Turn sharing on or off.
    Share,
    /// Pause sharing for an hour.
    Pause,
    /// End the pause.
    Resume,
    /// Approve a machine.
    Approve {
        /// Its node ID.
        id: String,
        /// The code that was shown.
        code: String,
    },
    /// Deny a machine, by its node ID.
    Deny(String),
    /// Show the popover.
    Overview,
    /// Show the chat.
    Chat,
    /// Show the settings.
    Settings,
    /// Start a conversation.
    NewChat,
    /// Take the update's next step.
    Update,
    /// Quit the app.
    Quit,
}

/// The action of an entry's ID; `None` for information.
pub fn choice(id: &str) -> Option<Choice> {
    let mut words = id.splitn(3, ' ');
    Some(match (words.next()?, words.next(), words.next()) {
        ("share", None, _) => Choice::Share,
        ("pause", None, _) => Choice::Pause,
        ("resume", None, _) => Choice::Resume,
        ("approve", Some(id), Some(code)) => Choice::Approve { id: id.to_owned(), code: code.to_owned() },
        ("deny", Some(id), None) => Choice::Deny(id.to_owned()),
        ("overview", None, _) => Choice::Overview,
        ("chat", None, _) => Choice::Chat,
        ("settings", None, _) => Choice::Settings,
        ("new-chat", None, _) => Choice::NewChat,
        ("update", None, _) => Choice::Update,
        ("quit", None, _) => Choice::Quit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Memory, State};
    use crate::update::Update;
    use hive_types::Accent;

    fn shown() -> Snapshot {
        Snapshot {
            name: "Studio".to_owned(),
            fingerprint: String::new(),
            state: State::Sharing,
            share: true,
            paused: false,
            line: "Sharing · no other machines yet".to_owned(),
            memory: Memory {
                total: 0.0,
                taken: 0.0,
                sharing: true,
                offered: 0.0,
                held: 0.0,
                cap: None,
                recommended: 0.0,
            },
            pool_bytes: 0.0,
            machines: Vec::new(),
            requests: Vec::new(),
            found: Vec::new(),
            model: None,
            answered_tokens: 0.0,
            loads: Vec::new(),
            discovery: None,
            update: Update::default(),
            notify: None,
            accent: Accent::default(),
            look: hive_types::Look::default(),
            language: Language::default(),
        }
    }

    fn all(entries: &[Entry]) -> Vec<&Entry> {
        entries.iter().flat_map(with_those_within).collect()
    }

    fn with_those_within(entry: &Entry) -> Vec<&Entry> {
        match entry {
            Entry::Within { entries, .. } => all(entries),
            entry => vec![entry],
        }
    }

    #[test]
    fn a_request_is_approved_by_the_code_that_was_read() {
        let asks = Request {
            id: "abc".to_owned(),
            name: "Mini".to_owned(),
            fingerprint: "otter lamp river".to_owned(),
            code: "482 915".to_owned(),
            approved_here: false,
            asked_by_them: true,
        };
        let entries = menu(&Snapshot { requests: vec![asks.clone()], ..shown() });
        let choices: Vec<_> = all(&entries)
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Text { id, enabled: true, .. } => choice(id),
                _ => None,
            })
            .collect();
        let approve = Choice::Approve { id: "abc".to_owned(), code: "482 915".to_owned() };
        assert!(choices.contains(&approve) && choices.contains(&Choice::Deny("abc".to_owned())), "{choices:?}");
        let waiting = menu(&Snapshot { requests: vec![Request { approved_here: true, ..asks }], ..shown() });
        assert!(!format!("{waiting:?}").contains("\"approve abc"));
    }

    /// Every label, and those within submenus.
    fn labels(entries: &[Entry]) -> Vec<String> {
        let label = |entry: &Entry| match entry {
            Entry::Text { text, .. } | Entry::Check { text, .. } => vec![text.clone()],
            Entry::Within { text, entries, .. } => [vec![text.clone()], labels(entries)].concat(),
            Entry::Line => Vec::new(),
        };
        entries.iter().flat_map(label).collect()
    }

    #[test]
    fn the_menu_is_in_the_language_of_the_app() {
        let of = |language| labels(&menu(&Snapshot { language, line: String::new(), ..shown() }));
        let (english, german) = (of(Language::En), of(Language::De));
        assert_eq!(english.len(), german.len());
        let same: Vec<_> = german.iter().filter(|label| !label.is_empty() && english.contains(label)).collect();
        assert!(same.is_empty(), "{same:?}");
    }

    #[test]
    fn everything_that_can_be_clicked_means_something() {
        for entry in all(&menu(&shown())) {
            if let Entry::Text { id, enabled: true, .. } | Entry::Check { id, .. } = entry {
                assert!(choice(id).is_some(), "{id}");
            }
        }
        assert_eq!((choice("status"), choice("approve x"), choice("machine a")), (None, None, None));
    }

    #[test]
    fn a_pause_can_be_ended() {
        let paused = Snapshot { paused: true, ..shown() };
        assert!(format!("{:?}", menu(&paused)).contains("\"resume\""));
        assert!(format!("{:?}", menu(&shown())).contains("\"pause\""));
    }
}
