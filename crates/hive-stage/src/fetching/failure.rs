//! Why layers of a model are not fetched.

use std::fmt::Display;

use hive_store::HubError;

/// Why a machine cannot have the layers that it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// The model is not here, and is not fetched.
    #[error("the model is not on this machine")]
    Lacks,
    /// The disk is too full.
    #[error(
        "its disk has room for {:.1} GB more, and these layers take {:.1} GB; free some space there",
        *free as f64 / 1e9,
        *needed as f64 / 1e9
    )]
    Disk {
        /// Size of the layers, in bytes.
        needed: u64,
        /// Space that may be used, in bytes.
        free: u64,
    },
    /// The owner's limit is reached.
    #[error(
        "its owner allows {:.1} GB of disk for fetched models, of which {:.1} GB can be had, and these layers take {:.1} GB; \
         unload a model there, or raise `disk` in its config.toml",
        *cap as f64 / 1e9,
        *free as f64 / 1e9,
        *needed as f64 / 1e9
    )]
    Cap {
        /// Size of the layers, in bytes.
        needed: u64,
        /// The limit, in bytes.
        cap: u64,
        /// The unused part of it, in bytes.
        free: u64,
    },
    /// No machine sends the rest of a model that is on no hub.
    #[error(
        "the machine that has these layers is away, or stopped sending them; the downloaded data is kept, so try again once it \
         is back"
    )]
    Away,
    /// The hub wants a token, or another one.
    #[error(transparent)]
    Denied(HubError),
    /// The hub does not serve this machine the missing bytes.
    #[error("{0}")]
    Hub(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl FetchFailure {
    pub(crate) fn hub(error: impl Display) -> Self {
        Self::Hub(error.to_string())
    }

    pub(crate) fn other(error: impl Display) -> Self {
        Self::Other(error.to_string())
    }
}
