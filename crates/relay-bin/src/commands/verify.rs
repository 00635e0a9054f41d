//! `relay-bin verify`: checks the whole store. It repairs nothing, but opening the store replays
//! its journal. If a relay uses the store, the relay checks it.

use std::ops::ControlFlow;

use relay_store_redb::{OpenError, verify_index};
use serde_json::Value;

use super::progress::Progress;
use super::running::{Part, RunningRelay};
use super::{CommandError, Outcome, check_exists, human, open};
use crate::config::{RelayConfig, StorageKind};
use crate::reports::{ContentsReport, VerifyReport};
use crate::wiring;

pub(super) fn run(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let path = config.storage.path.display();
    if config.storage.kind == StorageKind::Memory {
        return Ok(print(&ask(config)?, "", is_json));
    }
    check_exists(&config.storage.path)?;
    Ok(match check(config) {
        Err(CommandError::Open(OpenError::InUse(_))) => {
            print(&ask(config)?, &format!("{path} in use, without the pages of the index: "), is_json)
        }
        checked => print(&checked?, &format!("{path}: "), is_json),
    })
}

/// Reads a whole store that no relay uses, for people.
pub(super) fn verify(config: &RelayConfig) -> Result<Outcome, CommandError> {
    Ok(print(&check(config)?, &format!("{}: ", config.storage.path.display()), false))
}

/// Reads a whole store: first the pages of its index while it is closed, then everything else.
fn check(config: &RelayConfig) -> Result<VerifyReport, CommandError> {
    let mut findings = verify_index(&config.storage.path, wiring::cache_bytes(config))?;
    let store = open(config)?;
    let mut report = VerifyReport::of_redb(&store, &mut |_| ControlFlow::Continue(()))?;
    findings.append(&mut report.findings);
    Ok(VerifyReport { findings, ..report })
}

/// Has the running relay check its store.
fn ask(config: &RelayConfig) -> Result<VerifyReport, CommandError> {
    let bar = Progress::of_items("verifying", 0);
    let mut findings = Vec::new();
    let report: VerifyReport = RunningRelay::connect(config)?.ask("verify", &(), |part| match part {
        Part::Progress(progress) => bar.set(progress.done, progress.total),
        Part::Row(Value::String(finding)) => findings.push(finding),
        Part::Row(_) => {}
    })?;
    Ok(VerifyReport { findings, ..report })
}

/// The findings for people, behind `prefix`, or for scripts. The command fails if there are any.
pub(super) fn print(report: &VerifyReport, prefix: &str, is_json: bool) -> Outcome {
    let found = report.findings.len();
    if is_json {
        return Outcome { success: found == 0, ..Outcome::success(super::to_json(report)) };
    }
    let summary = match (report.contents, &report.uncounted) {
        (Some(ContentsReport { queues, items, payload_bytes, acked_names }), _) => format!(
            "{queues} queues, {items} items of {}, {acked_names} acked item ids",
            human::bytes(payload_bytes)
        ),
        (None, Some(error)) => format!("cannot be counted, {error}"),
        (None, None) => "cannot be counted".to_owned(),
    };
    Outcome::with_findings(&report.findings, format!("{prefix}{summary}; {found} findings\n"))
}
