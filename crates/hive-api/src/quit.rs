//! Stops the node at a client's request.

use axum::Json;
use axum::extract::State;
use hive_types::Done;

use crate::rights::ADMIN;
use crate::routes::Routes;
use crate::shared::Shared;

pub(crate) fn routes() -> Routes<Shared> {
    Routes::new().post("/quit", ADMIN, quit)
}

async fn quit(State(shared): State<Shared>) -> Json<Done> {
    shared.quit.send_replace(true);
    Json(Done::DONE)
}
