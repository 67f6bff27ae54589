//! What a browser needs to hear before it lets a page of another origin read an answer (CORS, in the Fetch standard).
//!
//! Only pages whose origin the guard lets in get that far. A browser asks before it sends a token: such a **preflight** has
//! none, and is answered without looking further.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

/// What pages may do; what a token may, is decided with the request itself.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What clients send, where a browser does not say which headers it asks for.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type");
/// How long a browser may keep the answer to a preflight, in seconds. Chromium keeps none longer than two hours.
const KEPT_S: HeaderValue = HeaderValue::from_static("600");
/// Chromium asks by this whether a page of the web may reach a private network.
const ASKS_PRIVATE: &str = "access-control-request-private-network";

/// Whether a browser asks if it may ask.
pub(crate) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Yes, for a page of this origin.
pub(crate) fn answer(request: &HeaderMap, origin: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    // Clients send headers of their own, which are nothing to be afraid of: the token is among them.
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, KEPT_S);
    if request.contains_key(ASKS_PRIVATE) {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    readable(response, origin)
}

/// The response, as a page of this origin may read it; refusals included, so that it can say what is wrong.
pub(crate) fn readable(mut response: Response, origin: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}
