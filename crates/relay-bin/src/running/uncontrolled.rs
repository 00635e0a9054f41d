//! The control socket of a program without a durable store: there is none.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::Arc;

use relay_wake::WakingRelay;

use crate::config::RelayConfig;
use crate::deferred_store::DeferredStore;
use crate::error::RelayError;
use crate::logging::LogFilter;

pub(super) struct ControlPlan<R>(PhantomData<fn() -> R>);

pub(super) struct Control;

pub(super) struct ControlEnd;

impl<R> ControlPlan<R> {
    pub(super) const fn none() -> Self {
        Self(PhantomData)
    }

    /// `validate` has refused a control socket.
    pub(super) fn new(
        _: &RelayConfig,
        _: Option<LogFilter>,
    ) -> Result<(Self, Option<Infallible>), RelayError> {
        Ok((Self::none(), None))
    }

    pub(super) fn start(self, _: &RelayConfig, _: &str, _: &Arc<DeferredStore<WakingRelay<R>>>) -> Control {
        Control
    }
}

impl Control {
    pub(super) fn drain_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        pending()
    }

    pub(super) fn serve(self) -> (impl Future<Output = ()> + Send, ControlEnd) {
        (pending(), ControlEnd)
    }
}

impl ControlEnd {
    pub(super) fn closing(&self) {}

    pub(super) async fn ended(self, _: &Result<(), RelayError>) {}
}
