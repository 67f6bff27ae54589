//! The headers that a browser requires before a page of another origin may read a response (CORS, Fetch standard).
//!
//! Only pages whose origin the guard allows get this far. Before it sends a token, a browser sends a **preflight**
//! request, which carries none and is answered without further checks.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

/// Methods open to pages; each request's token determines its actual rights.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// Headers that clients send, used if the preflight does not list any.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// How long a browser may cache a preflight's response, in seconds. Chromium caps it at two hours.
const KEPT_S: HeaderValue = HeaderValue::from_static("600");
/// Chromium's request header that asks whether a public page may reach a private network.
const ASKS_PRIVATE: &str = "access-control-request-private-network";

/// Whether the request is a CORS preflight.
pub(crate) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Accepts a preflight from this origin.
pub(crate) fn answer(request: &HeaderMap, origin: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    // Clients send headers of their own, among them the token; none of them is dangerous.
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, KEPT_S);
    if request.contains_key(ASKS_PRIVATE) {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    readable(response, origin)
}

/// Lets a page of this origin read the response. Refusals are included, so that the page can say what is wrong.
pub(crate) fn readable(mut response: Response, origin: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}
