//! Decides who may use the API: programs on this machine that can read the token.
//!
//! Binding to loopback is not enough: any web page can make a browser send requests to it, and a host name that
//! resolves to 127.0.0.1 makes the API same-origin for such a page (DNS rebinding). So the Host must be this machine's
//! and the Origin local, unless the owner has allowed others ([`Allowed`]), and every request needs a token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use hive_node::border;
use hive_types::Right;

use crate::allowed::Allowed;
use crate::audited::Program;
use crate::cors;
use crate::error::Refusal;
use crate::rights::Needs;
use crate::routes::{self, Requirements};
use crate::tokens::{self, Grant, Tokens};
use crate::web::Web;

#[derive(Debug)]
pub(crate) struct Guard {
    tokens: Arc<Tokens>,
    requirements: Arc<Requirements>,
    web: Arc<Web>,
    place: Place,
}

/// Where requests come from.
#[derive(Debug)]
enum Place {
    /// This machine.
    Here { hosts: [String; 3], origins: [String; 3], port: u16, allowed: Allowed },
    /// Other devices, over TLS.
    Network,
}

/// Maximum width of a refused origin or host in an error message, in columns.
const SHOWN_COLUMNS: usize = 80;

/// Headers that decide about a request. If repeated, this guard and a program behind it might read different ones.
const ONCE: [header::HeaderName; 3] = [header::HOST, header::ORIGIN, header::AUTHORIZATION];

impl Guard {
    /// Guards the API on this machine.
    pub(crate) fn here(
        tokens: Arc<Tokens>,
        requirements: Arc<Requirements>,
        web: Arc<Web>,
        address: SocketAddr,
        allowed: Allowed,
    ) -> Self {
        let names = ["127.0.0.1", "localhost", "[::1]"];
        let port = address.port();
        let place = Place::Here {
            hosts: names.map(|name| format!("{name}:{port}")),
            origins: names.map(|name| format!("http://{name}:{port}")),
            port,
            allowed,
        };
        Self { tokens, requirements, web, place }
    }

    /// Guards the pages for other devices.
    pub(crate) fn network(tokens: Arc<Tokens>, requirements: Arc<Requirements>, web: Arc<Web>) -> Self {
        Self { tokens, requirements, web, place: Place::Network }
    }

    /// Whether this machine is asked by that name.
    fn knows_host(&self, host: &str) -> bool {
        match &self.place {
            Place::Here { hosts, port, allowed, .. } => {
                hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) || allowed.has_host(host, *port)
            }
            // A foreign name can lead here (DNS rebinding), an address cannot.
            Place::Network => host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok(),
        }
    }

    /// Whether pages of that origin may ask.
    fn knows_origin(&self, origin: &[u8], host: &str) -> bool {
        match &self.place {
            Place::Here { origins, allowed, .. } => {
                origins.iter().any(|known| origin == known.as_bytes()) || allowed.has_origin(origin)
            }
            Place::Network => origin.strip_prefix(b"https://") == Some(host.as_bytes()),
        }
    }

    /// Checks that a request was meant for this machine and comes from no web page that the owner has not allowed.
    fn judge_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if let Some(name) = ONCE.into_iter().find(|name| headers.get_all(name).iter().count() > 1) {
            return Err(Refusal::bad("repeated_header", format!("the request has more than one \"{name}\" header"))
                .hint("send it once"));
        }
        // An absolute URI in the request line overrides the Host header.
        let named = uri.authority().map(axum::http::uri::Authority::as_str);
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(foreign) = [Some(host), named].into_iter().flatten().find(|host| !self.knows_host(host)) {
            let foreign = border::line(foreign, SHOWN_COLUMNS);
            let message = format!("this API is not asked as \"{foreign}\", but as 127.0.0.1 or localhost");
            let hint =
                "use the address that `hivemind status` shows, or allow the host: `hivemind node --allow-host NAME`";
            return Err(Refusal::forbidden("host", &message, hint));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && !self.knows_origin(origin.as_bytes(), host)
        {
            let foreign = border::line(&String::from_utf8_lossy(origin.as_bytes()), SHOWN_COLUMNS);
            let message = format!("web pages of other origins may not use this API, and this one has \"{foreign}\"");
            let hint = "ask from a program on this machine, or allow the origin: `hivemind node --allow-origin ORIGIN`";
            return Err(Refusal::forbidden("origin", &message, hint));
        }
        Ok(())
    }

    /// The rights of the request's token.
    fn judge_token(&self, headers: &HeaderMap) -> Result<Grant, Refusal> {
        let recognised = bearer(headers).and_then(|shown| self.tokens.recognise(shown, tokens::today()));
        let (grant, to_write) = recognised.ok_or_else(|| {
            Refusal::unauthorized(
                "the API token is missing or wrong",
                "send \"Authorization: Bearer TOKEN\"; `hivemind tokens add` makes one for a program, and the owner's \
                 is in the file api-token of HiveMind's data folder",
            )
        })?;
        // Other devices are served as browsers only: what else there is stays on this machine.
        let is_browser = grant.program().is_some() && grant.allows(&[Right::Browser]);
        if matches!(self.place, Place::Network) && !is_browser {
            return Err(Refusal::forbidden(
                "not_a_browser",
                "only a browser that was let in by a link is served at this address",
                "make a link in Settings, or with `hivemind browser`",
            ));
        }
        if to_write {
            let tokens = self.tokens.clone();
            tokio::task::spawn_blocking(move || tokens.note_use());
        }
        Ok(grant)
    }
}

