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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerState, PlanView, Profile};

    #[test]
    fn a_value_that_is_not_understood_keeps_nothing_else_from_being_read() {
        let plan = r#"{"model":"m","because":[{"kind":"one_machine"},{"kind":"away"},{"kind":"moon_phase"},7]}"#;
        let plan: PlanView = serde_json::from_str(plan).unwrap();
        assert_eq!(plan.because, [Reason::OneMachine, Reason::Unknown, Reason::Unknown, Reason::Unknown]);
        let profile = r#"{"name":"Mini","why_not_sharing":{"kind":"paused","until":7}}"#;
        let profile: Profile = serde_json::from_str(profile).unwrap();
        assert_eq!((profile.name.as_str(), profile.why_not_sharing), ("Mini", None));
        let away = r#"{"state":"unreachable","why":"far away","absence":{}}"#;
        let why = "far away".to_owned();
        let read: PeerState = serde_json::from_str(away).unwrap();
        assert_eq!(read, PeerState::Unreachable { why, absence: None, since: 0 });
    }
}
