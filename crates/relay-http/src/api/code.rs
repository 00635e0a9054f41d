//! The codes of error responses: the texts and statuses that clients rely on.

/// Defines [`Code`] from one row for each code.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident: $text:literal, $status:literal;)*) => {
        /// The `error.code` of an error response. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$code),*];

            /// The code as sent to clients.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)*
                }
            }

            /// The HTTP status of the response.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$code => $status,)*
                }
            }
        }
    };
}

codes! {
    /// A field, the JSON or the HTTP of the request is invalid.
    InvalidInput: "invalid_input", 400;
    /// The caller is not authenticated.
    Unauthorized: "unauthorized", 401;
    /// The caller is not allowed to do this, or the request comes from a web page of another site,
    /// or its host name is not allowed.
    Forbidden: "forbidden", 403;
    /// The path does not exist.
    NotFound: "not_found", 404;
    /// The path does not support the method. The header `Allow` lists the supported ones.
    MethodNotAllowed: "method_not_allowed", 405;
    /// The request did not arrive in time.
    RequestTimeout: "request_timeout", 408;
    /// The recipient's queue is full.
    QuotaExceeded: "quota_exceeded", 409;
    /// The payload or the body is too large.
    MessageTooLarge: "message_too_large", 413;
    /// The body is not JSON, or has a content encoding other than gzip.
    UnsupportedMediaType: "unsupported_media_type", 415;
    /// The head of the request is too large.
    HeadersTooLarge: "headers_too_large", 431;
    /// The address, or all senders to one recipient, send too much.
    RateLimited: "rate_limited", 429;
    /// The relay failed unexpectedly.
    InternalError: "internal_error", 500;
    /// The store failed. It is safe to repeat the request.
    StorageError: "storage_error", 503;
    /// The store has no space left. Pulls and acks still work.
    StorageFull: "storage_full", 507;
    /// Too much work is waiting.
    Overloaded: "overloaded", 503;
    /// The relay is shutting down.
    Draining: "draining", 503;
    /// The relay is not ready yet.
    NotReady: "not_ready", 503;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_own_text() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
        }
    }
}
