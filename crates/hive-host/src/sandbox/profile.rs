//! The macOS sandbox profile, in the language of `sandbox_init`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Confine;

/// Personal folders: denied, except for the named paths.
const PERSONAL: [&str; 6] =
    ["/Users", "/Volumes", "/private/tmp", "/private/var/folders", "/private/var/root", "/Applications"];

/// Which rules of the language a profile uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    All,
    /// Only operations that every macOS version knows: the system rejects a profile with an unknown one.
    Oldest,
}

const OLDEST: &str = "(deny network*)\n(deny file-write*)\n(deny process-exec*)\n(deny process-fork)\n";

/// Rules on other processes, on services that start programs, and on the keychain.
const NEWER: &str = "(deny signal)\n(allow signal (target self))\n\
    (deny process-info*)\n(allow process-info* (target self))\n\
    (deny mach-task-name)\n(deny mach-priv-task-port)\n(deny mach-priv-host-port)\n\
    (deny appleevent-send)\n(deny lsopen)\n(deny job-creation)\n\
    (deny mach-lookup (global-name \"com.apple.SecurityServer\") (global-name \"com.apple.securityd.xpc\"))\n";

/// The rules for a worker. The last matching rule wins.
///
/// `libraries` are the folders its libraries are loaded from.
pub(crate) fn profile(confine: &Confine, libraries: &[PathBuf], rules: Rules) -> String {
    let mut text = format!("(version 1)\n(allow default)\n{OLDEST}");
    if rules == Rules::All {
        text.push_str(NEWER);
    }
    let mut rule = |what: &str, path: &Path| {
        if let Some(path) = quoted(path) {
            let _ = writeln!(text, "({what} (subpath {path}))");
        }
    };
    for folder in PERSONAL {
        rule("deny file-read*", Path::new(folder));
    }
    for path in libraries.iter().chain(&confine.read) {
        rule("allow file-read*", path);
    }
    if let Some(cache) = &confine.gpu_cache {
        rule("allow file-read* file-write*", cache);
    }
    // Path lookup needs the metadata of every parent folder.
    text.push_str("(allow file-read-metadata)\n(allow file-write-data (literal \"/dev/null\"))\n");
    text
}

/// The folder with an executable's libraries and GPU kernels: its app bundle, or else the folder it is in.
pub(crate) fn home(executable: &Path) -> Option<&Path> {
    let is_app = |folder: &&Path| folder.extension().is_some_and(|extension| extension == "app");
    executable.ancestors().find(is_app).or_else(|| executable.parent())
}

/// A path as a quoted string; `None` if it cannot be expressed, or would allow more than itself.
fn quoted(path: &Path) -> Option<String> {
    let text = path
        .to_str()
        .filter(|_| path.is_absolute() && path.parent().is_some())
        .filter(|text| !text.contains(char::is_control))?;
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(paths: &[&str]) -> Confine {
        Confine { read: paths.iter().map(PathBuf::from).collect(), ..Confine::default() }
    }

    #[test]
    fn what_is_named_is_opened_after_everything_else_was_closed() {
        let app = PathBuf::from("/Applications/HiveMind.app");
        for kind in [Rules::All, Rules::Oldest] {
            let rules = profile(&reading(&["/Users/ann/models/m.gguf"]), std::slice::from_ref(&app), kind);
            let at = |rule: &str| rules.find(rule).unwrap_or_else(|| panic!("no {rule} in {rules}"));
            assert!(
                at("(deny file-read* (subpath \"/Users\"))")
                    < at("(allow file-read* (subpath \"/Users/ann/models/m.gguf\"))")
            );
            assert!(at("(deny network*)") < at("(allow file-read* (subpath \"/Applications/HiveMind.app\"))"));
            assert!(!rules.contains("allow file-read* file-write*"), "nothing is written without a GPU");
        }
    }

    #[test]
    fn a_path_cannot_end_its_string_and_begin_a_rule() {
        let rules = |path| profile(&reading(&[path]), &[], Rules::All);
        assert!(!rules("/m\")) (allow network*) (\"").contains("(allow network*) (\"\""));
        assert!(rules("/m\")) (allow network*) (\"").contains(r#"(subpath "/m\")) (allow network*) (\"")"#));
        assert!(!rules("/a\nb").contains("/a"));
    }

    #[test]
    fn a_path_that_would_open_everything_opens_nothing() {
        let closed = profile(&Confine::default(), &[], Rules::All);
        for path in ["", ".", "models", "/"] {
            assert_eq!(profile(&reading(&[path]), &[path.into()], Rules::All), closed, "{path:?}");
        }
    }

    #[test]
    fn an_app_reads_itself_and_a_lone_executable_its_folder() {
        let home = |path| home(Path::new(path)).unwrap().to_str().unwrap();
        assert_eq!(home("/Applications/HiveMind.app/Contents/MacOS/hivemind"), "/Applications/HiveMind.app");
        assert_eq!(home("/Users/ann/bin/hivemind"), "/Users/ann/bin");
    }

    #[test]
    fn every_rule_is_in_brackets_of_its_own() {
        let rules = profile(&reading(&["/m"]), &[], Rules::All);
        for line in rules.lines() {
            assert!(line.starts_with('(') && line.ends_with(')'), "{line}");
            assert_eq!(line.matches('(').count(), line.matches(')').count(), "{line}");
        }
    }
}
