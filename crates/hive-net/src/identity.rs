//! This machine's identity: an Ed25519 key, generated once and bound to the machine.
//!
//! The key is stored as one line of text, `1 MACHINE KEY`, in the platform's secret store. MACHINE is a digest of the
//! machine's own id, which detects a home folder copied to another machine: two machines with one key would keep
//! replacing each other's connections.

use data_encoding::HEXLOWER;
use iroh::SecretKey;
use sha2::{Digest, Sha256};

use crate::addr::PeerId;

/// A machine's key pair.
#[derive(Debug, Clone)]
pub struct Identity {
    secret: SecretKey,
}

/// Why a stored identity cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is not in the stored format.
    #[error(
        "the stored identity is damaged; remove it to get a new one, and approve this machine again from the others"
    )]
    Damaged,
    /// It was made on another machine.
    #[error("this identity was made on another machine")]
    OtherMachine,
}

impl Identity {
    /// Generates a new key.
    pub fn generate() -> Self {
        Self { secret: SecretKey::generate() }
    }

    /// Parses the text of [`Identity::to_text`], if it was written here. A machine without an id accepts any.
    pub fn from_text(text: &str, machine_id: Option<&str>) -> Result<Self, IdentityError> {
        let mut parts = text.split_whitespace();
        let (Some("1"), Some(machine), Some(key), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Damaged);
        };
        let bytes = HEXLOWER.decode(key.as_bytes()).map_err(|_| IdentityError::Damaged)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| IdentityError::Damaged)?;
        if machine_id.is_some_and(|id| digest(id) != machine) {
            return Err(IdentityError::OtherMachine);
        }
        Ok(Self { secret: SecretKey::from_bytes(&bytes) })
    }

    /// The text for a secret store.
    pub fn to_text(&self, machine_id: Option<&str>) -> String {
        format!("1 {} {}", machine_id.map_or_else(|| "-".to_owned(), digest), HEXLOWER.encode(&self.secret.to_bytes()))
    }

    /// The public key.
    pub fn id(&self) -> PeerId {
        PeerId::new(self.secret.public())
    }

    pub(crate) fn secret(&self) -> SecretKey {
        self.secret.clone()
    }
}

/// Only a digest of the machine's id is stored: other programs use the id, too.
fn digest(machine_id: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(format!("HiveMind machine {}", machine_id.trim()))[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_on_its_own_machine_only() {
        let identity = Identity::generate();
        let text = identity.to_text(Some("machine-a\n"));
        assert_eq!(Identity::from_text(&text, Some("machine-a")).unwrap().id(), identity.id());
        assert_eq!(Identity::from_text(&text, Some("machine-b")).unwrap_err(), IdentityError::OtherMachine);
        assert_eq!(Identity::from_text(&text, None).unwrap().id(), identity.id());
    }

    #[test]
    fn a_damaged_identity_is_no_identity() {
        let text = Identity::generate().to_text(Some("m"));
        let other_version = text.replacen('1', "2", 1);
        for damaged in [&text[..text.len() - 2], "", "1 - zz", &other_version, &format!("{text} x")] {
            assert_eq!(Identity::from_text(damaged, Some("m")).unwrap_err(), IdentityError::Damaged, "{damaged}");
        }
    }
}
