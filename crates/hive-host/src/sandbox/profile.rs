//! The sandbox profile of macOS, in the language that `sandbox_init` takes.

use std::fmt::Write as _;
use std::path::Path;

use super::Confine;

/// Where macOS keeps what belongs to persons: closed, but for what is named.
const PERSONAL: [&str; 6] =
    ["/Users", "/Volumes", "/private/tmp", "/private/var/folders", "/private/var/root", "/Applications"];

/// The rules for a worker. Of several that match, the last one counts.
///
/// `libraries` are folders that its libraries are loaded from.
pub fn profile(wish: &Confine, libraries: &[&Path]) -> String {
    let mut rules = String::from(
        "(version 1)\n(allow default)\n(deny network*)\n(deny file-write*)\n(deny process-exec*)\n(deny process-fork)\n\
         (deny process-info* (target others))\n(deny signal (target others))\n(deny mach-task*)\n(deny appleevent-send)\n",
    );
    let mut rule = |what: &str, path: &Path| {
        if let Some(path) = quoted(path) {
            let _ = writeln!(rules, "({what} (subpath {path}))");
        }
    };
    for folder in PERSONAL {
        rule("deny file-read*", Path::new(folder));
    }
    for path in libraries.iter().copied().chain(wish.read.iter().map(std::path::PathBuf::as_path)) {
        rule("allow file-read*", path);
    }
    if let Some(cache) = &wish.gpu_cache {
        rule("allow file-read* file-write*", cache);
    }
    // Paths are looked up by their parts, also of what may be read.
    rules.push_str("(allow file-read-metadata)\n(allow file-write-data (literal \"/dev/null\"))\n");
    rules
}

/// A path as a string of the profile's language; `None` for one that it cannot say.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control))?;
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn what_is_named_is_opened_after_everything_else_was_closed() {
        let wish = Confine { read: vec!["/Users/ann/models/m.gguf".into()], ..Confine::default() };
        let rules = profile(&wish, &[Path::new("/Applications/HiveMind.app")]);
        let at = |rule: &str| rules.find(rule).unwrap_or_else(|| panic!("no {rule} in {rules}"));
        assert!(
            at("(deny file-read* (subpath \"/Users\"))")
                < at("(allow file-read* (subpath \"/Users/ann/models/m.gguf\"))")
        );
        assert!(at("(deny network*)") < at("(allow file-read* (subpath \"/Applications/HiveMind.app\"))"));
        assert!(!rules.contains("allow file-read* file-write*"), "nothing is written without a GPU");
    }

    #[test]
    fn a_path_cannot_end_its_string_and_begin_a_rule() {
        let wish = Confine { read: vec!["/m\")) (allow network*) (\"".into()], ..Confine::default() };
        assert!(!profile(&wish, &[]).contains("(allow network*) (\"\""));
        assert!(profile(&wish, &[]).contains(r#"(subpath "/m\")) (allow network*) (\"")"#));
        let wish = Confine { read: vec![PathBuf::from("/a\nb")], ..Confine::default() };
        assert!(!profile(&wish, &[]).contains("/a"));
    }
}
