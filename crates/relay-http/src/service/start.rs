//! How a service starts, and how another one with other options takes its place.

use std::sync::Arc;

use arc_swap::ArcSwap;
use relay_core::Relay;

use crate::limits::memory_budget::Budget;
use crate::limits::parking::Parking;
use crate::limits::waiting_line::WaitingLine;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::options::Options;
use crate::service::RelayService;
use crate::service::auth::Gate;
use crate::service::body::limits::BodyLimits;
use crate::service::drain::Drain;
use crate::service::pages::Pages;
use crate::service::rate_limit::RateLimiter;
use crate::service::request_id::RequestIds;
use crate::service::streams::Streams;
use crate::service::waits::{Readers, Standing};

impl<R: Relay> RelayService<R> {
    pub(crate) fn new(relay: Arc<R>, metrics: Arc<Metrics>, options: Options) -> Self {
        let started = monotonic::now();
        let budget = Budget::new(options.inflight_bytes_max);
        let (request_ids, waiting) = (Arc::new(RequestIds::new()), WaitingLine::default());
        let rate_limiter = options
            .rate_limit
            .clone()
            .map(|limit| Arc::new(RateLimiter::new(limit, waiting.clone(), request_ids.keys(), started)));
        let gate = Arc::new(Gate::new(&options.auth));
        let drain = Arc::<Drain>::default();
        let parking = Parking::new(options.connections_max.get(), options.connections_per_address_max.get());
        let pages = Pages::new(Arc::clone(&relay), Arc::clone(&metrics), budget.clone(), parking);
        let standing = Standing { gate: Arc::clone(&gate), rate_limiter: rate_limiter.clone() };
        let readers = Arc::new(Readers {
            relay: Arc::clone(&relay),
            pages: Arc::new(pages),
            standing: ArcSwap::from_pointee(standing),
            drain: Arc::clone(&drain),
            metrics: Arc::clone(&metrics),
            cursors: options.cursor_key.clone(),
        });
        Self {
            relay,
            metrics,
            rate_limiter,
            resting: None,
            gate,
            body_limits: body_limits(&options, &budget),
            budget,
            streams: streams(&options, &readers),
            readers,
            request_ids,
            waiting,
            started,
            drain,
            options,
        }
    }

    /// The service by other options, with everything that clients use and have used. It is in force
    /// at once for the next pages of streams and of waiting pulls, and for the rates of requests
    /// that have begun.
    ///
    /// Of `options`, it does not take those that [`Reload::apply`](crate::Reload::apply) names.
    pub(crate) fn reloaded(&self, options: Options) -> Self {
        let options = Options {
            inflight_bytes_max: self.options.inflight_bytes_max,
            cursor_key: self.options.cursor_key.clone(),
            readiness: self.options.readiness.clone(),
            liveness: self.options.liveness.clone(),
            ..options
        };
        let known = self.rate_limiter.clone().or_else(|| self.resting.clone());
        let rate_limiter = options.rate_limit.clone().map(|limit| {
            Arc::new(match &known {
                Some(known) => known.reloaded(limit),
                None => RateLimiter::new(limit, self.waiting.clone(), self.request_ids.keys(), self.started),
            })
        });
        let gate = Arc::new(self.gate.reloaded(&options.auth));
        self.parking().set_limits(options.connections_max.get(), options.connections_per_address_max.get());
        let standing = Standing { gate: Arc::clone(&gate), rate_limiter: rate_limiter.clone() };
        self.readers.standing.store(Arc::new(standing));
        Self {
            relay: Arc::clone(&self.relay),
            metrics: Arc::clone(&self.metrics),
            resting: known.filter(|_| rate_limiter.is_none()),
            rate_limiter,
            gate,
            body_limits: body_limits(&options, &self.budget),
            budget: self.budget.clone(),
            streams: streams(&options, &self.readers),
            readers: Arc::clone(&self.readers),
            request_ids: Arc::clone(&self.request_ids),
            waiting: self.waiting.clone(),
            started: self.started,
            drain: Arc::clone(&self.drain),
            options,
        }
    }
}

fn body_limits(options: &Options, budget: &Budget) -> BodyLimits {
    let (payload_max, batch_max) = (options.limits.message_bytes_max, options.batch_bytes_max);
    BodyLimits::new(payload_max, batch_max, options.request_timeout, budget.clone())
}

fn streams<R>(options: &Options, readers: &Arc<Readers<R>>) -> Arc<Streams<R>> {
    let (readers, wait_max) = (Arc::clone(readers), options.pull_wait_max);
    Arc::new(Streams { readers, age_max: options.connection_age_max, wait_max })
}
