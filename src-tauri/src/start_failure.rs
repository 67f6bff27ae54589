//! Why the app could not start its node, and the remedies. These decisions are pure; `repair.rs` carries them out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hive_api::AllowError;
use hive_mind::StoreError;
use hive_node::StartError;
use hive_node::data::DataError;
use hive_node::settings::{Language, SettingError};
use serde::{Deserialize, Serialize};
use specta::Type;

/// The error that ended a start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Settings(#[from] SettingError),
    #[error(transparent)]
    Allowed(#[from] AllowError),
    #[error(transparent)]
    Conversations(#[from] StoreError),
    #[error(transparent)]
    Node(#[from] StartError),
}

/// Why the app could not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Another HiveMind uses the data folder.
    InUse {
        /// The process, as the folder names it.
        by: String,
        /// Its ID, if it is a node without an app, which this app may stop.
        process: Option<u32>,
    },
    /// A file or folder cannot be written.
    NotWritable {
        /// The file or folder.
        path: String,
        /// The system's error.
        why: String,
    },
    /// The disk is full.
    Full {
        /// A file or folder on it.
        path: String,
    },
    /// A file cannot be read.
    Damaged {
        /// Its name.
        file: String,
        /// The error in it.
        why: String,
    },
    /// A newer version wrote a file.
    Newer {
        /// Its name.
        file: String,
    },
    /// The port for other machines is taken.
    Port {
        /// The system's error.
        why: String,
    },
    /// Anything else.
    Other {
        /// The error.
        why: String,
        /// A hint for the owner.
        hint: Option<String>,
    },
}

/// A remedy, applied by a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Type)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Remedy {
    /// Start again.
    TryAgain,
    /// End the other process, then start.
    StopOther,
    /// Listen on a free port, then start.
    UseAnotherPort,
    /// Rename the file, then start without it.
    MoveAside,
    /// Show the data folder.
    OpenFolder,
    /// Quit.
    Quit,
}

/// Why the app could not start, and the remedies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
pub(crate) struct StartFailure {
    /// The cause.
    pub(crate) cause: Cause,
    /// The remedies, the best first.
    pub(crate) remedies: Vec<Remedy>,
    /// The language to say it in.
    pub(crate) language: Language,
}

