//! This machine's identity: read from the platform's store, or made at the first start.

use hive_host::SecretError;
use hive_net::Identity;
use hive_net::identity::IdentityError;

use crate::data::DataFolder;

/// Where the identity is kept in the store.
const NAME: &str = "identity.key";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] SecretError),
    /// What was kept.
    #[error(transparent)]
    Kept(#[from] IdentityError),
}

impl OpenError {
    /// What to do about it, where the error does not say so itself.
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

/// The identity of the node whose data is in `data`.
///
/// One that was made on another machine came with a copied folder. This machine gets its own: two machines with one key
/// would push each other out of the swarm.
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
