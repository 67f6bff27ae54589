//! Starting an answer.

use std::sync::Arc;
use std::time::Instant;

use hive_stage::{AdaptFailure, AdapterFiles};
use jiff::civil::DateTime;
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::answer::run::start;
use crate::events::Event;
use crate::request::{GenerateError, Request};
use crate::ring::Ring;
use crate::source::Source;

/// An answer that has begun.
pub struct Reply {
    /// Identifies it in every log line, from here to the stages.
    pub id: u64,
    /// The ring that answers.
    pub ring: Ring,
    /// Its events; dropping the receiver cancels the answer.
    pub events: mpsc::Receiver<Event>,
}

/// The local time now.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

impl Ring {
    /// Starts an answer on these stages only; it ends if the ring is abandoned. Its events arrive on the receiver;
    /// dropping that cancels the answer.
    pub async fn generate(&self, request: &Request) -> Result<mpsc::Receiver<Event>, GenerateError> {
        let prompt = self.prompt(request, now()).await?;
        Ok(self.start(prompt, request, None).await?.events)
    }

    /// The same for a tokenized prompt; the request's messages are ignored.
    pub async fn generate_tokens(
        &self,
        prompt: Vec<u32>,
        request: &Request,
    ) -> Result<mpsc::Receiver<Event>, GenerateError> {
        Ok(self.start(prompt, request, None).await?.events)
    }

    /// The tokens of a conversation; its chat template may show the time at which it `began`.
    pub async fn prompt(&self, request: &Request, began: DateTime) -> Result<Vec<u32>, GenerateError> {
        request.sampling.check()?;
        Ok(self.model().prompt(&request.conversation, began).await?)
    }

    /// Starts an answer to a prompt. If the ring is abandoned or superseded, the answer resumes on the ring that
    /// `source` provides.
    pub async fn start(
        &self,
        prompt: Vec<u32>,
        request: &Request,
        source: Option<Arc<dyn Source>>,
    ) -> Result<Reply, GenerateError> {
        let started = Instant::now();
        request.sampling.check()?;
        let card = self.model().card();
        self.check_resume_tokens(&request.resume_tokens)?;
        let (limit, known) = (card.max_context, prompt.len() + request.resume_tokens.len());
        if prompt.is_empty() || known >= limit {
            return Err(GenerateError::TooLong { tokens: known, limit });
        }
        // The token at the last position is never an input, so the answer may reach one past the context.
        let room = limit - known + 1;
        let max_tokens = request.max_tokens.unwrap_or(room).min(room);
        if max_tokens == 0 {
            return Err(GenerateError::NoTokens);
        }
        let (tokens, room) = (known + max_tokens, self.room_tokens());
        // If no length was requested, it is as long as there is room.
        let max_tokens =
            if request.max_tokens.is_none() { max_tokens.min(room.saturating_sub(known)) } else { max_tokens };
        if max_tokens == 0 || known + max_tokens > room {
            return Err(GenerateError::NoRoom { tokens, room });
        }
        if let Some(adapter) = &request.adapter {
            self.check_adapter(adapter).await?;
        }
        let id = self.new_id();
        let answer = Answer::new(id, self.clone(), source, prompt, request, max_tokens, started);
        let events = start(answer).await.map_err(|error| GenerateError::Resume(error.to_string()))?;
        Ok(Reply { id, ring: self.clone(), events })
    }

    /// Has every stage load the adapter, to learn whether it suits the model. A stage that cannot be reached gets it with
    /// its session.
    async fn check_adapter(&self, adapter: &AdapterFiles) -> Result<(), GenerateError> {
        let given = (0..self.stages().len()).map(|index| self.give_adapter(index, adapter));
        for (index, given) in futures_util::future::join_all(given).await.into_iter().enumerate() {
            match given {
                Err(AdaptFailure::Unfit(why) | AdaptFailure::Full(why)) => return Err(GenerateError::Adapter(why)),
                Err(AdaptFailure::Failed(why)) => tracing::info!("stage {index} does not have the adapter yet: {why}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn check_resume_tokens(&self, tokens: &[u32]) -> Result<(), GenerateError> {
        let card = self.model().card();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= card.vocabulary) {
            return Err(GenerateError::Resume(format!("the model has no token {token}")));
        }
        if tokens.iter().any(|token| card.end_tokens.contains(token)) {
            return Err(GenerateError::Resume("it was complete".to_owned()));
        }
        Ok(())
    }
}
