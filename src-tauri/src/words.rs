//! The words of the app's own notifications, updates, dialog and menu bar, in each language. Both have the same entries, or this
//! does not compile.

use std::sync::LazyLock;

use hive_node::settings::{Language, Settings};

/// What a language says.
pub(crate) struct Words {
    pub(crate) wants_to_join: fn(&str) -> String,
    pub(crate) approve_only: fn(&str) -> String,
    pub(crate) answer: &'static str,
    pub(crate) answer_done: &'static str,
    pub(crate) show: &'static str,
    pub(crate) no_updates: &'static str,
    pub(crate) not_checked: fn(&str) -> String,
    pub(crate) not_installed: fn(&str, &str) -> String,
    pub(crate) not_offered: fn(&str) -> String,
    pub(crate) chooser: Chooser,
    #[cfg(target_os = "macos")]
    pub(crate) bar: Bar,
}

/// The dialog for a model. On a Mac, one button is for files and folders, and the system names the other.
#[cfg_attr(target_os = "macos", allow(dead_code, reason = "the system has words for them"))]
pub(crate) struct Chooser {
    pub(crate) title: &'static str,
    pub(crate) add: &'static str,
    pub(crate) add_folder: &'static str,
    pub(crate) cancel: &'static str,
}

/// The menu bar. What macOS does not translate in it is here.
#[cfg(target_os = "macos")]
pub(crate) struct Bar {
    pub(crate) about: &'static str,
    pub(crate) updates: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) hide: &'static str,
    pub(crate) hide_others: &'static str,
    pub(crate) quit: &'static str,
    pub(crate) chat: &'static str,
    pub(crate) new_chat: &'static str,
    pub(crate) close: &'static str,
    pub(crate) edit: &'static str,
    pub(crate) undo: &'static str,
    pub(crate) redo: &'static str,
    pub(crate) cut: &'static str,
    pub(crate) copy: &'static str,
    pub(crate) paste: &'static str,
    pub(crate) select_all: &'static str,
    pub(crate) window: &'static str,
    pub(crate) minimize: &'static str,
    pub(crate) full_screen: &'static str,
}

/// The words of a language.
pub(crate) fn words(language: Language) -> &'static Words {
    match language {
        Language::En => &ENGLISH,
        Language::De => &GERMAN,
    }
}

/// The language that the owner has chosen, or the system's.
pub(crate) fn language(settings: &Settings) -> Language {
    static SYSTEM: LazyLock<Language> =
        LazyLock::new(|| sys_locale::get_locale().as_deref().map_or_else(Language::default, Language::of));
    settings.language.unwrap_or(*SYSTEM)
}

static ENGLISH: Words = Words {
    wants_to_join: |name| format!("{name} wants to join"),
    approve_only: |code| format!("Approve only if the other machine also shows {code}."),
    answer: "Answer",
    answer_done: "The answer is done.",
    show: "Show",
    no_updates: "Updates aren't set up in this build. Download new versions from where you got it.",
    not_checked: |why| format!("Could not check for updates: {why}"),
    not_installed: |version, why| format!("Could not install {version}: {why}"),
    not_offered: |version| format!("{version} is no longer available. Check for updates again."),
    chooser: Chooser {
        title: "Choose a .gguf file, or a model's folder",
        add: "Add",
        add_folder: "Add Folder",
        cancel: "Cancel",
    },
    #[cfg(target_os = "macos")]
    bar: Bar {
        about: "About HiveMind",
        updates: "Check for Updates…",
        settings: "Settings…",
        hide: "Hide HiveMind",
        hide_others: "Hide Others",
        quit: "Quit HiveMind",
        chat: "Chat",
        new_chat: "New Chat",
        close: "Close Window",
        edit: "Edit",
        undo: "Undo",
        redo: "Redo",
        cut: "Cut",
        copy: "Copy",
        paste: "Paste",
        select_all: "Select All",
        window: "Window",
        minimize: "Minimize",
        full_screen: "Enter Full Screen",
    },
};

static GERMAN: Words = Words {
    wants_to_join: |name| format!("{name} möchte beitreten"),
    approve_only: |code| format!("Nur zulassen, wenn der andere Rechner auch {code} zeigt."),
    answer: "Antwort",
    answer_done: "Die Antwort ist fertig.",
    show: "Anzeigen",
    no_updates: "Diese Version kennt keine Updates. Neue Versionen gibt es dort, woher diese kam.",
    not_checked: |why| format!("Suche nach Updates fehlgeschlagen: {why}"),
    not_installed: |version, why| format!("{version} ließ sich nicht installieren: {why}"),
    not_offered: |version| format!("{version} ist nicht mehr verfügbar. Bitte erneut nach Updates suchen."),
    chooser: Chooser {
        title: "Eine .gguf-Datei oder den Ordner eines Modells wählen",
        add: "Hinzufügen",
        add_folder: "Ordner hinzufügen",
        cancel: "Abbrechen",
    },
    #[cfg(target_os = "macos")]
    bar: Bar {
        about: "Über HiveMind",
        updates: "Nach Updates suchen …",
        settings: "Einstellungen …",
        hide: "HiveMind ausblenden",
        hide_others: "Andere ausblenden",
        quit: "HiveMind beenden",
        chat: "Chat",
        new_chat: "Neuer Chat",
        close: "Fenster schließen",
        edit: "Bearbeiten",
        undo: "Widerrufen",
        redo: "Wiederholen",
        cut: "Ausschneiden",
        copy: "Kopieren",
        paste: "Einsetzen",
        select_all: "Alles auswählen",
        window: "Fenster",
        minimize: "Im Dock ablegen",
        full_screen: "Vollbild ein",
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_said_in_every_language() {
        for language in [Language::En, Language::De] {
            let words = words(language);
            assert!((words.wants_to_join)("Mini").contains("Mini"));
            assert!((words.approve_only)("482 915").contains("482 915"));
            assert!((words.not_checked)("no network").contains("no network"));
            let not_installed = (words.not_installed)("9.9.9", "no room");
            assert!(not_installed.contains("9.9.9") && not_installed.contains("no room"));
            assert!((words.not_offered)("9.9.9").contains("9.9.9"));
        }
        assert_ne!(words(Language::En).answer_done, words(Language::De).answer_done);
    }
}
