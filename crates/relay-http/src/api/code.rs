//! The codes of error answers: the names and statuses that clients build on. When each is given is
//! decided elsewhere.

/// The `error.code` of an error answer. A code keeps its meaning for ever and is never used again
/// for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not what the API asks for.
    InvalidInput,
    /// The caller did not say who it is.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// There is no such path.
    NotFound,
    /// The path does not know the method; `Allow` lists those that it knows.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The recipient's queue is full.
    QuotaExceeded,
    /// The payload, or a body, is too large.
    MessageTooLarge,
    /// The body is in another format or encoding than JSON, plain or gzip.
    UnsupportedMediaType,
    /// The head of the request is too large.
    HeadersTooLarge,
    /// The address sends too much.
    RateLimited,
    /// The relay has a fault of its own.
    InternalError,
    /// The store failed; it is safe to repeat the request.
    StorageError,
    /// There is no space left.
    StorageFull,
    /// More work is waiting than the relay is willing to hold.
    Overloaded,
    /// The relay is about to end.
    Draining,
    /// The relay is still getting ready.
    NotReady,
}

impl Code {
    /// All codes there are.
    pub const ALL: [Self; 17] = [
        Self::InvalidInput,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::QuotaExceeded,
        Self::MessageTooLarge,
        Self::UnsupportedMediaType,
        Self::HeadersTooLarge,
        Self::RateLimited,
        Self::InternalError,
        Self::StorageError,
        Self::StorageFull,
        Self::Overloaded,
        Self::Draining,
        Self::NotReady,
    ];

    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        self.on_the_wire().0
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        self.on_the_wire().1
    }

    const fn on_the_wire(self) -> (&'static str, u16) {
        match self {
            Self::InvalidInput => ("invalid_input", 400),
            Self::Unauthorized => ("unauthorized", 401),
            Self::Forbidden => ("forbidden", 403),
            Self::NotFound => ("not_found", 404),
            Self::MethodNotAllowed => ("method_not_allowed", 405),
            Self::RequestTimeout => ("request_timeout", 408),
            Self::QuotaExceeded => ("quota_exceeded", 409),
            Self::MessageTooLarge => ("message_too_large", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
            Self::HeadersTooLarge => ("headers_too_large", 431),
            Self::RateLimited => ("rate_limited", 429),
            Self::InternalError => ("internal_error", 500),
            Self::StorageError => ("storage_error", 503),
            Self::Overloaded => ("overloaded", 503),
            Self::Draining => ("draining", 503),
            Self::NotReady => ("not_ready", 503),
            Self::StorageFull => ("storage_full", 507),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_listed_once_under_its_own_name() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
        }
    }
}
