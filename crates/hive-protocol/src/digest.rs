//! Fingerprints of rows: what a stage was given is compared by them with what another machine computes once more.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The fingerprint of one row: half of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDigest([u8; 16]);

impl RowDigest {
    /// The fingerprint of a row.
    pub fn of(row: &[u8]) -> Self {
        let whole: [u8; 32] = Sha256::digest(row).into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        Self(half)
    }
}

/// Of each of so many rows of equal length.
pub fn digests(bytes: &[u8], rows: usize) -> Vec<RowDigest> {
    if rows == 0 || bytes.is_empty() {
        return Vec::new();
    }
    bytes.chunks_exact(bytes.len() / rows).map(RowDigest::of).collect()
}

/// Of tokens, which are rows of four bytes.
pub fn token_digests(tokens: &[u32]) -> Vec<RowDigest> {
    tokens.iter().map(|token| RowDigest::of(&token.to_le_bytes())).collect()
}
