//! Records in the audit log what programs with their own tokens change. Requests with the owner's token are not
//! recorded here; the node itself records the ones that matter.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use hive_node::audit::AuditEvent;
use hive_node::{Node, border};

/// The requesting program, named after its token; set by [`crate::guard`].
#[derive(Clone)]
pub(crate) struct Program(pub(crate) String);

/// Maximum width of a recorded action, in columns.
const COLUMNS: usize = 120;

pub(crate) async fn note(State(node): State<Node>, request: Request, next: Next) -> Response {
    let program = request.extensions().get::<Program>().cloned();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let changes = changes(request.method(), route);
    let action = changes.then(|| border::line(&format!("{} {}", request.method(), request.uri().path()), COLUMNS));
    let response = next.run(request).await;
    if let (Some(Program(program)), Some(action)) = (program, action)
        && response.status().is_success()
    {
        node.audit(None, AuditEvent::AdminAction { program, action });
    }
    response
}

/// Whether a request changes state; asking a model does not.
fn changes(method: &Method, route: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && route.starts_with("/hive/")
}
