//! Answers requests that a stopping node can no longer serve, while their connections are still open.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hive_node::Node;

use crate::error::Refusal;

/// Time for an answer to report its tokens so far when the node stops. All other requests are refused after it.
const GRACE: Duration = Duration::from_millis(500);

/// Serves a request, or refuses it in time if the node stops.
pub(crate) async fn in_time(State(node): State<Node>, request: Request, next: Next) -> Response {
    let too_late = async {
        node.ending().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = too_late => stopping().into_response(),
    }
}

fn stopping() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "HiveMind is being stopped on this machine")
        .hint("ask again when it has been started again")
}
