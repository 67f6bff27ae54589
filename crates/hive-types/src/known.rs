//! Reads values of another version as far as they are known: one that is not understood has its English beside it, and
//! keeps nothing else from being read.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::Reason;

#[derive(Deserialize)]
#[serde(untagged)]
enum Known<T> {
    Known(T),
    Other(IgnoredAny),
}

/// The value; `None` if it is not understood.
pub fn if_known<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        Some(Known::Known(value)) => Some(value),
        Some(Known::Other(_)) | None => None,
    })
}

/// The reasons; those that are not understood are unknown.
pub(crate) fn reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Reason>, D::Error> {
    let all = Vec::<Known<Reason>>::deserialize(deserializer)?.into_iter();
    Ok(all
        .map(|reason| match reason {
            Known::Known(reason) => reason,
            Known::Other(_) => Reason::Unknown,
        })
        .collect())
}
