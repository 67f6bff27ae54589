//! HiveMind's own interface without a network: for the app, which shows the node it runs itself.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Method, Request, Response, StatusCode, header};
use futures_util::stream::{BoxStream, StreamExt};
use hive_mind::Chats;
use hive_node::Node;
use hive_types::ErrorReply;
use tower_service::Service;

use crate::shared::Local;

/// Calls routes of HiveMind's own interface in this process, with all rights of the owner.
#[derive(Debug, Clone)]
pub struct Direct {
    router: Router,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// The interface refused it.
    Refused(Box<ErrorReply>),
    /// The call itself is not valid, such as a path that is none.
    Invalid(String),
}

impl Direct {
    /// The routes of this node and its owner's conversations.
    pub fn new(node: Node, chats: Chats) -> Self {
        let (router, _) = crate::local_routes().into_parts();
        let router = router
            .fallback(crate::error::not_found)
            .layer(axum::middleware::map_response(crate::error::in_json))
            .with_state(Local { node, chats });
        Self { router }
    }

    /// Calls a route, such as `POST` on `/hive/v1/conversations` with a JSON body; returns the JSON of the reply.
    ///
    /// # Errors
    /// The route refuses the request, or there is no such route.
    pub async fn call(&self, method: &str, path: &str, body: Option<String>) -> Result<String, CallError> {
        let response = self.send(method, path, body).await?;
        let bytes = whole(response.into_body()).await?;
        String::from_utf8(bytes).map_err(|error| CallError::Invalid(error.to_string()))
    }

    /// Calls a route that sends events; the stream has the JSON of each.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn events(&self, path: &str) -> Result<BoxStream<'static, String>, CallError> {
        let response = self.send("GET", path, None).await?;
        let state = (response.into_body().into_data_stream(), Vec::<u8>::new());
        let events = futures_util::stream::unfold(state, |(mut body, mut rest)| async move {
            loop {
                if let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                    let frame: Vec<u8> = rest.drain(..end + 2).collect();
                    if let Some(data) = data(&frame) {
                        return Some((data, (body, rest)));
                    }
                    continue;
                }
                rest.extend_from_slice(&body.next().await?.ok()?);
            }
        });
        Ok(events.boxed())
    }

    async fn send(&self, method: &str, path: &str, body: Option<String>) -> Result<Response<Body>, CallError> {
        let invalid = |error: &dyn std::fmt::Display| CallError::Invalid(error.to_string());
        let method: Method = method.parse().map_err(|error| invalid(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, Body::from))
            .map_err(|error| invalid(&error))?;
        let response: Result<_, Infallible> = self.router.clone().call(request).await;
        let Ok(response) = response;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response.into_body()).await?;
        Err(serde_json::from_slice(&bytes)
            .map_or_else(|_| invalid(&status), |reply| CallError::Refused(Box::new(reply))))
    }
}

async fn whole(body: Body) -> Result<Vec<u8>, CallError> {
    // It comes from this process, so there is nothing to bound.
    let mut bytes = Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or_default());
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part: Bytes = part.map_err(|error| CallError::Invalid(error.to_string()))?;
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// The data of a frame of server-sent events; none for a comment.
fn data(frame: &[u8]) -> Option<String> {
    let frame = std::str::from_utf8(frame).ok()?;
    let lines: Vec<&str> = frame.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
