//! The models on this machine: what there is, loading, and letting go.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use hive_node::serving::StageByHand;
use hive_node::{LetGoError, ModelOnDisk};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::error::Refusal;
use crate::openai::serve_refusal;

pub(crate) fn routes() -> Router<Shared> {
    Router::new()
        .route("/models", get(list).delete(remove))
        .route("/models/load", post(load))
        .route("/models/unload", post(unload))
}

/// Which model; names have slashes, so they do not stand in the path.
#[derive(Deserialize)]
struct Which {
    model: String,
}

/// What to load, and where, if somebody wants that otherwise than the plan has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadWish {
    model: String,
    stages: Option<Vec<StageByHand>>,
}

async fn list(State(shared): State<Shared>) -> Json<Vec<ModelOnDisk>> {
    Json(shared.node.models().await)
}

async fn load(
    State(shared): State<Shared>,
    Json(LoadWish { model, stages }): Json<LoadWish>,
) -> Result<Json<Value>, Refusal> {
    let loaded = match stages {
        Some(stages) => shared.node.load_model_by_hand(&model, &stages).await,
        None => shared.node.load_model(&model).await,
    };
    loaded.map_err(serve_refusal)?;
    Ok(Json(json!({ "done": true })))
}

async fn unload(State(shared): State<Shared>, Json(Which { model }): Json<Which>) -> Result<Json<Value>, Refusal> {
    shared.node.unload_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(json!({ "done": true })))
}

async fn remove(State(shared): State<Shared>, Query(Which { model }): Query<Which>) -> Result<Json<Value>, Refusal> {
    shared.node.remove_model(&model).await.map_err(let_go_refusal)?;
    Ok(Json(json!({ "done": true })))
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
