//! This machine's identity: read from the platform's key store, or created at the first start.

use hive_host::SecretError;
use hive_net::Identity;
use hive_net::identity::IdentityError;

use crate::data::DataFolder;

/// Its name in the key store.
const NAME: &str = "identity.key";

/// Why the identity cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key store failed.
    #[error(transparent)]
    Store(#[from] SecretError),
    /// The stored identity is invalid.
    #[error(transparent)]
    Kept(#[from] IdentityError),
}

impl OpenError {
    /// How to fix it, unless the error says so itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(SecretError::File { .. }) => {
                Some("make the data folder writable, and free some space on its disk")
            }
            Self::Store(SecretError::Keychain(_)) => Some("unlock the Keychain, then try again"),
            Self::Store(SecretError::Exposed(_)) | Self::Kept(_) => None,
        }
    }
}

/// Opens the identity of the node whose data folder is `data`.
///
/// If the identity was created on another machine, the folder was copied. This machine then gets a new identity: two
/// machines with one key would keep disconnecting each other.
pub(crate) fn open(data: &DataFolder) -> Result<Identity, OpenError> {
    let host = hive_host::this();
    let (store, machine) = (host.secrets(data.path()), host.machine_id());
    if let Some(text) = store.read(NAME)? {
        match Identity::from_text(&text, machine.as_deref()) {
            Err(IdentityError::OtherMachine) => {
                tracing::warn!("this data folder comes from another machine; this one gets an identity of its own");
            }
            kept => return Ok(kept?),
        }
    }
    let identity = Identity::generate();
    store.write(NAME, &identity.to_text(machine.as_deref()))?;
    Ok(identity)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_a_copy_elsewhere_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let first = open(&data).unwrap().id();
        assert_eq!(open(&data).unwrap().id(), first);

        let store = hive_host::this().secrets(folder.path());
        let elsewhere = Identity::generate().to_text(Some("another machine"));
        store.write(NAME, &elsewhere).unwrap();
        let third = open(&data).unwrap().id();
        assert_ne!(third, first);
        assert_eq!(open(&data).unwrap().id(), third, "and keeps it");

        store.write(NAME, "nonsense").unwrap();
        assert!(open(&data).unwrap_err().to_string().contains("damaged"));
    }
}