/// The token of an `Authorization` header. The scheme's name is case-insensitive (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.trim().split_once([' ', '\t'])?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(crate) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = guard.judge_origin(request.uri(), request.headers()) {
        return refusal.into_response();
    }
    if let Some(page) = guard.web.page(&request) {
        return page;
    }
    match request.headers().get(header::ORIGIN).cloned() {
        None => serve_whoever_may(&guard, request, next).await,
        Some(origin) if cors::is_preflight(&request) => cors::answer(request.headers(), origin),
        Some(origin) => cors::readable(serve_whoever_may(&guard, request, next).await, origin),
    }
}

/// Serves a request if its token has the right that the route requires.
async fn serve_whoever_may(guard: &Guard, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let needs = route.map(|route| routes::needs(&guard.requirements, request.method(), route.as_str()));
    if needs == Some(Needs::Nothing) {
        return next.run(request).await;
    }
    let grant = match guard.judge_token(request.headers()) {
        Ok(grant) => grant,
        Err(refusal) => return refusal.into_response(),
    };
    if let Some(program) = grant.program() {
        request.extensions_mut().insert(Program(program.to_owned()));
    }
    match needs {
        Some(Needs::OneOf(rights)) if !grant.allows(rights) => grant.refusal(rights).into_response(),
        // Nothing is behind an unknown route, so any valid token may see the 404.
        _ => serve_while_granted(grant, request, next).await,
    }
}

/// Serves a request until its token is revoked: then running work is dropped, and a stream sends an error and ends.
async fn serve_while_granted(grant: Grant, request: Request, next: Next) -> Response {
    let response = tokio::select! {
        // Biased, so that the request that renews the owner's token is answered.
        biased;
        response = next.run(request) => response,
        () = grant.clone().revoked() => return tokens::revoked().into_response(),
    };
    let events = HeaderValue::from_static("text/event-stream");
    if response.headers().get(header::CONTENT_TYPE) != Some(&events) {
        return response;
    }
    let last = format!("data: {}\n\ndata: [DONE]\n\n", tokens::revoked().into_json());
    response.map(|body| Body::from_stream(until_revoked(body.into_data_stream(), grant, last)))
}

