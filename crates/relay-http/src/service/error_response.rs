//! An error as a response, and in the log. Our faults are logged here, once, with all that led to
//! them; a client's at debug and without its words, since they may name a recipient.

use std::error::Error as StdError;
use std::fmt::Write as _;

use actix_http::Response;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use relay_core::Error;

use crate::api::code::Code;
use crate::api::error::ApiError;
use crate::service::request_id::RequestId;
use crate::service::response::ApiResponse;

impl ApiError {
    /// Logs the error and puts it into an answer: to this request, or to what could not be read as
    /// one.
    pub(crate) fn into_answer(self, request: Option<RequestId>) -> ApiResponse {
        let error_body = self.error_body();
        self.log(error_body.code, request);
        let mut answer = ApiResponse::json(error_body.status(), &error_body.body());
        answer.set_code(error_body.code);
        for (name, value) in error_body.into_headers() {
            answer.set_header(name, value);
        }
        answer
    }

    /// As [`ApiError::into_answer`], for where no connection of ours carries the answer.
    pub(crate) fn into_plain_response(self) -> Response<Bytes> {
        let error_body = self.error_body();
        self.log(error_body.code, None);
        let body = Bytes::from(error_body.body().to_string());
        let mut response = Response::with_body(error_body.status(), body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in error_body.into_headers() {
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn log(&self, code: Code, request: Option<RequestId>) {
        let (code, request) = (code.as_str(), request.map(tracing::field::display));
        match self {
            Self::Relay(Error::Storage(source)) => {
                tracing::error!(code, request, error = chain(&**source), "the store failed");
            }
            Self::Internal(what) => {
                tracing::error!(code, request, error = what, "a request ran into a fault of ours");
            }
            // A store that is full says so itself, once; here it would be a line for each push.
            Self::Relay(
                Error::Rejected(_) | Error::StorageFull | Error::Overloaded { .. } | Error::NotReady { .. },
            )
            | Self::Json(_)
            | Self::BadRequest(_)
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::RequestTimeout
            | Self::BodyTooLarge { .. }
            | Self::RequestTooLarge { .. }
            | Self::HeadersTooLarge
            | Self::UnsupportedMediaType
            | Self::UnsupportedEncoding
            | Self::CrossSite(_)
            | Self::RateLimited(_)
            | Self::Draining
            | Self::Unready(_) => tracing::debug!(code, request, "refused"),
        }
    }
}

/// An error and all that led to it.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string does not fail.
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
    fn the_log_has_the_whole_chain_of_causes() {
        let error = Error::storage(io::Error::other("/var/lib/relay/secret.db"));
        assert_eq!(chain(&error), "the store failed: /var/lib/relay/secret.db");
    }
}
