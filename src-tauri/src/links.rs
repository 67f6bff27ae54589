//! Opens links in the owner's browser or mail program, once the window has asked. A model may have written the link, so
//! it is checked here again, whatever the page has checked.

use tauri::Url;

use crate::problem::Problem;

/// Maximum length of a link, in bytes; longer ones carry data out rather than lead somewhere.
const LONGEST: usize = 8192;

/// What a mail link may fill in. Some mail programs attach any file that a link names.
const MAIL_FIELDS: [&str; 5] = ["to", "cc", "bcc", "subject", "body"];

/// Why a link is not opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LinkError {
    /// It cannot be parsed, or names no host.
    #[error("this link is not valid")]
    Invalid,
    /// It is longer than `LONGEST`.
    #[error("this link is too long to open")]
    TooLong,
    /// It is not for a browser or a mail program.
    #[error("only web and mail links can be opened")]
    Scheme,
    /// It fills in more than the text of a message.
    #[error("this mail link asks for more than a message")]
    Mail,
}

/// The link as it is opened: normalized, so that it holds no control character and cannot be read as an option.
fn checked(link: &str) -> Result<Url, LinkError> {
    if link.len() > LONGEST {
        return Err(LinkError::TooLong);
    }
    let url = Url::parse(link).map_err(|_| LinkError::Invalid)?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "http" | "https" => Err(LinkError::Invalid),
        "mailto" => {
            let allowed = url.query_pairs().all(|(field, _)| MAIL_FIELDS.contains(&field.to_lowercase().as_str()));
            if allowed { Ok(url) } else { Err(LinkError::Mail) }
        }
        _ => Err(LinkError::Scheme),
    }
}

/// Opens a web or mail link in the owner's browser or mail program.
#[tauri::command]
#[specta::specta]
pub(crate) async fn open_link(url: String) -> Result<(), Problem> {
    let url = checked(&url).map_err(Problem::of("not_a_link"))?;
    // Debug builds let tests see what would be opened.
    let opener = std::env::var("HIVEMIND_OPENER").ok().filter(|_| cfg!(debug_assertions));
    let opened = match opener {
        Some(program) => open::with_detached(url.as_str(), program),
        None => open::that_detached(url.as_str()),
    };
    opened.map_err(Problem::of("not_opened"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_and_mail_links_are_opened() {
        for (link, opened) in [
            ("https://example.com", "https://example.com/"),
            ("HTTP://Example.com/a b?q=1#c", "http://example.com/a%20b?q=1#c"),
            ("https://xn--pple-43d.com/", "https://xn--pple-43d.com/"),
            ("https://аpple.com/", "https://xn--pple-43d.com/"),
            ("mailto:someone@example.com?subject=Hi&body=there", "mailto:someone@example.com?subject=Hi&body=there"),
        ] {
            assert_eq!(checked(link).map(String::from).as_deref(), Ok(opened), "{link}");
        }
    }

    #[test]
    fn nothing_else_is_opened() {
        for (link, why) in [
            ("", LinkError::Invalid),
            ("example.com", LinkError::Invalid),
            ("--version", LinkError::Invalid),
            ("/etc/passwd", LinkError::Invalid),
            ("http://", LinkError::Invalid),
            ("file:///etc/passwd", LinkError::Scheme),
            ("javascript:alert(1)", LinkError::Scheme),
            ("data:text/html,hi", LinkError::Scheme),
            ("tauri://localhost/", LinkError::Scheme),
            ("smb://example.com/share", LinkError::Scheme),
            ("ms-settings:network", LinkError::Scheme),
            ("mailto:a@example.com?attach=/etc/passwd", LinkError::Mail),
            ("mailto:a@example.com?subject=Hi&ATTACHMENT=/etc/passwd", LinkError::Mail),
        ] {
            assert_eq!(checked(link), Err(why), "{link}");
        }
        assert_eq!(checked(&format!("https://example.com/{}", "a".repeat(LONGEST))), Err(LinkError::TooLong));
    }

    #[test]
    fn a_link_carries_no_control_character_and_is_no_option() {
        for link in [
            "https://example.com/\n--help\r\t\u{7}",
            " \u{1}https://example.com/",
            "mailto:a\n@example.com?body=b\u{0}",
        ] {
            let url = checked(link).unwrap();
            assert!(!url.as_str().contains(char::is_control), "{url}");
            assert!(!url.as_str().starts_with('-'), "{url}");
        }
    }
}
