//! `relay-bin status`: prints what the running relay does.

use super::running::RunningRelay;
use super::{CommandError, Outcome, human, rows};
use crate::config::RelayConfig;
use crate::control::status::Status;

pub(super) fn run(config: &RelayConfig, is_json: bool) -> Result<Outcome, CommandError> {
    let status: Status = RunningRelay::connect(config)?.ask("status", &(), |_| {})?;
    Ok(Outcome::success(if is_json { super::to_json(&status) } else { to_lines(&status) }))
}

fn to_lines(status: &Status) -> String {
    let state = match (status.state.as_str(), status.replayed_percent) {
        ("starting", Some(percent)) => format!("starting, {percent}% replayed"),
        ("full", _) => "full: pushes are refused with 507, pulls and acks go on".to_owned(),
        ("database", _) => "not ready: the database cannot be reached or used".to_owned(),
        ("standby", _) => "not ready: the database waits for its standby".to_owned(),
        (state, _) => state.to_owned(),
    };
    let store = match &status.path {
        Some(path) => format!("{} in {path}", status.store),
        None => status.store.clone(),
    };
    let mut all = vec![
        ("state", state),
        ("version", status.version.clone()),
        ("process", status.pid.to_string()),
        (
            "started",
            format!("{} ({} ago)", human::date(status.started_ms), human::duration(status.uptime_ms)),
        ),
        ("clients connect to", status.url.clone()),
        (
            "metrics",
            if status.admin_address.is_empty() { "off".into() } else { status.admin_address.clone() },
        ),
        ("store", store),
    ];
    if let (Some(items), Some(bytes)) = (status.items, status.item_bytes) {
        all.push(("items", format!("{items}, which take {}", human::bytes(bytes))));
    }
    if let (Some(free), Some(bytes)) = (status.disk_free_bytes, status.disk_bytes) {
        all.push(("disk", format!("{} free of {}", human::bytes(free), human::bytes(bytes))));
    }
    rows(&all)
}