impl StartFailure {
    /// The failure behind an error. `written` tries to write a file, since a database's own error does not tell whether
    /// that works.
    pub(crate) fn of(
        error: &NotStarted,
        language: Language,
        written: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Self {
        let cause = match error {
            NotStarted::Data(error) => of_data(error),
            NotStarted::Settings(error) => settings(error),
            NotStarted::Allowed(error) => settings(error),
            NotStarted::Conversations(error) => of_conversations(error, written),
            NotStarted::Node(error) => of_node(error),
        };
        Self { remedies: remedies(&cause), cause, language }
    }
}

fn of_data(error: &DataError) -> Cause {
    match error {
        DataError::NoHome => Cause::Other { why: error.to_string(), hint: None },
        DataError::Unusable { path, error } => unusable(path, error),
        DataError::InUse { by, .. } => Cause::InUse { process: node_without_app(by), by: by.clone() },
        DataError::Damaged { path, why } => Cause::Damaged { file: name(path), why: why.clone() },
    }
}

fn of_conversations(error: &StoreError, written: impl FnOnce(&Path) -> std::io::Result<()>) -> Cause {
    if let StoreError::Folder { path, error } = error {
        return unusable(path, error);
    }
    if let StoreError::Newer { path } = error {
        return Cause::Newer { file: name(path) };
    }
    let StoreError::Database { path, error } = error else {
        return Cause::Other { why: error.to_string(), hint: None };
    };
    match written(path) {
        Err(error) => unusable(path, &error),
        Ok(()) => Cause::Damaged { file: name(path), why: error.to_string() },
    }
}

fn of_node(error: &StartError) -> Cause {
    match error {
        StartError::Bind(error) => Cause::Port { why: error.to_string() },
        StartError::Data(error) => of_data(error),
        StartError::Identity(error) => Cause::Other { why: error.to_string(), hint: error.hint().map(str::to_owned) },
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Cause {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::Full { path },
        _ => Cause::NotWritable { path, why: error.to_string() },
    }
}

fn settings(error: &dyn std::error::Error) -> Cause {
    Cause::Damaged { file: hive_node::settings::FILE.to_owned(), why: error.to_string() }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The process that holds a folder, if it is the command line's: "process 7, hivemind".
fn node_without_app(by: &str) -> Option<u32> {
    let (process, program) = by.strip_prefix("process ")?.split_once(", ")?;
    process.parse().ok().filter(|_| program == COMMAND)
}

/// The command's program.
pub(crate) const COMMAND: &str = "hivemind";

fn remedies(cause: &Cause) -> Vec<Remedy> {
    use Remedy::{MoveAside, OpenFolder, Quit, StopOther, TryAgain, UseAnotherPort};
    match cause {
        Cause::InUse { process: Some(_), .. } => vec![StopOther, TryAgain, Quit],
        Cause::InUse { process: None, .. } => vec![TryAgain, Quit],
        Cause::Port { .. } => vec![UseAnotherPort, TryAgain, Quit],
        Cause::Damaged { .. } | Cause::Newer { .. } => vec![MoveAside, OpenFolder, TryAgain, Quit],
        Cause::NotWritable { .. } | Cause::Full { .. } | Cause::Other { .. } => vec![TryAgain, OpenFolder, Quit],
    }
}

/// The name of a file that is moved aside: the first such name that is not `taken`.
pub(crate) fn aside(file: &Path, taken: impl Fn(&Path) -> bool) -> PathBuf {
    let named = |suffix: String| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let numbered = (2..).map(|number| named(format!(".aside-{number}")));
    std::iter::once(named(".aside".to_owned())).chain(numbered).find(|path| !taken(path)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hive_mind::{FILE, Store};

    use super::*;

    fn path() -> PathBuf {
        "/data/peers.json".into()
    }

    fn of(error: impl Into<NotStarted>) -> (Cause, Vec<Remedy>) {
        let StartFailure { cause, remedies, .. } = StartFailure::of(&error.into(), Language::En, |_| Ok(()));
        (cause, remedies)
    }

    fn failed(kind: ErrorKind) -> std::io::Error {
        std::io::Error::from(kind)
    }

    #[test]
    fn only_a_node_without_an_app_is_stopped_at_a_click() {
        let in_use = |by: &str| of(DataError::InUse { path: path(), by: by.to_owned() });
        let (cause, remedies) = in_use("process 7, hivemind");
        assert_eq!(cause, Cause::InUse { by: "process 7, hivemind".to_owned(), process: Some(7) });
        assert_eq!(remedies, [Remedy::StopOther, Remedy::TryAgain, Remedy::Quit]);
        for by in ["process 7, hivemind-app", "another process", "process x, hivemind", "process 7"] {
            let (cause, remedies) = in_use(by);
            assert!(matches!(cause, Cause::InUse { process: None, .. }), "{cause:?}");
            assert_eq!(remedies, [Remedy::TryAgain, Remedy::Quit]);
        }
    }

    #[test]
    fn a_full_disk_is_not_a_folder_that_cannot_be_written() {
        let unusable = |kind| of(DataError::Unusable { path: path(), error: failed(kind) }).0;
        assert!(matches!(unusable(ErrorKind::StorageFull), Cause::Full { .. }));
        assert!(matches!(unusable(ErrorKind::QuotaExceeded), Cause::Full { .. }));
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            assert!(matches!(unusable(kind), Cause::NotWritable { .. }));
        }
    }

    #[test]
    fn what_is_damaged_or_newer_can_be_moved_aside_and_is_named_without_its_path() {
        let (cause, remedies) = of(DataError::Damaged { path: path(), why: "it is cut".to_owned() });
        assert_eq!(cause, Cause::Damaged { file: "peers.json".to_owned(), why: "it is cut".to_owned() });
        assert_eq!(remedies, [Remedy::MoveAside, Remedy::OpenFolder, Remedy::TryAgain, Remedy::Quit]);
        let (cause, newer) = of(StoreError::Newer { path: path() });
        assert_eq!((cause, newer), (Cause::Newer { file: "peers.json".to_owned() }, remedies));
        // A value in the settings that means nothing.
        let (cause, _) = of(SettingError::Relay("there".to_owned()));
        assert!(matches!(cause, Cause::Damaged { file, .. } if file == "config.toml"));
    }

    #[test]
    fn a_file_gets_a_name_that_none_has() {
        let aside = |taken: &[&str]| aside(&path(), |path| taken.contains(&path.to_str().unwrap()));
        assert_eq!(aside(&[]), Path::new("/data/peers.json.aside"));
        let taken = ["/data/peers.json.aside", "/data/peers.json.aside-2"];
        assert_eq!(aside(&taken), Path::new("/data/peers.json.aside-3"));
    }

    #[test]
    fn conversations_on_a_full_disk_are_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "no database").unwrap();
        let error = NotStarted::from(Store::open(folder.path()).unwrap_err());
        let cause = |written: std::io::Result<()>| StartFailure::of(&error, Language::En, |_| written).cause;
        assert!(matches!(cause(Ok(())), Cause::Damaged { file, .. } if file == FILE));
        assert!(matches!(cause(Err(failed(ErrorKind::StorageFull))), Cause::Full { .. }));
        assert!(matches!(cause(Err(failed(ErrorKind::PermissionDenied))), Cause::NotWritable { .. }));
    }
}
