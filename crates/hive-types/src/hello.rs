//! Who listens: a node proves that it knows the data folder's token, before anybody sends it that token.

use serde::{Deserialize, Serialize};

/// A node is asked to prove itself: `GET /hive/v1/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloQuery {
    /// 32 random bytes, as lower-case hexadecimal digits.
    pub nonce: String,
}

/// The answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// HMAC-SHA256 of the address and the number, keyed with the owner's token, as hexadecimal digits.
    pub proof: String,
}
