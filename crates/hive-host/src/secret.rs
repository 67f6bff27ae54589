//! Secret storage: the Keychain on macOS, private files elsewhere.

use std::path::{Path, PathBuf};

/// Why a secret could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file system failed.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Other users can read it, so it is no longer secret.
    #[error("{0} can be read by others on this machine; if only you have used it, run `chmod 600` on it")]
    Exposed(PathBuf),
    /// The Keychain refused.
    #[error("the Keychain refused: {0}")]
    Keychain(String),
}

/// A store of named secrets.
pub trait SecretStore: Send + Sync {
    /// Reads a secret; `None` if it was never written.
    fn read(&self, name: &str) -> Result<Option<String>, SecretError>;

    /// Writes a secret, replacing an older one.
    fn write(&self, name: &str, secret: &str) -> Result<(), SecretError>;

    /// Removes a secret, if there is one.
    fn remove(&self, name: &str) -> Result<(), SecretError>;
}

/// Files with mode 0600 in a folder.
#[derive(Debug)]
pub struct FileSecrets {
    folder: PathBuf,
}

impl FileSecrets {
    /// Secrets in `folder`, which must exist.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl SecretStore for FileSecrets {
    fn read(&self, name: &str) -> Result<Option<String>, SecretError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(name);
        let failed = |error| SecretError::File { path: path.clone(), error };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => return Err(SecretError::Exposed(path)),
            Ok(_) => {}
        }
        std::fs::read_to_string(&path).map(Some).map_err(failed)
    }

    fn write(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        let path = self.folder.join(name);
        crate::folders::write_private(&path, secret.as_bytes()).map_err(|error| SecretError::File { path, error })
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SecretError::File { path, error }),
            _ => Ok(()),
        }
    }
}

/// The owner's Keychain, with one entry per data folder, so that several nodes can share it.
#[cfg(target_os = "macos")]
#[derive(Debug)]
pub(crate) struct Keychain {
    folder: PathBuf,
}

#[cfg(target_os = "macos")]
impl Keychain {
    /// Secrets of the node with this data folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn entry(&self, name: &str) -> Result<keyring_core::Entry, SecretError> {
        let store = apple_native_keyring_store::keychain::Store::new().map_err(refused)?;
        let store: std::sync::Arc<keyring_core::CredentialStore> = store;
        let account = format!("{name} {}", self.folder.display());
        keyring_core::Entry::new_in_store(&store, "dev.hivemind.desktop", &account).map_err(refused)
    }
}

#[cfg(target_os = "macos")]
fn refused(error: keyring_core::Error) -> SecretError {
    SecretError::Keychain(error.to_string())
}

#[cfg(target_os = "macos")]
impl SecretStore for Keychain {
    fn read(&self, name: &str) -> Result<Option<String>, SecretError> {
        match self.entry(name)?.get_password() {
            Ok(secret) => Ok(Some(secret)),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }

    fn write(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        self.entry(name)?.set_password(secret).map_err(refused)
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        match self.entry(name)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_kept_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = FileSecrets::new(folder.path());
        assert_eq!(secrets.read("key").unwrap(), None);
        secrets.write("key", "one").unwrap();
        secrets.write("key", "two").unwrap();
        assert_eq!(secrets.read("key").unwrap().as_deref(), Some("two"));
        let path = folder.path().join("key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(secrets.read("key").unwrap_err().to_string().contains("chmod 600"));
        secrets.remove("key").unwrap();
        secrets.remove("key").unwrap();
        assert_eq!(secrets.read("key").unwrap(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let secrets = FileSecrets::new(Path::new("/proc/nowhere"));
        let message = secrets.write("key", "x").unwrap_err().to_string();
        assert!(message.contains("/proc/nowhere/key"), "{message}");
    }
}
