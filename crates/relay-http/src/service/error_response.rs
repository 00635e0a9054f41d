//! Turns errors into responses, and logs them. Internal errors are logged here once, with all
//! causes. Client errors are logged at debug, without the client's data, which may contain a
//! recipient.

use std::error::Error as StdError;
use std::fmt::Write as _;

use relay_core::Error;

use crate::api::code::Code;
use crate::api::error::ApiError;
use crate::api::format::Format;
use crate::service::request_id::RequestId;
use crate::service::response::ApiResponse;

impl ApiError {
    /// Logs the error and makes a response. `request` is `None` for input that is not a readable
    /// request.
    pub(crate) fn into_api_response(self, format: Format, request: Option<RequestId>) -> ApiResponse {
        let error_body = self.error_body();
        self.log_as(error_body.code, request);
        let mut response = ApiResponse::with(error_body.status(), format, &error_body.body());
        response.set_code(error_body.code);
        for (name, value) in error_body.into_headers() {
            response.set_header(name, value);
        }
        response
    }

    /// Logs an error that has no response of its own.
    pub(super) fn log(&self) {
        self.log_as(self.error_body().code, None);
    }

    fn log_as(&self, code: Code, request: Option<RequestId>) {
        let (code, request) = (code.as_str(), request.map(tracing::field::display));
        match self {
            Self::Relay(Error::Storage(source)) => {
                tracing::error!(code, request, error = chain(&**source), "the store failed");
            }
            Self::Internal(message) => {
                tracing::error!(code, request, error = message, "a request failed with an internal error");
            }
            // The store logs once that it is full; here, each push would log it.
            Self::Relay(
                Error::Rejected(_) | Error::StorageFull | Error::Overloaded { .. } | Error::NotReady { .. },
            )
            | Self::Body(_)
            | Self::BadRequest(_)
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::RequestTimeout
            | Self::BodyTooLarge { .. }
            | Self::BatchTooLarge { .. }
            | Self::RequestTooLarge { .. }
            | Self::HeadersTooLarge
            | Self::UnsupportedMediaType
            | Self::UnsupportedEncoding
            | Self::CrossSite(_)
            | Self::Auth { .. }
            | Self::QueueFull { .. }
            | Self::RateLimited(_)
            | Self::Draining
            | Self::Unready(_) => tracing::debug!(code, request, "refused"),
        }
    }
}

/// The message of an error and of all its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_log_has_all_causes() {
        let error = Error::storage(io::Error::other("/var/lib/relay/secret.db"));
        assert_eq!(chain(&error), "the store failed: /var/lib/relay/secret.db");
    }
}
