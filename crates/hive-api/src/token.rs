//! API tokens: a client's credential, and the key with which a node proves its identity before it receives one.

use std::net::SocketAddr;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hive_host::SecretError;
use hive_host::secret::{FileSecrets, SecretStore};
use ring::hmac;
use sha2::{Digest, Sha256};

/// File name of the owner's token in the data folder.
pub(crate) const FILE: &str = "api-token";

/// Size of a nonce, in bytes.
pub(crate) const NONCE_BYTES: usize = 32;

/// A client's credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Creates a token of 256 random bits.
    pub(crate) fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(format!("hive-{}", BASE32_NOPAD.encode(&bytes).to_lowercase())))
    }

    /// Reads the data folder's token, or creates it on first start.
    pub(crate) fn keep(folder: &Path) -> Result<Self, SecretError> {
        match Self::read(folder)? {
            Some(token) if !token.0.is_empty() => Ok(token),
            _ => Self::renew(folder),
        }
    }

    /// Replaces the data folder's token with a new one.
    pub(crate) fn renew(folder: &Path) -> Result<Self, SecretError> {
        let token = Self::generate().map_err(|error| SecretError::File { path: folder.join(FILE), error })?;
        // A file on every platform: other programs read it, and the Keychain would prompt the owner for each of them.
        FileSecrets::new(folder).write(FILE, &token.0)?;
        Ok(token)
    }

    /// Reads the data folder's token, to authenticate with a running node.
    pub fn read(folder: &Path) -> Result<Option<Self>, SecretError> {
        Ok(FileSecrets::new(folder).read(FILE)?.map(|token| Self(token.trim().to_owned())))
    }

    /// The token as sent in a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&self.0)
    }

    /// Proves that the listener at `address` knows this token without revealing it. The client chooses `nonce`.
    ///
    /// The proof covers the address, so that a program at another address cannot relay the challenge to the node and
    /// return its proof.
    pub(crate) fn prove(&self, nonce: &[u8; NONCE_BYTES], address: SocketAddr) -> String {
        HEXLOWER.encode(hmac::sign(&self.key(), &proven(nonce, address)).as_ref())
    }

    /// Whether the proof was made with this token at `address`.
    pub fn is_proven(&self, nonce: &[u8; NONCE_BYTES], address: SocketAddr, proof: &str) -> bool {
        let Ok(proof) = HEXLOWER.decode(proof.as_bytes()) else { return false };
        hmac::verify(&self.key(), &proven(nonce, address), &proof).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes())
    }
}

/// Digests are compared instead of tokens, so that timing reveals nothing about a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn proven(nonce: &[u8; NONCE_BYTES], address: SocketAddr) -> Vec<u8> {
    [b"HiveMind API ", address.to_string().as_bytes(), b" ", &nonce[..]].concat()
}

/// A random nonce.
pub fn nonce() -> std::io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::keep(folder.path()).unwrap();
        assert!(token.as_str().len() > 40);
        assert_eq!(Token::keep(folder.path()).unwrap(), token);
        assert_eq!(Token::read(folder.path()).unwrap(), Some(token.clone()));
        let renewed = Token::renew(folder.path()).unwrap();
        assert_ne!(renewed, token);
        assert_eq!(Token::keep(folder.path()).unwrap(), renewed);
    }

    #[test]
    fn a_proof_is_of_one_token_one_address_and_one_number() {
        let (token, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        let (here, elsewhere) = ("127.0.0.1:4483".parse().unwrap(), "127.0.0.1:4484".parse().unwrap());
        let (one, two) = (nonce().unwrap(), nonce().unwrap());
        let proof = token.prove(&one, here);
        assert!(token.is_proven(&one, here, &proof));
        assert!(!token.is_proven(&two, here, &proof));
        assert!(!token.is_proven(&one, elsewhere, &proof));
        assert!(!other.is_proven(&one, here, &proof));
        assert!(!token.is_proven(&one, here, ""));
        assert!(!proof.contains(token.as_str()));
    }
}
