//! What a machine says no to, in words.

use crate::Reply;

/// What is said of a machine that replies with something else than was asked for.
pub const NONSENSE: &str = "it sent a reply that makes no sense";

/// What a machine says of a model that is not on its disk, and of one that it cannot use: it does not tell which.
pub const UNUSABLE: &str = "it has no model of this name and version that it can use; download the same model on both machines, or \
     update it there";

/// What a machine refuses, as an error.
pub fn refusal(answer: Reply) -> Result<Reply, String> {
    match answer {
        Reply::Refused(why) | Reply::Declined(why) | Reply::Full(why) | Reply::Unfit(why) => Err(why),
        Reply::Lacks => Err(UNUSABLE.to_owned()),
        answer => Ok(answer),
    }
}
