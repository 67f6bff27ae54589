//! Notes in the audit log what programs with tokens of their own change. What the owner's token does is the owner's: the node
//! notes that itself, where it matters.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use hive_node::audit::AuditEvent;
use hive_node::{Node, border};

/// The program that asks, by the name of its token; [`crate::guard`] says so.
#[derive(Clone)]
pub(crate) struct Program(pub(crate) String);

/// Of what a program did.
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

/// Whether a request changes something; asking a model does not.
fn changes(method: &Method, route: &str) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && route.starts_with("/hive/")
}
