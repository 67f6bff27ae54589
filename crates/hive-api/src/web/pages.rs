//! The files of the pages, as browsers get them.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};

/// A file of the pages.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its content.
    pub bytes: Cow<'static, [u8]>,
}

/// Finds a file by its path without a leading slash, such as `index.html`.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// The content policy of a page: files of this origin, and the API at it.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; worker-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; \
                      form-action 'none'";

/// The page that a request asks for.
pub(super) fn page(request: &Request, pages: &Pages) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let path = request.uri().path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    let kind = kind(path)?;
    let Page { bytes } = pages(path)?;
    let body = if request.method() == Method::HEAD { Body::empty() } else { Body::from(bytes.into_owned()) };
    // The build names assets after their content.
    let keep = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, keep),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = body.into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// The type of a file, by its name; none for files that are no pages.
fn kind(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "json" => "application/json",
        "wasm" => "application/wasm",
        _ => return None,
    })
}
