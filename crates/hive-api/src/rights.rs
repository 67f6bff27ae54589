//! Rights of a program's token, and the table of which route requires which.
//!
//! The owner's own token has every right. Rights do not imply each other: a program that chats and lists models has
//! both. A route missing from the table requires [`Right::Admin`], so that a forgotten row opens nothing.

use axum::http::Method;
use hive_types::Right;

/// What a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No token.
    Nothing,
    /// A token with at least one of these rights.
    OneOf(&'static [Right]),
}

const CHAT: Needs = Needs::OneOf(&[Right::Chat]);
const MODELS: Needs = Needs::OneOf(&[Right::Models]);
const MACHINES: Needs = Needs::OneOf(&[Right::Machines]);
const ADMIN: Needs = Needs::OneOf(&[Right::Admin]);

/// Every route and what it requires.
const ROUTES: &[(&str, &str, Needs)] = &[
    ("GET", "/hive/v1/hello", Needs::Nothing),
    ("GET", "/hive/v1/status", MACHINES),
    ("GET", "/hive/v1/events", MACHINES),
    ("GET", "/hive/v1/peers", MACHINES),
    ("POST", "/hive/v1/peers/{who}/pair", MACHINES),
    ("POST", "/hive/v1/peers/{who}/approve", MACHINES),
    ("POST", "/hive/v1/peers/{who}/deny", MACHINES),
    ("POST", "/hive/v1/peers/{who}/remove", MACHINES),
    ("POST", "/hive/v1/peers/{who}/block", MACHINES),
    ("POST", "/hive/v1/peers/{who}/rename", MACHINES),
    ("POST", "/hive/v1/peers/{who}/rights", MACHINES),
    ("GET", "/hive/v1/log", MACHINES),
    ("POST", "/hive/v1/sharing", MACHINES),
    ("POST", "/hive/v1/invites", MACHINES),
    ("POST", "/hive/v1/join", MACHINES),
    ("GET", "/hive/v1/plan", MODELS),
    ("POST", "/hive/v1/quit", ADMIN),
    ("GET", "/hive/v1/models", MODELS),
    ("DELETE", "/hive/v1/models", MODELS),
    ("POST", "/hive/v1/models/load", MODELS),
    ("POST", "/hive/v1/models/unload", MODELS),
    ("GET", "/hive/v1/conversations", ADMIN),
    ("POST", "/hive/v1/conversations", ADMIN),
    ("GET", "/hive/v1/conversations/changes", ADMIN),
    ("GET", "/hive/v1/conversations/{id}", ADMIN),
    ("PUT", "/hive/v1/conversations/{id}", ADMIN),
    ("DELETE", "/hive/v1/conversations/{id}", ADMIN),
    ("GET", "/hive/v1/conversations/{id}/events", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/ask", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/again", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/resume", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/stop", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/choose", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/draft", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/instructions", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/choices", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/pin", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/archive", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/restore", ADMIN),
    ("GET", "/hive/v1/conversations/{id}/markdown", ADMIN),
    ("POST", "/hive/v1/conversations/{id}/rename", ADMIN),
    ("GET", "/hive/v1/tokens", ADMIN),
    ("POST", "/hive/v1/tokens", ADMIN),
    ("DELETE", "/hive/v1/tokens/{name}", ADMIN),
    ("POST", "/hive/v1/tokens/{name}/renew", ADMIN),
    ("POST", "/hive/v1/owner-token/renew", ADMIN),
    // Chat programs fill their model pickers from here.
    ("GET", "/v1/models", Needs::OneOf(&[Right::Chat, Right::Models])),
    ("GET", "/v1/models/{*id}", Needs::OneOf(&[Right::Chat, Right::Models])),
    ("POST", "/v1/chat/completions", CHAT),
];

/// What a route requires, by the pattern it is registered under.
pub(crate) fn needs(method: &Method, route: &str) -> Needs {
    // A GET handler also answers HEAD.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let row = ROUTES.iter().find(|(known, path, _)| *known == method && *path == route);
    row.map_or(ADMIN, |(_, _, needs)| *needs)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    pub(crate) fn routes() -> &'static [(&'static str, &'static str, Needs)] {
        ROUTES
    }

    /// The routes that a file of this crate registers with `.route("/path", get(one).post(other))`.
    fn registered(prefix: &str, source: &str) -> BTreeSet<(String, String)> {
        let calls = source.split(".route(\"").skip(1);
        let one = |call: &str| {
            let (path, rest) = call.split_once('"').unwrap();
            // The handlers end at the next route or at the end of the statement.
            let handlers = rest.split(['\n', ';', '}']).next().unwrap().to_owned();
            let methods = ["get", "post", "put", "patch", "delete"];
            let served = methods
                .into_iter()
                .filter(move |method| [' ', '.'].iter().any(|before| handlers.contains(&format!("{before}{method}("))));
            let path = format!("{prefix}{path}");
            served.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        calls.flat_map(one).collect()
    }

    #[test]
    fn every_route_stands_in_the_table_and_nothing_else_does() {
        let own = [
            include_str!("hive.rs"),
            include_str!("hello.rs"),
            include_str!("library.rs"),
            include_str!("conversations.rs"),
            include_str!("tokens/routes.rs"),
        ];
        let mut served: BTreeSet<_> = own.iter().flat_map(|source| registered("/hive/v1", source)).collect();
        served.extend(registered("/v1", include_str!("openai.rs")));
        let table: BTreeSet<_> =
            ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(table.len(), ROUTES.len(), "a route stands there twice");
        assert_eq!(served, table);
        // If this fails, another file registers routes: add it above.
        let nested = include_str!("lib.rs").matches("::routes()").count();
        assert_eq!(nested, own.len() + 1);
    }

    #[test]
    fn a_route_that_was_forgotten_is_for_admins() {
        assert_eq!(needs(&Method::POST, "/hive/v1/new"), ADMIN);
        assert_eq!(needs(&Method::DELETE, "/hive/v1/status"), ADMIN);
        assert_eq!(needs(&Method::HEAD, "/hive/v1/status"), MACHINES);
    }
}
