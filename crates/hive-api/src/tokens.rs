//! API tokens for the owner's programs: named, each with its own rights, renewed and revoked individually.
//!
//! `tokens.json` holds a digest of each token; the token itself is shown once, when it is created. The owner's own
//! token is a separate file (`api-token`), has every right, and can be renewed. Invariants: a new token is on disk
//! before it is accepted; a revoked one is rejected from the moment of the call, and the work it authorized ends
//! ([`Grant::revoked`]).

mod routes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use hive_host::SecretError;
use hive_node::border;
use hive_node::data::{DataError, NotKept};
use hive_types::{ErrorDetails, Right, TokenView};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::Refusal;
use crate::token::{self, NONCE_BYTES, Token};

pub(crate) use routes::routes;

/// File name in the data folder.
pub(crate) const FILE: &str = "tokens.json";

/// More than anyone needs; stops a caller that creates tokens in a loop.
const MOST_TOKENS: usize = 100;

/// Why tokens could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is damaged.
    #[error(
        "{path} is damaged ({why}). Restore a backup, or delete it; every program then needs a new token",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error in it.
        why: String,
    },
    /// The file cannot be read or written.
    #[error("cannot use {path}: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: std::io::Error,
    },
    /// The owner's token cannot be read or written.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The name cannot be displayed safely.
    #[error("a token's name is one line of at most {} columns without control characters", border::NAME_COLUMNS)]
    BadName,
    /// The token would have no rights.
    #[error("a token without any right is good for nothing")]
    NoRights,
    /// The name is taken.
    #[error("there is a token named \"{0}\" already")]
    Taken(String),
    /// There is no such token.
    #[error("there is no token named \"{0}\"")]
    Unknown(String),
    /// A revocation is in effect, but not saved.
    #[error(transparent)]
    NotKept(#[from] NotKept),
    /// The limit is reached.
    #[error("there are {MOST_TOKENS} tokens already")]
    TooMany,
}

/// A program's token as stored in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    name: String,
    /// SHA-256 of the token, in hexadecimal.
    digest: String,
    /// Names of rights; a newer version may have added some.
    may: Vec<String>,
    /// Days since 1970-01-01 UTC.
    made_day: u64,
    last_used_day: Option<u64>,
}

/// A valid token.
#[derive(Debug)]
struct Live {
    digest: [u8; 32],
    /// Becomes true when the token is revoked.
    revoked: watch::Sender<bool>,
}

impl Live {
    fn new(digest: [u8; 32]) -> Self {
        Self { digest, revoked: watch::channel(false).0 }
    }

    fn grant(&self, name: Option<&str>, may: &[Right]) -> Grant {
        Grant { name: name.map(str::to_owned), may: may.to_vec(), revoked: self.revoked.subscribe() }
    }
}

/// Ends the work that a renewed token authorized, when dropped. A route that renews a token drops it last: the request
/// may itself have been authorized by that token.
#[derive(Debug)]
struct Revocation(watch::Sender<bool>);

impl Drop for Revocation {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[derive(Debug)]
struct Program {
    name: String,
    may: Vec<Right>,
    /// Rights that only a newer version knows. They allow nothing here, but stay in the file for a later update.
    newer: Vec<String>,
    made_day: u64,
    /// Days since 1970-01-01 UTC; 0 means never.
    last_used_day: AtomicU64,
    live: Live,
}

impl Program {
    fn last_used_day(&self) -> Option<u64> {
        Some(self.last_used_day.load(Ordering::Relaxed)).filter(|day| *day > 0)
    }
}

/// The rights of a token's bearer until the token is revoked.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// The program's name; `None` for the owner.
    name: Option<String>,
    may: Vec<Right>,
    revoked: watch::Receiver<bool>,
}

impl Grant {
    pub(crate) fn allows(&self, one_of: &[Right]) -> bool {
        one_of.iter().any(|right| self.may.contains(right))
    }

