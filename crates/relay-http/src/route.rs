//! The paths and methods that there are, for actix-web to route by.

use std::sync::Arc;

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use relay_core::Relay;

use crate::answer::Sending;
use crate::server::Shared;

/// A path of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Push,
    Pull,
    Ack,
    Health,
    Stats,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// An endpoint, by a method that it knows.
    For(Endpoint),
    /// An endpoint, by another method.
    Wrongly(Endpoint),
    /// A path that there is not.
    Nowhere,
}

impl Endpoint {
    const ALL: [Self; 5] = [Self::Push, Self::Pull, Self::Ack, Self::Health, Self::Stats];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Push => "/push",
            Self::Pull => "/pull",
            Self::Ack => "/ack",
            Self::Health => "/health",
            Self::Stats => "/stats",
        }
    }

    /// The methods that it knows, as `Allow` tells them.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Push | Self::Pull | Self::Ack => "POST",
            Self::Health | Self::Stats => "GET, HEAD",
        }
    }

    fn knows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|known| known == method.as_str())
    }
}

impl Asked {
    /// The endpoint that the path names.
    pub(crate) const fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::For(endpoint) | Self::Wrongly(endpoint) => Some(endpoint),
            Self::Nowhere => None,
        }
    }

    fn at(endpoint: Endpoint, head: &RequestHead) -> Self {
        if endpoint.knows(&head.method) { Self::For(endpoint) } else { Self::Wrongly(endpoint) }
    }
}

/// All routes of the API, and one for everything else.
pub(crate) fn routes<R: Relay>(config: &mut ServiceConfig, shared: &Arc<Shared<R>>) {
    for endpoint in Endpoint::ALL {
        let shared = Arc::clone(shared);
        let respond = move |request: HttpRequest, payload: web::Payload| {
            let asked = Asked::at(endpoint, request.head());
            respond(Arc::clone(&shared), asked, request, payload)
        };
        config.route(endpoint.path(), web::to(respond));
    }
    let shared = Arc::clone(shared);
    config.default_service(web::to(move |request, payload| {
        respond(Arc::clone(&shared), Asked::Nowhere, request, payload)
    }));
}

async fn respond<R: Relay>(
    shared: Arc<Shared<R>>,
    asked: Asked,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse<Sending> {
    shared.respond(asked, request, payload.into_inner()).await
}
