//! Refusals by other machines, as texts and errors.

use crate::Reply;

/// For a machine whose reply does not match the request.
pub const NONSENSE: &str = "it sent a reply that makes no sense";

/// For a model that a machine lacks or cannot use; the reply does not say which.
pub const UNUSABLE: &str = "it has no model of this name and version that it can use; download the same model on both machines, or \
     update it there";

/// Turns a refusal into an error.
pub fn refusal(answer: Reply) -> Result<Reply, String> {
    match answer {
        Reply::Refused(why) | Reply::Declined(why) | Reply::Full(why) | Reply::Unfit(why) => Err(why),
        Reply::Lacks => Err(UNUSABLE.to_owned()),
        answer => Ok(answer),
    }
}