    /// The program's name; `None` for the owner's own token.
    pub(crate) fn program(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The refusal for a token that has none of these rights.
    pub(crate) fn refusal(&self, one_of: &'static [Right]) -> Refusal {
        let name = self.name.as_deref().unwrap_or("owner");
        let names = one_of.iter().map(|right| format!("\"{right}\"")).collect::<Vec<_>>().join(" or ");
        Refusal::new(
            StatusCode::FORBIDDEN,
            "missing_right",
            format!("the token \"{name}\" lacks the right {names}; it has {}", Right::list(&self.may)),
        )
        .hint(format!("make one that has it: hivemind tokens add NAME --may {}", Right::list(&one_of[..1])))
        .more(ErrorDetails::MissingRight { missing: one_of.to_vec() })
    }

    /// Completes when the token is revoked or renewed.
    pub(crate) async fn revoked(mut self) {
        // An error means that the token no longer exists.
        let _ = self.revoked.wait_for(|revoked| *revoked).await;
    }
}

/// How a request is refused that could not change tokens.
#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
pub(crate) fn refusal(error: TokenError) -> Refusal {
    match &error {
        TokenError::BadName | TokenError::NoRights => Refusal::bad("invalid_value", error),
        TokenError::Taken(_) | TokenError::TooMany => Refusal::new(StatusCode::CONFLICT, "taken", error)
            .hint("`hivemind tokens` lists them; `hivemind tokens remove NAME` revokes one"),
        TokenError::Unknown(_) => Refusal::missing("no_such_token", error).hint("`hivemind tokens` lists them"),
        TokenError::NotKept(unkept) => Refusal::internal(unkept).hint(unkept.hint()),
        TokenError::File { .. } | TokenError::Secret(_) => {
            Refusal::internal(error).hint("make the data folder writable, and free some space on its disk")
        }
        TokenError::Damaged { .. } => Refusal::internal(error),
    }
}

/// The refusal for a program whose token was revoked during its request.
pub(crate) fn revoked() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "revoked", "the API token was revoked or renewed meanwhile")
        .hint("ask the owner of this machine for a new one")
}

/// The owner's token and those of programs.
#[derive(Debug)]
pub(crate) struct Tokens {
    folder: PathBuf,
    owner: RwLock<(Token, Arc<Live>)>,
    programs: RwLock<Vec<Arc<Program>>>,
    /// Held during a change and its write, so that changes reach the disk in order. Requests never wait for it.
    changing: Mutex<()>,
}

impl Tokens {
    /// Opens the data folder's tokens; creates the owner's on first start.
    pub(crate) fn open(folder: &Path) -> Result<Self, TokenError> {
        let owner = Token::keep(folder)?;
        let live = Arc::new(Live::new(owner.digest()));
        let programs = read(&folder.join(FILE))?;
        Ok(Self {
            folder: folder.to_owned(),
            owner: RwLock::new((owner, live)),
            programs: RwLock::new(programs),
            changing: Mutex::new(()),
        })
    }

    /// The grant for a token, and whether its last-used day changed and must be written.
    pub(crate) fn recognise(&self, shown: &str, today: u64) -> Option<(Grant, bool)> {
        let digest = token::digest(shown);
        let owner = self.owner.read().unwrap_or_else(PoisonError::into_inner).1.clone();
        if owner.digest == digest {
            return Some((owner.grant(None, &Right::ALL), false));
        }
        let program = self.programs().into_iter().find(|program| program.live.digest == digest)?;
        let news = program.last_used_day.swap(today, Ordering::Relaxed) != today;
        Some((program.live.grant(Some(&program.name), &program.may), news))
    }

    pub(crate) fn prove(&self, nonce: &[u8; NONCE_BYTES], address: SocketAddr) -> String {
        self.owner.read().unwrap_or_else(PoisonError::into_inner).0.prove(nonce, address)
    }

    /// Creates a token. Only the returned value contains it; only its digest is stored.
    pub(crate) fn add(&self, name: &str, may: &[Right]) -> Result<Token, TokenError> {
        let _changing = self.changing();
        if border::name(name) != name || !border::is_plain(name) {
            return Err(TokenError::BadName);
        }
        if may.is_empty() {
            return Err(TokenError::NoRights);
        }
        let mut programs = self.programs();
        if programs.iter().any(|program| program.name == name) {
            return Err(TokenError::Taken(name.to_owned()));
        }
        if programs.len() >= MOST_TOKENS {
            return Err(TokenError::TooMany);
        }
        let mut may = may.to_vec();
        may.sort_unstable();
        may.dedup();
        let token = self.generate()?;
        let last_used_day = AtomicU64::new(0);
        let live = Live::new(token.digest());
        let (name, newer) = (name.to_owned(), Vec::new());
        programs.push(Arc::new(Program { name, may, newer, made_day: today(), last_used_day, live }));
        self.write(&programs)?;
        self.replace(programs);
        Ok(token)
    }

    /// Revokes a token in memory, then on disk. Every call writes the whole file, so one that succeeds also saves the
    /// revocations that earlier calls could not.
    pub(crate) fn remove(&self, name: &str) -> Result<(), TokenError> {
        let _changing = self.changing();
        let mut programs = self.programs();
        let gone = programs.iter().position(|program| program.name == name).map(|at| programs.remove(at));
        if let Some(gone) = &gone {
            self.replace(programs.clone());
            gone.live.revoked.send_replace(true);
        }
        self.write(&programs).map_err(|error| match error {
            TokenError::File { path, why } => NotKept::from(DataError::Unusable { path, error: why }).into(),
            error => error,
        })?;
        gone.map(drop).ok_or_else(|| TokenError::Unknown(name.to_owned()))
    }

