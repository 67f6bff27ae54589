//! Routes, each registered together with the right that it requires, so that none can be forgotten.

use std::collections::HashMap;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};

use crate::rights::{ADMIN, Needs};

/// The permission that each route requires, by its pattern and method.
pub(crate) type Requirements = HashMap<(String, Method), Needs>;

/// A router that knows its routes' permissions.
#[derive(Debug)]
pub(crate) struct Routes<S> {
    router: Router<S>,
    needs: Vec<(String, Method, Needs)>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), needs: Vec::new() }
    }

    pub(crate) fn get<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.on(MethodFilter::GET, Method::GET, path, needs, handler)
    }

    pub(crate) fn post<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.on(MethodFilter::POST, Method::POST, path, needs, handler)
    }

    pub(crate) fn put<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.on(MethodFilter::PUT, Method::PUT, path, needs, handler)
    }

    pub(crate) fn delete<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.on(MethodFilter::DELETE, Method::DELETE, path, needs, handler)
    }

    fn on<T: 'static>(
        mut self,
        filter: MethodFilter,
        method: Method,
        path: &str,
        needs: Needs,
        handler: impl Handler<T, S>,
    ) -> Self {
        self.needs.push((path.to_owned(), method, needs));
        Self { router: self.router.route(path, on(filter, handler)), needs: self.needs }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.needs.extend(other.needs);
        Self { router: self.router.merge(other.router), needs: self.needs }
    }

    /// These routes under a prefix.
    pub(crate) fn under(self, prefix: &str) -> Self {
        let under = |(path, method, needs)| (format!("{prefix}{path}"), method, needs);
        Self { router: Router::new().nest(prefix, self.router), needs: self.needs.into_iter().map(under).collect() }
    }

    /// These routes with their state; they can then join routes that have another.
    pub(crate) fn with_state<S2>(self, state: S) -> Routes<S2> {
        Routes { router: self.router.with_state(state), needs: self.needs }
    }

    /// Changes the router itself, such as its limits.
    pub(crate) fn map(self, change: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        Self { router: change(self.router), needs: self.needs }
    }

    /// The router, and its routes' permissions.
    pub(crate) fn into_parts(self) -> (Router<S>, Requirements) {
        let needs = self.needs.into_iter().map(|(path, method, needs)| ((path, method), needs));
        (self.router, needs.collect())
    }
}

/// The permission that a request to a route requires. A HEAD request is answered by the route's GET handler.
pub(crate) fn needs(of: &Requirements, method: &Method, route: &str) -> Needs {
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    of.get(&(route.to_owned(), method)).copied().unwrap_or(ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::MACHINES;

    #[test]
    fn what_is_not_registered_is_for_admins() {
        let routes = Requirements::from([(("/hive/v1/status".to_owned(), Method::GET), MACHINES)]);
        assert_eq!(needs(&routes, &Method::GET, "/hive/v1/status"), MACHINES);
        assert_eq!(needs(&routes, &Method::HEAD, "/hive/v1/status"), MACHINES);
        assert_eq!(needs(&routes, &Method::POST, "/hive/v1/new"), ADMIN);
        assert_eq!(needs(&routes, &Method::DELETE, "/hive/v1/status"), ADMIN);
    }
}
