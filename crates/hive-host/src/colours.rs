//! Whether output is coloured: on a terminal yes, in a file or a pipe no.
//!
//! The environment variables that override this follow <https://no-color.org> and <https://bixense.com/clicolors>.

use std::env;
use std::ffi::OsString;
use std::io::IsTerminal;

/// Whether output to standard error is coloured.
pub fn are_wanted_on_stderr() -> bool {
    are_wanted(&|name| env::var_os(name), std::io::stderr().is_terminal())
}

/// The decision for a stream in this environment. `NO_COLOR` comes first; an empty variable counts as unset.
fn are_wanted(variable: &dyn Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if let Some(force) = set("CLICOLOR_FORCE")
        && force != "0"
    {
        return true;
    }
    let off = set("CLICOLOR").is_some_and(|value| value == "0") || set("TERM").is_some_and(|value| value == "dumb");
    is_terminal && !off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_colours_unless_somebody_wants_them_there() {
        let wanted = |variables: &[(&str, &str)], is_terminal: bool| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            are_wanted(&variable, is_terminal)
        };
        for (variables, on_a_terminal, in_a_file) in [
            (&[][..], true, false),
            (&[("NO_COLOR", "1")], false, false),
            (&[("NO_COLOR", "")], true, false),
            (&[("CLICOLOR_FORCE", "1")], true, true),
            (&[("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
            (&[("CLICOLOR", "0")], false, false),
            (&[("CLICOLOR", "1")], true, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true, true),
        ] {
            let found = (wanted(variables, true), wanted(variables, false));
            assert_eq!(found, (on_a_terminal, in_a_file), "{variables:?}");
        }
    }
}