    /// Replaces a program's token, keeping its rights. The old one is rejected from now on; its work ends when the
    /// [`Revocation`] is dropped.
    fn renew(&self, name: &str) -> Result<(Token, Revocation), TokenError> {
        let _changing = self.changing();
        let mut programs = self.programs();
        let program = programs.iter_mut().find(|program| program.name == name);
        let program = program.ok_or_else(|| TokenError::Unknown(name.to_owned()))?;
        let token = self.generate()?;
        let renewed = Program {
            name: name.to_owned(),
            may: program.may.clone(),
            newer: program.newer.clone(),
            made_day: today(),
            last_used_day: AtomicU64::new(program.last_used_day().unwrap_or(0)),
            live: Live::new(token.digest()),
        };
        let before = std::mem::replace(program, Arc::new(renewed));
        self.write(&programs)?;
        self.replace(programs);
        Ok((token, Revocation(before.live.revoked.clone())))
    }

    /// Replaces the owner's token in the data folder. The old one is rejected from now on; its work ends when the
    /// [`Revocation`] is dropped.
    fn renew_owner(&self) -> Result<Revocation, TokenError> {
        let _changing = self.changing();
        let token = Token::renew(&self.folder)?;
        let live = Arc::new(Live::new(token.digest()));
        let mut owner = self.owner.write().unwrap_or_else(PoisonError::into_inner);
        let (_, before) = std::mem::replace(&mut *owner, (token, live));
        Ok(Revocation(before.revoked.clone()))
    }

    /// Writes the days of last use to disk.
    pub(crate) fn note_use(&self) {
        let _changing = self.changing();
        if let Err(error) = self.write(&self.programs()) {
            tracing::debug!("when a token was last used could not be kept: {error}");
        }
    }

    pub(crate) fn views(&self) -> Vec<TokenView> {
        let view = |program: Arc<Program>| TokenView {
            name: program.name.clone(),
            may: program.may.clone(),
            made_day: program.made_day,
            last_used_day: program.last_used_day(),
        };
        self.programs().into_iter().map(view).collect()
    }

    fn generate(&self) -> Result<Token, TokenError> {
        Token::generate().map_err(|why| TokenError::File { path: self.folder.join(FILE), why })
    }

    fn programs(&self) -> Vec<Arc<Program>> {
        self.programs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, programs: Vec<Arc<Program>>) {
        *self.programs.write().unwrap_or_else(PoisonError::into_inner) = programs;
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, programs: &[Arc<Program>]) -> Result<(), TokenError> {
        let kept = |program: &Arc<Program>| Kept {
            name: program.name.clone(),
            digest: HEXLOWER.encode(&program.live.digest),
            may: program.may.iter().map(ToString::to_string).chain(program.newer.clone()).collect(),
            made_day: program.made_day,
            last_used_day: program.last_used_day(),
        };
        let path = self.folder.join(FILE);
        let text = serde_json::to_vec_pretty(&programs.iter().map(kept).collect::<Vec<_>>());
        let written = text.map_err(std::io::Error::other);
        let written = written.and_then(|text| hive_host::folders::write_private(&path, &text));
        written.map_err(|why| TokenError::File { path, why })
    }
}

fn read(path: &Path) -> Result<Vec<Arc<Program>>, TokenError> {
    let damaged = |why: String| TokenError::Damaged { path: path.to_owned(), why };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(TokenError::File { path: path.to_owned(), why }),
    };
    let kept: Vec<Kept> = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let program = |kept: Kept| {
        let digest = HEXLOWER.decode(kept.digest.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or_else(|| damaged(format!("the digest of \"{}\" is not one", kept.name)))?;
        let (may, newer) = kept.may.into_iter().partition::<Vec<_>, _>(|name| name.parse::<Right>().is_ok());
        Ok(Arc::new(Program {
            name: kept.name,
            may: may.iter().filter_map(|name| name.parse().ok()).collect(),
            newer,
            made_day: kept.made_day,
            last_used_day: AtomicU64::new(kept.last_used_day.unwrap_or(0)),
            live: Live::new(digest),
        }))
    };
    kept.into_iter().map(program).collect()
}

