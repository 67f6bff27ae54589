//! Links that let one browser in: codes that are valid once, and for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;

use crate::token;

/// How long a link lets a browser in.
pub(super) const VALID: Duration = Duration::from_mins(10);

/// Maximum number of open links; the oldest gives way.
const MOST_LINKS: usize = 20;

/// The digests of open links' codes.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<Vec<([u8; 32], Instant)>>);

impl Links {
    /// Makes a code of 128 random bits.
    pub(super) fn make(&self) -> String {
        let mut bytes = [0; 16];
        // Without random numbers there is no code that anyone could guess, either: the link then lets nobody in.
        let code = match getrandom::fill(&mut bytes) {
            Ok(()) => BASE32_NOPAD.encode(&bytes).to_lowercase(),
            Err(_) => return String::new(),
        };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, made)| made.elapsed() < VALID);
        if open.len() >= MOST_LINKS {
            open.remove(0);
        }
        open.push((token::digest(&code), Instant::now()));
        code
    }

    /// Whether a code lets a browser in; it does so once.
    pub(crate) fn take(&self, code: &str) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, made)| made.elapsed() < VALID);
        let shown = token::digest(code);
        let found = open.iter().position(|(known, _)| *known == shown);
        found.map(|at| open.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_lets_one_browser_in_once() {
        let links = Links::default();
        let (one, other) = (links.make(), links.make());
        assert_ne!(one, other);
        assert!(!links.take("") && !links.take("wrong") && !links.take(&one[1..]));
        assert!(links.take(&one) && !links.take(&one));
        let oldest = other;
        let newer: Vec<_> = (0..MOST_LINKS).map(|_| links.make()).collect();
        assert!(!links.take(&oldest), "it gave way");
        assert!(newer.iter().all(|code| links.take(code)));
    }
}
