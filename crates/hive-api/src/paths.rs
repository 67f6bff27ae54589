//! Normalizes paths: clients often join a base URL and a path with a doubled or trailing slash.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The same URI with single slashes and no trailing slash.
pub(crate) fn tidied(uri: &Uri) -> Uri {
    let path = uri.path();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let tidy = format!("/{}", parts.join("/"));
    if tidy == path {
        return uri.clone();
    }
    let whole = uri.query().map_or(tidy.clone(), |query| format!("{tidy}?{query}"));
    let mut of = uri.clone().into_parts();
    of.path_and_query = whole.parse::<PathAndQuery>().ok().or(of.path_and_query);
    Uri::from_parts(of).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_lead_to_the_same_place() {
        for (given, meant) in [
            ("/v1/models", "/v1/models"),
            ("/v1//chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            ("//v1/models//?a=b//c", "/v1/models?a=b//c"),
            ("http://127.0.0.1:4483//v1/models/", "http://127.0.0.1:4483/v1/models"),
            ("/", "/"),
            ("/v1/models/a%2F%2Fb", "/v1/models/a%2F%2Fb"),
        ] {
            assert_eq!(tidied(&given.parse().unwrap()).to_string(), meant);
        }
    }
}
