//! The paths and methods that there are, for actix-web to route by.

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::api::endpoint::Endpoint;
use crate::service::response::ResponseBody;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteMatch {
    /// An endpoint, by a method that it knows.
    Found(Endpoint),
    /// What may be done there.
    Options {
        /// The methods.
        allow: &'static str,
    },
    /// An endpoint, by another method.
    MethodNotAllowed(Endpoint),
    /// A path that there is not.
    NotFound,
}

impl RouteMatch {
    /// The endpoint that the path names.
    pub(crate) const fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Found(endpoint) | Self::MethodNotAllowed(endpoint) => Some(endpoint),
            Self::Options { .. } | Self::NotFound => None,
        }
    }

    /// A path that there is not, or the relay as a whole.
    fn elsewhere(head: &RequestHead) -> Self {
        let is_whole = head.method == Method::OPTIONS && head.uri.path() == "*";
        if is_whole { Self::Options { allow: "GET, HEAD, POST, OPTIONS" } } else { Self::NotFound }
    }

    fn at(endpoint: Endpoint, head: &RequestHead) -> Self {
        if head.method == Method::OPTIONS {
            Self::Options { allow: endpoint.allow() }
        } else if endpoint.knows(&head.method) {
            Self::Found(endpoint)
        } else {
            Self::MethodNotAllowed(endpoint)
        }
    }
}

/// All routes of the API, and one for everything else, to one handler.
pub(crate) fn routes<F, A>(config: &mut ServiceConfig, respond: F)
where
    F: Fn(RouteMatch, HttpRequest, Payload) -> A + Clone + 'static,
    A: Future<Output = HttpResponse<ResponseBody>> + 'static,
{
    for endpoint in Endpoint::ALL {
        let respond = respond.clone();
        let respond = move |request: HttpRequest, payload: web::Payload| {
            respond(RouteMatch::at(endpoint, request.head()), request, payload.into_inner())
        };
        config.route(endpoint.path(), web::to(respond));
    }
    let respond = move |request: HttpRequest, payload: web::Payload| {
        respond(RouteMatch::elsewhere(request.head()), request, payload.into_inner())
    };
    config.default_service(web::to(respond));
}
