//! Answers by the swarm.

use std::sync::Arc;
use std::time::Duration;

use hive_ring::{Loading, Reply, Request, Ring, Source, SourceError};
use jiff::civil::DateTime;

use super::Serving;
use crate::error::{AnswerError, ServeError};
use crate::model_request::ModelRequest;

/// A machine may leave while a model is loaded; then it is loaded on the others.
const ATTEMPTS: usize = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(1);

/// The local time.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

/// Whoever asked for a model, for as long as its answer takes.
struct Asker {
    serving: Serving,
    wanted: ModelRequest,
}

impl Source for Asker {
    /// The model on the machines that are there: as many as were wished for, else as many as it takes.
    fn ring(&self) -> Loading<'_> {
        Box::pin(async {
            let ring = match self.serving.model(&self.wanted).await {
                Err(ServeError::TooFew { .. }) => {
                    self.serving.model(&ModelRequest { stages: None, ..self.wanted.clone() }).await
                }
                result => result,
            };
            ring.map_err(|error| SourceError(error.to_string()))
        })
    }

    fn finished(&self, ring: Ring, tokens: usize, time: Duration) {
        let serving = self.serving.clone();
        self.serving.member().spawn(async move { serving.judge(&ring, tokens, time).await });
    }
}

impl Serving {
    /// Starts an answer by the swarm. It goes on over other machines when one leaves in the middle of it.
    pub async fn generate(&self, wanted: &ModelRequest, request: &Request) -> Result<Reply, AnswerError> {
        let mut attempt = 1;
        loop {
            let ring = match self.model(wanted).await {
                Err(ServeError::Load(error)) if attempt < ATTEMPTS && !error.is_the_models() => {
                    tracing::info!("the model is loaded anew: {error}");
                    attempt += 1;
                    // Long enough for a machine that has gone to be known as gone.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                ring => ring?,
            };
            let prompt = ring.prompt(request, self.inner.openings.began(&request.conversation, now())).await?;
            let source = Arc::new(Asker { serving: self.clone(), wanted: wanted.clone() });
            return Ok(ring.start(prompt, request, Some(source)).await?);
        }
    }
}
