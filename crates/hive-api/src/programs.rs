//! The tokens of programs, for the app, which has the API in its own process.

use hive_types::{IssuedToken, Right, TokenView};

use crate::Api;
use crate::tokens::TokenError;

impl Api {
    /// The tokens that the owner has created for programs.
    pub fn tokens(&self) -> Vec<TokenView> {
        self.tokens.views()
    }

    /// Creates a token. It is not stored, so this is the only time that it can be shown. Writes to the disk.
    pub fn add_token(&self, name: &str, may: &[Right]) -> Result<IssuedToken, TokenError> {
        let token = self.tokens.add(name, may)?;
        Ok(IssuedToken { name: name.to_owned(), token: token.as_str().to_owned() })
    }

    /// Revokes a token: it is refused from now on, and the work it authorized ends. Writes to the disk.
    pub fn revoke_token(&self, name: &str) -> Result<(), TokenError> {
        self.tokens.remove(name)
    }
}
