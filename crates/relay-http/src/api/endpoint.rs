//! The endpoints of the API: their paths and methods.

use actix_web::http::Method;
use relay_auth::Operation;

/// An endpoint of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Push,
    PushBatch,
    Pull,
    Ack,
    Purge,
    Stream,
    Health,
    Ready,
    Info,
    Stats,
    OpenApi,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 11] = [
        Self::Push,
        Self::PushBatch,
        Self::Pull,
        Self::Ack,
        Self::Purge,
        Self::Stream,
        Self::Health,
        Self::Ready,
        Self::Info,
        Self::Stats,
        Self::OpenApi,
    ];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Push => "/push",
            Self::PushBatch => "/push/batch",
            Self::Pull => "/pull",
            Self::Ack => "/ack",
            Self::Purge => "/purge",
            Self::Stream => "/stream",
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Info => "/info",
            Self::Stats => "/stats",
            Self::OpenApi => "/openapi.json",
        }
    }

    /// What a request does with a queue, if it does anything with one.
    pub(crate) const fn operation(self) -> Option<Operation> {
        match self {
            Self::Push | Self::PushBatch => Some(Operation::Push),
            Self::Pull | Self::Stream => Some(Operation::Pull),
            Self::Ack | Self::Purge => Some(Operation::Ack),
            Self::Health | Self::Ready | Self::Info | Self::Stats | Self::OpenApi => None,
        }
    }

    /// The supported methods, as in the header `Allow`.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Push | Self::PushBatch | Self::Pull | Self::Ack | Self::Purge | Self::Stream => {
                "POST, OPTIONS"
            }
            Self::Health | Self::Ready | Self::Info | Self::Stats | Self::OpenApi => "GET, HEAD, OPTIONS",
        }
    }

    pub(crate) fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}
