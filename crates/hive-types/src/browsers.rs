//! Browsers that may show HiveMind's pages.

use serde::{Deserialize, Serialize};

use crate::Language;

/// Where browsers may open HiveMind's pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(rename_all = "snake_case")]
pub enum BrowserAccess {
    /// Nowhere.
    #[default]
    Off,
    /// On this machine.
    Here,
    /// On this machine, and on other devices of its network, over TLS.
    Network,
}

impl std::str::FromStr for BrowserAccess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "here" => Ok(Self::Here),
            "network" => Ok(Self::Network),
            _ => Err(format!("\"{text}\" is not off, here or network")),
        }
    }
}

/// A link that lets one browser in: `POST /hive/v1/browsers/links`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct BrowserLink {
    /// What the browser opens. Its fragment has a code that is valid once.
    pub url: String,
    /// The certificate that the browser will see; none on this machine itself.
    pub certificate: Option<BrowserCertificate>,
    /// Validity in seconds.
    #[cfg_attr(feature = "specta", specta(type = i32))]
    pub valid_for_s: u64,
}

/// A certificate, by its fingerprints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
pub struct BrowserCertificate {
    /// SHA-256 of the certificate, as browsers show it: "0A 1B …".
    pub sha256: String,
    /// SHA-256 of its public key in base64, for programs that pin it.
    pub public_key_sha256: String,
}

/// Exchanges a link's code for a token: `POST /hive/v1/browsers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBrowser {
    /// The code in the link.
    pub code: String,
    /// What the browser is called among the owner's tokens, such as "Safari on iPhone".
    pub name: String,
}

/// How the pages are shown: `GET /hive/v1/view`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ViewQuery {
    /// The language of its words.
    pub language: Language,
}
