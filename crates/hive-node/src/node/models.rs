//! The node and its models.

use hive_ring::{Reply, Request};
use hive_serving::{AnswerError, CountError, Layout, LetGoError, MarkError, ModelRequest, ServeError, Serving};
use hive_stage::{StageHost, aside, models};
use hive_types::{Alias, ModelOnDisk, StageLayers};

use super::Node;
use crate::settings::Settings;

impl AsRef<StageHost> for Node {
    /// The stages on this machine, for loading a model without a request.
    fn as_ref(&self) -> &StageHost {
        self.host()
    }
}

impl Node {
    /// The models that this node has in memory for its own people and programs.
    pub fn serving(&self) -> &Serving {
        &self.inner.serving
    }

    /// The model of a chat that names none: the owner's choice as long as it is there, else the starter model.
    pub fn default_model(&self) -> ModelRequest {
        let settings = aside(|| Settings::read(self.member().data()?.path()).ok()).unwrap_or_default();
        let chosen = settings.model_if(|name| aside(|| models::path(&self.serving().name_of(name))).is_ok());
        chosen.map_or_else(ModelRequest::default, ModelRequest::named)
    }

    /// How a request would be placed now.
    pub async fn lay_out(&self, wanted: &ModelRequest) -> Result<Layout, ServeError> {
        self.serving().lay_out(wanted).await
    }

    /// Starts an answer. It continues on other machines if one leaves while it runs.
    pub async fn generate(&self, wanted: &ModelRequest, request: &Request) -> Result<Reply, AnswerError> {
        self.serving().generate(wanted, request).await
    }

    /// The model's name and the number of tokens of a text, counted without loading the model.
    pub async fn count_tokens(&self, wanted: &ModelRequest, text: &str) -> Result<(String, u64), CountError> {
        self.serving().count_tokens(wanted, text).await
    }

    /// The models on this machine's disk: the one that the settings choose first.
    pub async fn models(&self) -> Vec<ModelOnDisk> {
        let chosen = self.default_model().model.map(|name| self.serving().name_of(&name));
        let mut models = self.serving().models().await;
        // Stable, so that models keep their order otherwise.
        models.sort_by_key(|model| Some(&model.name) != chosen.as_ref());
        models
    }

    /// Loads a model, so that the first answer need not wait for it.
    pub async fn load_model(&self, name: &str) -> Result<(), ServeError> {
        self.serving().load_model(name).await
    }

    /// Loads a model by a manual plan, which stays in effect until the model is unloaded.
    pub async fn load_model_manually(&self, name: &str, stages: &[StageLayers]) -> Result<(), ServeError> {
        self.serving().load_model_manually(name, stages).await
    }

    /// Pauses the download of a model, for everybody who waits for it; `false` if it is not being downloaded. Loading the
    /// model resumes it.
    pub fn pause_download(&self, name: &str) -> bool {
        self.serving().pause_download(name)
    }

    /// Frees the memory that a model takes, on every machine.
    pub async fn unload_model(&self, name: &str) -> Result<(), LetGoError> {
        self.serving().unload_model(name).await
    }

    /// Keeps a model in memory once it is loaded, and on this disk.
    pub async fn pin(&self, name: &str) -> Result<(), MarkError> {
        self.serving().pin(name).await
    }

    /// Lets a pinned model go when its memory or its space is needed.
    pub fn unpin(&self, name: &str) -> Result<(), MarkError> {
        self.serving().unpin(name)
    }

    /// The other names of models.
    pub fn aliases(&self) -> Vec<Alias> {
        self.serving().aliases()
    }

    /// Gives a model on this machine another name, which requests may use in its place. Answers under that name use the
    /// adapter, if it has one.
    pub async fn set_alias(&self, Alias { alias, model, adapter }: &Alias) -> Result<(), MarkError> {
        self.serving().set_alias(alias, model, adapter.as_deref()).await
    }

    /// Removes another name of a model.
    pub fn remove_alias(&self, alias: &str) -> Result<(), MarkError> {
        self.serving().remove_alias(alias)
    }

    /// Unloads a downloaded model and removes it from this machine's disk.
    pub async fn remove_model(&self, name: &str) -> Result<(), LetGoError> {
        self.serving().remove_model(name).await
    }
}
