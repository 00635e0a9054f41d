//! Routes requests by path and method, with actix-web.

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::api::endpoint::Endpoint;
use crate::service::response::ResponseBody;

/// What the path and method of a request stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteMatch {
    Found(Endpoint),
    /// An `OPTIONS` request.
    Options {
        /// The methods for the `Allow` header.
        allow: &'static str,
    },
    /// The endpoint does not support the method.
    MethodNotAllowed(Endpoint),
    NotFound,
}

impl RouteMatch {
    /// The endpoint of the path.
    pub(crate) const fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Found(endpoint) | Self::MethodNotAllowed(endpoint) => Some(endpoint),
            Self::Options { .. } | Self::NotFound => None,
        }
    }

    /// The match of a path without an endpoint. `OPTIONS *` is about the whole relay.
    fn without_endpoint(head: &RequestHead) -> Self {
        let is_server_wide = head.method == Method::OPTIONS && head.uri.path() == "*";
        if is_server_wide { Self::Options { allow: "GET, HEAD, POST, OPTIONS" } } else { Self::NotFound }
    }

    fn of(endpoint: Endpoint, head: &RequestHead) -> Self {
        if head.method == Method::OPTIONS {
            Self::Options { allow: endpoint.allow() }
        } else if endpoint.allows(&head.method) {
            Self::Found(endpoint)
        } else {
            Self::MethodNotAllowed(endpoint)
        }
    }
}

/// Registers all routes of the API, and a default route, with the handler `respond`.
pub(crate) fn routes<F, A>(config: &mut ServiceConfig, respond: F)
where
    F: Fn(RouteMatch, HttpRequest, Payload) -> A + Clone + 'static,
    A: Future<Output = HttpResponse<ResponseBody>> + 'static,
{
    let handler = |endpoint: Option<Endpoint>| {
        let respond = respond.clone();
        web::to(move |request: HttpRequest, payload: web::Payload| {
            let head = request.head();
            let route = match endpoint {
                Some(endpoint) => RouteMatch::of(endpoint, head),
                None => RouteMatch::without_endpoint(head),
            };
            respond(route, request, payload.into_inner())
        })
    };
    for endpoint in Endpoint::ALL {
        config.route(endpoint.path(), handler(Some(endpoint)));
    }
    config.default_service(handler(None));
}
