//! Slows down clients that ask too often, and what the rate limit does not count.

use std::time::Duration;

use relay_ratelimit::{Refusal, SHARED_BUCKET};
use tokio::time::sleep;

use crate::connection::state::ConnectionState;
use crate::limits::addresses::Address;
use crate::limits::waiting_line::{WaitingPlace, WaitsFor};
use crate::monotonic;
use crate::service::client::Client;
use crate::service::rate_limit::RateLimiter;

impl RateLimiter {
    /// Delays a request that is refused because of the page that sent it, if its connection sends
    /// many. It takes no tokens, because they are those of the page's visitor.
    ///
    /// # Errors
    /// The refusal, if the address is banned.
    pub(in crate::service) async fn admit_foreign(
        &self,
        client: &Client,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) -> Result<(), Refusal> {
        let Some((key, address)) = &client.address else { return Ok(()) };
        if let Some(refusal) = self.limiter.is_banned(key, self.since_start()) {
            client.end_if_peer(connection);
            return Err(refusal);
        }
        self.slow_down_uncounted(address, connection, drained).await;
        Ok(())
    }

    /// Delays requests that take no tokens, if their connection sends many.
    pub(super) async fn slow_down_uncounted(
        &self,
        address: &Address,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) {
        if connection.address().is_none() {
            return;
        }
        let Some(delay) = connection.delay_of_uncounted(monotonic::now()) else { return };
        if delay <= self.options.max_wait
            && let Some(_place) = self.enter_for_refusal(address)
        {
            wait(delay, connection, drained).await;
        } else {
            connection.begin_end();
        }
    }

    /// Delays a refusal. It ends the connection of a banned peer, and of a peer that finds the line
    /// full.
    pub(super) async fn slow_down(
        &self,
        refusal: &Refusal,
        client: &Client,
        address: &Address,
        connection: &ConnectionState,
        drained: impl Future<Output = ()>,
    ) {
        let is_shut_out = refusal.banned && refusal.bucket == SHARED_BUCKET;
        if is_shut_out && client.is_peer {
            connection.begin_end();
        } else if self.options.max_wait.is_zero() && !refusal.banned {
            // The operator wants immediate refusals.
        } else if let Some(_place) = self.enter_for_refusal(address) {
            wait(self.options.max_wait, connection, drained).await;
        } else {
            client.end_if_peer(connection);
        }
    }

    /// `None` also if the operator allows no waiting.
    fn enter_for_refusal<'a>(&'a self, address: &'a Address) -> Option<WaitingPlace<'a>> {
        if self.options.max_wait.is_zero() { None } else { self.waiting.enter(address, WaitsFor::Refusal) }
    }
}

/// Waits for `time`. Returns false if the client hangs up or the relay drains before.
pub(super) async fn wait(
    time: Duration,
    connection: &ConnectionState,
    drained: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        () = sleep(time) => true,
        () = connection.hung_up() => false,
        () = drained => false,
    }
}