/// Today, in days since 1970-01-01 UTC; the unit of all days in this file.
pub fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / (24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::os::unix::fs::PermissionsExt;

    fn may(tokens: &Tokens, token: &Token) -> Option<Vec<Right>> {
        tokens.recognise(token.as_str(), 9).map(|(grant, _)| grant.may)
    }

    #[test]
    fn a_token_does_what_it_may_until_it_is_renewed_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let one = tokens.add("editor", &[Right::Models, Right::Chat, Right::Chat]).unwrap();
        assert_eq!(may(&tokens, &one), Some(vec![Right::Chat, Right::Models]));
        assert!(matches!(tokens.add("editor", &[Right::Chat]), Err(TokenError::Taken(_))));
        let (two, revocation) = tokens.renew("editor").unwrap();
        drop(revocation);
        assert_eq!((may(&tokens, &one), may(&tokens, &two)), (None, Some(vec![Right::Chat, Right::Models])));
        // The same after a restart.
        let again = Tokens::open(folder.path()).unwrap();
        assert_eq!((may(&again, &one), may(&again, &two)), (None, Some(vec![Right::Chat, Right::Models])));
        again.remove("editor").unwrap();
        assert_eq!((may(&again, &two), again.views()), (None, vec![]));
        assert!(matches!(again.remove("editor"), Err(TokenError::Unknown(_))));
        assert_eq!(may(&Tokens::open(folder.path()).unwrap(), &two), None);
    }

    #[test]
    fn a_revoked_token_opens_nothing_where_the_disk_is_full_and_is_written_away_later() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let token = tokens.add("editor", &[Right::Chat]).unwrap();
        // A directory in the file's place simulates a disk that rejects writes.
        let (file, aside) = (folder.path().join(FILE), folder.path().join("aside"));
        std::fs::rename(&file, &aside).unwrap();
        std::fs::create_dir_all(file.join("in the way")).unwrap();
        let message = tokens.remove("editor").unwrap_err().to_string();
        assert!(message.contains("will not survive a restart"), "{message}");
        assert_eq!(may(&tokens, &token), None);
        std::fs::remove_dir_all(&file).unwrap();
        std::fs::rename(&aside, &file).unwrap();
        assert!(matches!(tokens.remove("editor"), Err(TokenError::Unknown(_))));
        assert_eq!(may(&Tokens::open(folder.path()).unwrap(), &token), None, "it is back after a restart");
    }

    #[test]
    fn the_file_holds_no_token_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let token = tokens.add("editor", &[Right::Chat]).unwrap();
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(token.as_str()) && !text.contains(&token.as_str()[5..]), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "[{").unwrap();
        let message = Tokens::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("tokens.json is damaged"), "{message}");
    }

    #[test]
    fn a_right_of_a_newer_version_allows_nothing_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let token = Tokens::open(folder.path()).unwrap().add("editor", &[Right::Chat]).unwrap();
        let file = folder.path().join(FILE);
        let written = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap();
        let mut newer = written();
        newer[0]["may"] = json!(["chat", "agents"]);
        newer[0]["colour"] = json!("red");
        std::fs::write(&file, newer.to_string()).unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        assert_eq!(may(&tokens, &token), Some(vec![Right::Chat]));
        tokens.note_use();
        assert_eq!(written()[0]["may"], json!(["chat", "agents"]));
    }

    #[test]
    fn the_owners_token_is_renewed_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let before = Token::read(folder.path()).unwrap().unwrap();
        assert_eq!(may(&tokens, &before), Some(Right::ALL.to_vec()));
        drop(tokens.renew_owner().unwrap());
        let after = Token::read(folder.path()).unwrap().unwrap();
        assert_eq!((may(&tokens, &before), may(&tokens, &after)), (None, Some(Right::ALL.to_vec())));
    }

    #[test]
    fn the_day_of_the_last_use_is_kept_and_written_once_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        let token = tokens.add("editor", &[Right::Chat]).unwrap();
        assert_eq!(tokens.views()[0].last_used_day, None);
        let to_write = |day| tokens.recognise(token.as_str(), day).unwrap().1;
        assert_eq!([to_write(20_000), to_write(20_000), to_write(20_001)], [true, false, true]);
        tokens.note_use();
        assert_eq!(Tokens::open(folder.path()).unwrap().views()[0].last_used_day, Some(20_001));
    }

    #[test]
    fn names_that_cannot_be_shown_and_tokens_without_rights_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path()).unwrap();
        for name in ["", " a", "a\u{1b}[2J", "a\u{202e}b", "edit\u{43e}r", &"x".repeat(33)] {
            assert!(matches!(tokens.add(name, &[Right::Chat]), Err(TokenError::BadName)), "{name:?}");
        }
        assert!(matches!(tokens.add("editor", &[]), Err(TokenError::NoRights)));
        for at in 0..MOST_TOKENS {
            tokens.add(&at.to_string(), &[Right::Chat]).unwrap();
        }
        assert!(matches!(tokens.add("editor", &[Right::Chat]), Err(TokenError::TooMany)));
    }
}
