//! `backup`: the relay writes a copy of its store to a directory.

use std::ops::ControlFlow;
use std::path::PathBuf;

use relay_store_redb::{Copied, CopyError, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::output::Output;
use super::protocol::Refusal;
use super::relay::ControlledRelay;
use crate::backup::{self, BackupError, BackupPaths};
use crate::wiring;

/// The arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Backup {
    /// The absolute path of the new directory.
    pub(crate) directory: PathBuf,
    /// The absolute path of the earlier backup that it shares files with.
    #[serde(default)]
    pub(crate) base: Option<PathBuf>,
    /// Whether the key file is copied as well.
    pub(crate) with_key: bool,
}

/// The result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) shared_bytes: u64,
}

pub(super) async fn run(
    relay: &ControlledRelay,
    arguments: Backup,
    output: &Output,
) -> Result<Value, Refusal> {
    let is_relative = |path: &PathBuf| !path.is_absolute();
    if is_relative(&arguments.directory) || arguments.base.as_ref().is_some_and(is_relative) {
        return Err(Refusal::new("invalid_request", "the path of a directory must be absolute"));
    }
    let key_path = arguments.with_key.then(|| wiring::key_path(&relay.facts.config));
    let turn = relay.whole_store_turn().await?;
    let snapshots = relay.open_store()?.redb().map(relay_store_redb::RedbRelay::snapshots);
    let snapshots = snapshots.ok_or_else(|| {
        Refusal::new("not_with_this_store", "only a store on disk (storage.kind = \"redb\") can be backed up")
    })?;
    let snapshot = snapshots.take().await.map_err(Refusal::failed)?;
    let output = output.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (directory, base) = (&*arguments.directory, arguments.base.as_deref());
        write(snapshot, BackupPaths { directory, base, key: key_path.as_deref() }, &output)
    });
    let Copied { files, bytes, shared_bytes } = writing.await.map_err(Refusal::failed)??;
    Ok(json!(Written { files, bytes, shared_bytes }))
}

fn write(snapshot: Snapshot, paths: BackupPaths<'_>, output: &Output) -> Result<Copied, Refusal> {
    tracing::info!("backup started");
    let copied = backup::write(snapshot, paths, |progress| {
        output.progress(progress.done_bytes, progress.total_bytes);
        if output.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match &copied {
        Ok(copied) => tracing::info!(files = copied.files, bytes = copied.bytes, "backup complete"),
        Err(error) => tracing::warn!(%error, "backup failed"),
    }
    copied.map_err(|error| match error {
        BackupError::Copy(CopyError::Stopped) => Refusal::gone(),
        error => Refusal::failed(error),
    })
}