/// Passes the body on until the token is revoked, then sends `last` and ends.
fn until_revoked(body: BodyDataStream, grant: Grant, last: String) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let revoked: BoxFuture<'static, ()> = Box::pin(grant.revoked());
    futures_util::stream::unfold(Some((body, revoked, last)), |state| async move {
        let (mut body, mut revoked, last) = state?;
        tokio::select! {
            biased;
            // Dropping the body here also drops the work behind it.
            () = &mut revoked => Some((Ok(Bytes::from(last)), None)),
            piece = body.next() => piece.map(|piece| (piece, Some((body, revoked, last)))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    /// Judges these request headers, with "TOKEN" standing in for the owner's token.
    fn judged(pairs: &[(&'static str, &str)]) -> Option<&'static str> {
        judged_at("/hive/v1/status", pairs)
    }

    fn judged_at(uri: &str, pairs: &[(&'static str, &str)]) -> Option<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::open(folder.path()).unwrap());
        let token = Token::read(folder.path()).unwrap().unwrap();
        let named = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let allowed = Allowed::new(&named(&["app://obsidian.md"]), &named(&["host.docker.internal"])).unwrap();
        let address = "127.0.0.1:4483".parse().unwrap();
        let web = Arc::new(Web::new(folder.path(), address, Arc::default(), tokio_util::task::TaskTracker::new()));
        let guard = Guard::here(tokens, Arc::default(), web, address, allowed);
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(&value.replace("TOKEN", token.as_str())).unwrap());
        }
        let origin = guard.judge_origin(&uri.parse().unwrap(), &headers);
        origin.and_then(|()| guard.judge_token(&headers)).err().map(|refusal| refusal.code)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:4483");
    const TOKEN: (&str, &str) = ("authorization", "Bearer TOKEN");

    #[test]
    fn only_local_programs_with_the_token_are_served() {
        assert_eq!(judged(&[HOST, TOKEN]), None);
        assert_eq!(judged(&[("host", "LOCALHOST:4483"), TOKEN]), None);
        assert_eq!(judged(&[HOST]), Some("unauthorized"));
        assert_eq!(judged(&[HOST, ("authorization", "Bearer wrong")]), Some("unauthorized"));
        assert_eq!(judged(&[HOST, ("authorization", "Basic TOKEN")]), Some("unauthorized"));
        assert_eq!(judged(&[HOST, ("authorization", "TOKEN")]), Some("unauthorized"));
        // DNS rebinding: a host name that resolves to this machine.
        assert_eq!(judged(&[("host", "evil.example:4483"), TOKEN]), Some("host"));
        assert_eq!(judged(&[("host", "127.0.0.1:9999"), TOKEN]), Some("host"));
        assert_eq!(judged(&[TOKEN]), Some("host"));
        assert_eq!(judged_at("http://evil.example/hive/v1/status", &[HOST, TOKEN]), Some("host"));
        assert_eq!(judged_at("http://127.0.0.1:4483/hive/v1/status", &[HOST, TOKEN]), None);
        assert_eq!(judged(&[HOST, TOKEN, ("origin", "https://evil.example")]), Some("origin"));
        assert_eq!(judged(&[HOST, TOKEN, ("origin", "null")]), Some("origin"));
        assert_eq!(judged(&[HOST, TOKEN, ("origin", "http://localhost:4483")]), None);
    }

    #[test]
    fn whom_the_owner_has_named_is_let_in_and_needs_a_token_all_the_same() {
        let (origin, host) = (("origin", "app://obsidian.md"), ("host", "host.docker.internal:4483"));
        assert_eq!(judged(&[HOST, TOKEN, origin]), None);
        assert_eq!(judged(&[host, TOKEN]), None);
        assert_eq!(judged_at("http://host.docker.internal:4483/hive/v1/status", &[host, TOKEN]), None);
        assert_eq!(judged(&[host, origin]), Some("unauthorized"));
        assert_eq!(judged(&[HOST, TOKEN, ("origin", "app://obsidian.md.evil.example")]), Some("origin"));
        assert_eq!(judged(&[HOST, TOKEN, origin, origin]), Some("repeated_header"));
        assert_eq!(judged(&[("host", "host.docker.internal:80"), TOKEN]), Some("host"));
        assert_eq!(judged_at("http://evil.example/hive/v1/status", &[host, TOKEN]), Some("host"));
    }

    #[test]
    fn the_schemes_name_is_in_any_case() {
        for shown in ["bearer TOKEN", "BEARER TOKEN", "bEaReR  TOKEN ", "Bearer\tTOKEN"] {
            assert_eq!(judged(&[HOST, ("authorization", shown)]), None, "{shown:?}");
        }
    }

    #[test]
    fn headers_that_decide_are_not_sent_twice() {
        let origin = ("origin", "http://localhost:4483");
        assert_eq!(judged(&[HOST, HOST, TOKEN]), Some("repeated_header"));
        assert_eq!(judged(&[HOST, ("host", "evil.example"), TOKEN]), Some("repeated_header"));
        assert_eq!(judged(&[HOST, TOKEN, origin, ("origin", "https://evil.example")]), Some("repeated_header"));
        assert_eq!(judged(&[HOST, TOKEN, ("authorization", "Bearer wrong")]), Some("repeated_header"));
    }
}
