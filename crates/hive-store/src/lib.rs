//! Weights on their way to this machine's disk: models fetched from a hub into the cache that other programs share.
//!
//! A [`ModelName`] is what people write. [`Hub::find`] turns it into a [`Listing`]: a pinned commit, and the files that
//! the model needs with their sizes and checksums. [`fetch`] downloads these into the Hugging Face cache, as
//! `huggingface_hub` lays it out, so that `mlx-lm` and others find them, and what they fetched is not fetched again.
//!
//! ```no_run
//! # async fn example(cache: std::path::PathBuf) -> Result<(), Box<dyn std::error::Error>> {
//! use hive_store::{FetchOptions, Hub, Settings, fetch};
//!
//! let hub = Hub::new(cache, &Settings::from_environment())?;
//! let listing = hub.find(&"mlx-community/SmolLM2-135M-Instruct".parse()?).await?;
//! let folder = fetch(&hub, &listing, &FetchOptions::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A machine that runs some layers of a model needs the byte ranges of these. [`fetch_parts`] downloads ranges into a
//! [`PartCopy`] of a [`PartStore`], whose files readers use as if they were whole.
//!
//! A fetch can end at any byte, by cancelling, by a lost network or by `kill -9`, and the next one resumes there.
//! Nothing
//! appears in a snapshot before all of it has arrived and its checksums hold.
//!
//! No program (pickle, Python) is fetched, and no name that a stranger chose leads out of the cache.

mod backoff;
mod beside;
mod cache;
mod checksum;
mod choose;
mod error;
mod fetch;
mod file_name;
pub mod gguf_name;
mod hub;
mod name;
mod parts;
mod settings;
mod size;

pub use checksum::Checksum;
pub use error::{Choice, FetchError, FindError, HubError};
pub use fetch::{Event, FetchOptions, Progress, RateLimit, Wait, fetch, fetch_parts};
pub use file_name::{FileName, UnsafeName};
pub use hub::{Hub, Listing, RemoteFile};
pub use name::{MAIN, ModelName, NameError, Part};
pub use parts::{
    BLOCK, Coming, Confirming, InUse, Known, Manifest, ManifestError, ManifestFile, NoRoom, Origin, PartCopy,
    PartStore, Space,
};
pub use settings::{RetryPolicy, Settings, Token};
