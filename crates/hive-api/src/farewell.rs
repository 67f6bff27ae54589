//! Requests that a node which stops cannot serve any more: they hear so while there is time.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hive_node::Node;

use crate::error::Refusal;

/// An answer that ends with its node says what there is of it within this time; what waits for something else does not.
const GRACE: Duration = Duration::from_millis(500);

/// Answers a request, or says in time that the node stops.
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
