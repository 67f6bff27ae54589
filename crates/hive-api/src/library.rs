//! The models on this machine, and those that could be: list, load, unload, search.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use hive_node::{HubTokenError, LetGoError, MarkError, Node};
use hive_types::{
    Alias, AliasName, CatalogueQuery, CatalogueView, Done, HubToken, LoadRequest, ModelName, ModelOnDisk, NewHubToken,
};

use crate::error::Refusal;
use crate::openai::serve_refusal;
use crate::rights::{ADMIN, MODELS};
use crate::routes::Routes;
use crate::shared::Local;

pub(crate) fn routes() -> Routes<Local> {
    Routes::new()
        .get("/models", MODELS, list)
        .delete("/models", MODELS, remove)
        .get("/catalogue", MODELS, catalogue)
        .post("/models/load", MODELS, load)
        .post("/models/pause", MODELS, pause)
        .post("/models/unload", MODELS, unload)
        .post("/models/pin", MODELS, pin)
        .post("/models/unpin", MODELS, unpin)
        .get("/aliases", MODELS, aliases)
        .put("/aliases", MODELS, set_alias)
        .delete("/aliases", MODELS, remove_alias)
        .get("/hub-token", ADMIN, hub_token)
        .put("/hub-token", ADMIN, set_hub_token)
        .delete("/hub-token", ADMIN, forget_hub_token)
}

async fn list(State(node): State<Node>) -> Json<Vec<ModelOnDisk>> {
    Json(node.models().await)
}

/// The models that could be fetched, with their fit.
async fn catalogue(State(node): State<Node>, Query(query): Query<CatalogueQuery>) -> Json<CatalogueView> {
    Json(node.catalogue(&query))
}

async fn load(
    State(node): State<Node>,
    Json(LoadRequest { model, stages }): Json<LoadRequest>,
) -> Result<Json<Done>, Refusal> {
    let loaded = match stages {
        Some(stages) => node.load_model_manually(&model, &stages).await,
        None => node.load_model(&model).await,
    };
    loaded.map_err(serve_refusal)?;
    Ok(Json(Done::DONE))
}

/// Pauses a download; loading the model resumes it.
async fn pause(State(node): State<Node>, Json(ModelName { model }): Json<ModelName>) -> Result<Json<Done>, Refusal> {
    if node.pause_download(&model) {
        return Ok(Json(Done::DONE));
    }
    Err(Refusal::new(StatusCode::CONFLICT, "not_downloading", format!("{model} is not being downloaded")))
}

async fn unload(State(node): State<Node>, Json(ModelName { model }): Json<ModelName>) -> Result<Json<Done>, Refusal> {
    node.unload_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(Done::DONE))
}

async fn remove(State(node): State<Node>, Query(ModelName { model }): Query<ModelName>) -> Result<Json<Done>, Refusal> {
    node.remove_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(Done::DONE))
}

/// Keeps a model in memory once it is loaded, and on the disk.
async fn pin(State(node): State<Node>, Json(ModelName { model }): Json<ModelName>) -> Result<Json<Done>, Refusal> {
    node.pin(&model).await.map_err(mark_refusal)?;
    Ok(Json(Done::DONE))
}

async fn unpin(State(node): State<Node>, Json(ModelName { model }): Json<ModelName>) -> Result<Json<Done>, Refusal> {
    node.unpin(&model).map_err(mark_refusal)?;
    Ok(Json(Done::DONE))
}

/// The other names of models.
async fn aliases(State(node): State<Node>) -> Json<Vec<Alias>> {
    Json(node.aliases())
}

async fn set_alias(State(node): State<Node>, Json(alias): Json<Alias>) -> Result<Json<Done>, Refusal> {
    node.set_alias(&alias).await.map_err(mark_refusal)?;
    Ok(Json(Done::DONE))
}

async fn remove_alias(
    State(node): State<Node>,
    Query(AliasName { alias }): Query<AliasName>,
) -> Result<Json<Done>, Refusal> {
    node.remove_alias(&alias).map_err(mark_refusal)?;
    Ok(Json(Done::DONE))
}

/// Whether there is a token for downloads.
async fn hub_token(State(node): State<Node>) -> Json<HubToken> {
    Json(node.hub_token())
}

async fn set_hub_token(
    State(node): State<Node>,
    Json(NewHubToken { token }): Json<NewHubToken>,
) -> Result<Json<Done>, Refusal> {
    node.set_hub_token(Some(&token)).map_err(hub_token_refusal)?;
    Ok(Json(Done::DONE))
}

async fn forget_hub_token(State(node): State<Node>) -> Result<Json<Done>, Refusal> {
    node.set_hub_token(None).map_err(hub_token_refusal)?;
    Ok(Json(Done::DONE))
}

fn hub_token_refusal(error: HubTokenError) -> Refusal {
    match error {
        HubTokenError::Malformed => Refusal::bad("malformed_token", error).param("token"),
        HubTokenError::NotKept(_) => Refusal::internal(error),
    }
}

fn mark_refusal(error: MarkError) -> Refusal {
    match error {
        MarkError::Find(error) => serve_refusal(error.into()),
        MarkError::NotPinned(_) => Refusal::bad("not_pinned", error),
        MarkError::Malformed(_) => Refusal::bad("malformed_alias", error).param("alias"),
        MarkError::Adapter(_) => Refusal::bad("adapter_not_found", error).param("adapter"),
        MarkError::Taken(_) => Refusal::bad("alias_taken", error).param("alias"),
        MarkError::NoAlias(_) => Refusal::missing("alias_not_found", error),
        MarkError::NotKept(_) => Refusal::internal(error),
    }
}

fn let_go_refusal(error: LetGoError) -> Refusal {
    match &error {
        LetGoError::Find(_) => Refusal::missing("model_not_found", error),
        LetGoError::Busy(_) => Refusal::new(StatusCode::CONFLICT, "busy", error),
        LetGoError::NotLoaded(_) => Refusal::new(StatusCode::CONFLICT, "not_loaded", error),
        LetGoError::Starter(_) | LetGoError::Foreign(_) => Refusal::bad("not_removable", error),
        LetGoError::Disk { .. } => Refusal::internal(error),
    }
}
