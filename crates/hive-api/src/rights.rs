//! Rights that routes require of a token.
//!
//! The owner's own token has every right. Rights do not imply each other: a program that chats and lists models has
//! both. Each route names its requirement where it is registered ([`crate::routes`]).

use axum::http::Method;
use hive_types::Right;

use crate::routes::Requirements;

/// What a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No token.
    Nothing,
    /// A token with at least one of these rights.
    OneOf(&'static [Right]),
}

pub(crate) const CHAT: Needs = Needs::OneOf(&[Right::Chat]);
pub(crate) const MODELS: Needs = Needs::OneOf(&[Right::Models]);
pub(crate) const MACHINES: Needs = Needs::OneOf(&[Right::Machines]);
/// Chat programs fill their model pickers from such routes.
pub(crate) const CHAT_OR_MODELS: Needs = Needs::OneOf(&[Right::Chat, Right::Models]);
pub(crate) const CONVERSATIONS: Needs = Needs::OneOf(&[Right::Conversations, Right::Admin]);
pub(crate) const ADMIN: Needs = Needs::OneOf(&[Right::Admin]);

/// What a request to a route requires. A HEAD request is answered by the route's GET handler.
pub(crate) fn needs(of: &Requirements, method: &Method, route: &str) -> Needs {
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    of.get(&(route.to_owned(), method)).copied().unwrap_or(ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_registered_is_for_admins() {
        let routes = Requirements::from([(("/hive/v1/status".to_owned(), Method::GET), MACHINES)]);
        assert_eq!(needs(&routes, &Method::GET, "/hive/v1/status"), MACHINES);
        assert_eq!(needs(&routes, &Method::HEAD, "/hive/v1/status"), MACHINES);
        assert_eq!(needs(&routes, &Method::POST, "/hive/v1/new"), ADMIN);
        assert_eq!(needs(&routes, &Method::DELETE, "/hive/v1/status"), ADMIN);
    }
}
