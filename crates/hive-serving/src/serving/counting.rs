//! Counts the tokens of texts, without loading a model.
//!
//! A model in memory counts with the tokenizer that it has. For any other, a text worker reads the tokenizer alone; it is
//! kept for the texts that come next, and ends when none came for a while.

use std::time::{Duration, Instant};

use hive_stage::models;
use hive_worker::text::Model;
use tokio::sync::oneshot;

use super::{Loaded, Serving};
use crate::error::CountError;
use crate::model_request::ModelRequest;
use crate::tokenizer::KeptTokenizer;

/// How long a request waits for a tokenizer that is being read; the next request finds it.
const READING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a tokenizer is kept after its last use.
const KEPT_FOR: Duration = Duration::from_mins(2);

impl Serving {
    /// The model's name and the number of tokens of a text.
    pub async fn count_tokens(&self, wanted: &ModelRequest, text: &str) -> Result<(String, u64), CountError> {
        let wanted = ModelRequest { stages: None, ..self.usual(wanted) };
        let in_memory = self.loaded().iter().find(|loaded| loaded.wanted.model == wanted.model).map(Loaded::ring);
        let model = match in_memory.filter(|ring| !ring.is_abandoned()) {
            Some(ring) => ring.model().clone(),
            None => self.tokenizer(wanted.clone()).await?,
        };
        let tokens = model.count(text).await?;
        Ok((wanted.model.unwrap_or_else(|| models::starter_name().to_owned()), tokens))
    }

    async fn tokenizer(&self, wanted: ModelRequest) -> Result<Model, CountError> {
        let (send, opened) = oneshot::channel();
        let serving = self.clone();
        self.member().spawn(async move {
            tokio::select! {
                () = serving.keep_tokenizer(wanted, send) => {}
                () = serving.member().stopping() => {}
            }
        });
        match tokio::time::timeout(READING_TIMEOUT, opened).await {
            Ok(Ok(model)) => model,
            Ok(Err(_)) | Err(_) => Err(CountError::NotRead),
        }
    }

    /// Reads a tokenizer unless it is kept, hands it over, and drops it when it is no longer used.
    async fn keep_tokenizer(&self, wanted: ModelRequest, opened: oneshot::Sender<Result<Model, CountError>>) {
        {
            let mut tokenizer = self.inner.tokenizer.lock().await;
            if let Some(kept) = tokenizer.as_mut().filter(|kept| kept.wanted == wanted) {
                kept.used = Instant::now();
                let _ = opened.send(Ok(kept.model.clone()));
                return;
            }
            *tokenizer = None;
            match self.host().catalogue().open_model(wanted.model.as_deref()).await {
                Ok(model) => {
                    let kept = KeptTokenizer { wanted: wanted.clone(), model: model.clone(), used: Instant::now() };
                    *tokenizer = Some(kept);
                    let _ = opened.send(Ok(model));
                }
                Err(error) => {
                    let _ = opened.send(Err(error.into()));
                    return;
                }
            }
        }
        loop {
            tokio::time::sleep(KEPT_FOR).await;
            let mut tokenizer = self.inner.tokenizer.lock().await;
            let Some(kept) = tokenizer.as_ref().filter(|kept| kept.wanted == wanted) else { return };
            if kept.used.elapsed() >= KEPT_FOR {
                *tokenizer = None;
                return;
            }
        }
    }
}
