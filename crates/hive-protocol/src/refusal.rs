//! What a machine says no to, in words.

use crate::Answer;

/// What is said of a machine that replies with something else than was asked for.
pub const NONSENSE: &str = "it sent a reply that makes no sense";

/// What a machine says of a model that is not on its disk, and of one that it cannot use: it does not tell which.
pub const UNUSABLE: &str = "it has no model of this name and version that it can use; download the same model on both machines, or \
     update it there";

/// What a machine refuses, as an error.
pub fn refusal(answer: Answer) -> Result<Answer, String> {
    match answer {
        Answer::Refused(why) | Answer::Declined(why) | Answer::Full(why) | Answer::Unfit(why) => Err(why),
        Answer::Lacks => Err(UNUSABLE.to_owned()),
        answer => Ok(answer),
    }
}
