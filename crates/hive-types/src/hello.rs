//! The handshake in which a node proves that it knows the owner's token, before a client sends it that token.

use serde::{Deserialize, Serialize};

/// Asks a node for proof: `GET /hive/v1/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloQuery {
    /// 32 random bytes, as lower-case hexadecimal digits.
    pub nonce: String,
}

/// The proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// HMAC-SHA256 of the address and the nonce, keyed with the owner's token, as hexadecimal digits.
    pub proof: String,
}
