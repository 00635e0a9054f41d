//! Pulls and streams: from the body of a request to its pages, which may come later.

use std::rc::Rc;

use actix_web::http::header::{ACCEPT, HeaderValue};
use bytes::Bytes;
use relay_auth::Operation;
use relay_core::Relay;

use crate::api::error::ApiError;
use crate::api::events::EventFormat;
use crate::api::{decode_pull, decode_stream};
use crate::connection::in_flight_request::InFlightRequest;
use crate::service::RelayService;
use crate::service::auth::authorization;
use crate::service::body::Body;
use crate::service::body::limits::BodyKind;
use crate::service::pages::{PageRead, encode};
use crate::service::response::ApiResponse;
use crate::service::waits::Reader;

impl<R: Relay> RelayService<R> {
    pub(super) async fn pull(
        &self,
        body: &mut Body<'_>,
        in_flight: &InFlightRequest,
    ) -> Result<ApiResponse, ApiError> {
        self.metrics.pull_began();
        let cursors = self.options.cursor_key.clone();
        let (request, share) = body.read(BodyKind::Pull, move |body| decode_pull(body, &cursors)).await?;
        // A request that waits for an arrival holds no memory.
        drop(share);
        self.permit(Operation::Pull, &request.pull.recipient, body).await?;
        let (pages, connection) = (&self.readers.pages, in_flight.connection());
        let wait = (request.wait, self.options.pull_wait_max);
        match pages.read_or_register(&request.pull, wait, body.client(), connection).await? {
            Ok(PageRead { page, share }) => {
                let (cursors, recipient) = (&self.options.cursor_key, &request.pull.recipient);
                let (page, share) =
                    encode(body.accepted(), cursors, recipient, request.finish(page), share).await?;
                Ok(ApiResponse::page(page, share))
            }
            Err(waiting) => {
                let (reader, connection) = (reader(body), Rc::clone(connection));
                let response = self.readers.answer_later(request, waiting, reader, connection, body.id());
                Ok(ApiResponse::later(response))
            }
        }
    }

    pub(super) async fn stream(
        &self,
        body: &mut Body<'_>,
        in_flight: &InFlightRequest,
    ) -> Result<ApiResponse, ApiError> {
        let cursors = self.options.cursor_key.clone();
        let (request, share) = body.read(BodyKind::Pull, move |body| decode_stream(body, &cursors)).await?;
        drop(share);
        self.permit(Operation::Pull, &request.pull.recipient, body).await?;
        let format = EventFormat::accepted(body.headers().get_all(ACCEPT).map(HeaderValue::as_bytes));
        let events = self.streams.open(request, reader(body), format, in_flight)?;
        Ok(ApiResponse::events(format, events))
    }
}

/// Who reads, for longer than the request is there.
fn reader(body: &mut Body<'_>) -> Reader {
    let authorization = authorization(body.headers()).map(Bytes::copy_from_slice);
    Reader { client: body.take_client(), authorization, accepted: body.accepted() }
}
