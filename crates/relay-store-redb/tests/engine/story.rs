//! A story is a fixed sequence of requests that makes the engine do everything that it can. Its
//! ledger records the answers, and audits a store against them. The ledger knows only the API.

mod audit;
mod ledger;
mod steps;

pub(crate) use self::ledger::Ledger;
pub(crate) use self::steps::{OnFailure, STORY, Step};
