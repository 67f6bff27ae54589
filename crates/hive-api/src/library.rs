//! The models on this machine: list, load, unload.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use hive_node::LetGoError;
use hive_types::{Done, LoadRequest, ModelName, ModelOnDisk};

use crate::Shared;
use crate::error::Refusal;
use crate::openai::serve_refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/models", get(list).delete(remove))
        .route("/models/load", post(load))
        .route("/models/unload", post(unload))
}

async fn list(State(shared): State<Shared>) -> Json<Vec<ModelOnDisk>> {
    Json(shared.node.models().await)
}

async fn load(
    State(shared): State<Shared>,
    Json(LoadRequest { model, stages }): Json<LoadRequest>,
) -> Result<Json<Done>, Refusal> {
    let loaded = match stages {
        Some(stages) => shared.node.load_model_by_hand(&model, &stages).await,
        None => shared.node.load_model(&model).await,
    };
    loaded.map_err(serve_refusal)?;
    Ok(Json(Done::DONE))
}

async fn unload(
    State(shared): State<Shared>,
    Json(ModelName { model }): Json<ModelName>,
) -> Result<Json<Done>, Refusal> {
    shared.node.unload_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(Done::DONE))
}

async fn remove(
    State(shared): State<Shared>,
    Query(ModelName { model }): Query<ModelName>,
) -> Result<Json<Done>, Refusal> {
    shared.node.remove_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(Done::DONE))
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
