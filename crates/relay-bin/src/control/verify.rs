//! `verify`: the running relay checks its whole store, as it was when the check began. It serves
//! meanwhile, and gives back disk space only afterwards.

use std::ops::ControlFlow;

use serde_json::Value;

use super::output::Output;
use super::protocol::Refusal;
use super::relay::ControlledRelay;
use crate::reports::VerifyReport;

/// How many items are checked between two reports of the progress.
const REPORT_ITEMS: u64 = 1000;

pub(super) async fn run(relay: &ControlledRelay, output: &Output) -> Result<Value, Refusal> {
    let turn = relay.whole_store_turn().await?;
    let store = relay.open_store()?;
    let watcher = output.clone();
    let checking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let items = store.figures().live.unwrap_or_default().items;
        let redb = store.redb().ok_or_else(|| {
            Refusal::new("not_with_this_store", "a store in memory has nothing that can be verified")
        })?;
        let checked = VerifyReport::of_redb(redb, &mut |checked| {
            if checked % REPORT_ITEMS == 0 {
                watcher.progress(checked, items.max(checked));
            }
            if watcher.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        checked.map_err(Refusal::failed)
    });
    let mut report = checking.await.map_err(Refusal::failed)??;
    // One line each, so that none is too long.
    for finding in report.findings.drain(..) {
        output.row(&finding).await?;
    }
    serde_json::to_value(report).map_err(Refusal::failed)
}
