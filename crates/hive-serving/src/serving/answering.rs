//! Starts answers.

use std::sync::Arc;
use std::time::Duration;

use hive_ring::{GenerateError, Loading, Reply, Request, Ring, Source, SourceError};
use jiff::civil::DateTime;

use super::Serving;
use crate::error::{AnswerError, ServeError};
use crate::model_request::ModelRequest;

/// Attempts to load a model when machines leave during loading.
const ATTEMPTS: usize = 3;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The local time.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

/// The source of an answer's model: loads it again if the answer needs that.
struct Asker {
    serving: Serving,
    /// Under its canonical name: an alias may stand for another model by then.
    wanted: ModelRequest,
}

impl Source for Asker {
    /// The model on the machines that are present: on as many as requested if possible, otherwise on as many as needed.
    fn ring(&self) -> Loading<'_> {
        Box::pin(async {
            let ring = match self.serving.model_of(&self.wanted).await {
                Err(ServeError::TooFew { .. }) => {
                    self.serving.model_of(&ModelRequest { stages: None, ..self.wanted.clone() }).await
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
    /// Starts an answer. It continues on other machines if one leaves while it is in progress.
    pub async fn generate(&self, wanted: &ModelRequest, request: &Request) -> Result<Reply, AnswerError> {
        let adapter = self.adapter_of(wanted.model.as_deref());
        let adapter = adapter.map_err(|error| GenerateError::Adapter(error.to_string()))?;
        let adapted = adapter.map(|adapter| Request { adapter: Some(adapter), ..request.clone() });
        let request = adapted.as_ref().unwrap_or(request);
        let wanted = self.usual(wanted);
        let ring = self.awaited_model(&wanted).await?;
        let prompt = ring.prompt(request, self.inner.openings.began(&request.conversation, now())).await?;
        let source = Arc::new(Asker { serving: self.clone(), wanted });
        Ok(ring.start(prompt, request, Some(source)).await?)
    }

    /// The model of a request under its canonical name. One load serves everybody who waits for it; it goes on if whoever
    /// asked first leaves, and is cancelled when nobody waits any more.
    pub(crate) async fn awaited_model(&self, wanted: &ModelRequest) -> Result<Ring, ServeError> {
        let load = || {
            let (serving, wanted) = (self.clone(), wanted.clone());
            async move { serving.model_with_retries(&wanted).await }
        };
        self.inner.awaited.run(wanted, load).await.map_err(ServeError::Shared)
    }

    /// The same for one request. If machines fail while they fetch or load the model, it is placed without them.
    pub(crate) async fn model_with_retries(&self, wanted: &ModelRequest) -> Result<Ring, ServeError> {
        let mut failures = Vec::new();
        loop {
            match self.model_of(wanted).await {
                Err(ServeError::Load(error)) if failures.len() + 1 < ATTEMPTS && !error.is_the_models() => {
                    tracing::info!("the model is loaded again: {error}");
                    failures.push(error);
                    // Long enough to detect that a machine has left.
                    tokio::time::sleep(PAUSE).await;
                }
                // There may be no plan without the machine that failed. The failure explains more than the quarantine
                // does.
                Err(error @ (ServeError::Plan { .. } | ServeError::TooFew { .. })) => {
                    return Err(failures.into_iter().next().map_or(error, ServeError::Load));
                }
                ring => return ring,
            }
        }
    }
}
