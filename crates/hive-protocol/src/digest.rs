//! Digests of rows, to compare the rows that a stage received with those that another machine recomputes.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The digest of one row: half of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDigest([u8; 16]);

impl RowDigest {
    /// The digest of a row.
    pub fn of(row: &[u8]) -> Self {
        let whole: [u8; 32] = Sha256::digest(row).into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        Self(half)
    }
}

/// The digests of `rows` rows of equal length.
pub fn digests(bytes: &[u8], rows: usize) -> Vec<RowDigest> {
    if rows == 0 || bytes.is_empty() {
        return Vec::new();
    }
    bytes.chunks_exact(bytes.len() / rows).map(RowDigest::of).collect()
}

/// The digests of tokens, each a row of four bytes.
pub fn token_digests(tokens: &[u32]) -> Vec<RowDigest> {
    tokens.iter().map(|token| RowDigest::of(&token.to_le_bytes())).collect()
}
