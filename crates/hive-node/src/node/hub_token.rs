//! The owner's token for the hub that models are fetched from. The platform's key store keeps it; no reply, log or setting
//! has it.

use std::path::Path;

use hive_host::SecretError;
use hive_stage::aside;
use hive_store::{Settings, Token};
use hive_types::HubToken;

use super::Node;

/// Its name in the key store.
const NAME: &str = "hub-token";

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum HubTokenError {
    /// Something else was pasted.
    #[error("this is not a token: one is a word of letters, digits and underscores, such as hf_…; copy it again")]
    Malformed,
    /// The key store failed.
    #[error(transparent)]
    NotKept(#[from] SecretError),
}

/// The hub's settings for the node with this data folder. The owner's token, otherwise `HF_TOKEN`.
pub fn hub_settings(folder: &Path) -> Result<Settings, SecretError> {
    Ok(Settings::with_token(stored(folder)?))
}

fn stored(folder: &Path) -> Result<Option<Token>, SecretError> {
    Ok(hive_host::this().secrets(folder).read(NAME)?.and_then(|text| Token::new(&text)))
}

impl Node {
    /// Which tokens there are.
    pub fn hub_token(&self) -> HubToken {
        HubToken {
            stored: self.host().has_hub_token(),
            in_environment: aside(Settings::from_environment).token.is_some(),
        }
    }

    /// Takes a token as a person pasted it; `None` forgets the one that was given. Downloads use it at once.
    pub fn set_hub_token(&self, token: Option<&str>) -> Result<(), HubTokenError> {
        let token = token.map(|text| Token::new(text).ok_or(HubTokenError::Malformed)).transpose()?;
        if let Some(data) = self.member().data() {
            let secrets = hive_host::this().secrets(data.path());
            aside(|| match &token {
                Some(token) => secrets.write(NAME, token.secret()),
                None => secrets.remove(NAME),
            })?;
        }
        self.host().set_hub_token(token);
        Ok(())
    }

    /// Takes the token that was given before.
    pub(super) fn read_hub_token(&self) {
        let Some(data) = self.member().data() else { return };
        match stored(data.path()) {
            Ok(token) => self.host().set_hub_token(token),
            Err(why) => tracing::warn!("the token for downloads cannot be read: {why}"),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::NodeOptions;
    use crate::data::DataFolder;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_is_kept_for_its_owner_and_told_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let start = async || {
            let data = DataFolder::open(folder.path()).unwrap();
            let options = NodeOptions::new("ann".to_owned(), "127.0.0.1:0".parse().unwrap());
            Node::start(NodeOptions { data: Some(data), ..options }).await.unwrap()
        };
        let node = start().await;
        assert!(!node.hub_token().stored);
        for text in ["", "  ", "two words", "ümlaut"] {
            assert!(matches!(node.set_hub_token(Some(text)), Err(HubTokenError::Malformed)), "{text:?}");
        }
        node.set_hub_token(Some(" hf_secret\n")).unwrap();
        assert!(node.hub_token().stored);
        node.stop().await;
        drop(node);

        let node = start().await;
        assert!(node.hub_token().stored, "it is read at the next start");
        let file = folder.path().join(NAME);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hf_secret");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(hub_settings(folder.path()).unwrap().token.is_some());
        node.set_hub_token(None).unwrap();
        assert!(!node.hub_token().stored && !file.exists());
        node.stop().await;
    }
}
