//! Why the API could not start, or not be opened to browsers.

use std::io::ErrorKind;
use std::net::SocketAddr;

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is reachable from other machines.
    #[error("the API listens on this machine only; {0} can be reached by others")]
    NotLoopback(SocketAddr),
    /// Binding failed; usually the address is in use.
    #[error("the API cannot listen on {address}: {why}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        why: std::io::Error,
    },
    /// The address for other devices cannot be used.
    #[error("the pages for browsers cannot listen on {address}: {why}")]
    BindForBrowsers {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        why: std::io::Error,
    },
    /// The pages cannot be opened to other devices.
    #[error("the pages cannot be opened to other devices: {0}")]
    Browsers(String),
    /// The tokens could not be read or created.
    #[error("the API's tokens cannot be used: {0}")]
    Tokens(String),
}

impl ApiError {
    /// How to fix the error, if its message does not say so.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotLoopback(_) => Some("leave --api out, or give an address like 127.0.0.1:4483"),
            Self::Bind { why, .. } if why.kind() == ErrorKind::AddrInUse => {
                Some("another HiveMind may run; choose another --api address")
            }
            Self::Bind { .. } => Some("choose another --api address, or leave it out for 127.0.0.1:4483"),
            Self::BindForBrowsers { .. } => Some("set `browser_bind` in config.toml to an address with a free port"),
            Self::Tokens(_) | Self::Browsers(_) => {
                Some("make the data folder writable, and free some space on its disk")
            }
        }
    }
}
