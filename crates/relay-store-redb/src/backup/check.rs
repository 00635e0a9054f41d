//! Looks at a backup without restoring it.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::backup::manifest::Entry;
use crate::backup::{Copied, OnProgress, Progress, each_piece, read_manifest};
use crate::error::CopyError;

/// Returns what a backup consists of, if it is complete: all its files exist and have the recorded
/// length. [`check`] also reads their contents.
///
/// # Errors
/// [`CopyError`], with a text for the operator.
pub fn inspect(backup: &Path) -> Result<Copied, CopyError> {
    let mut copied = Copied::default();
    for entry in read_manifest(backup)? {
        let path = backup.join(&entry.name);
        let found =
            path.symlink_metadata().map_err(|source| CopyError::File { path: path.clone(), source })?;
        if !found.is_file() || found.len() != entry.bytes {
            return Err(CopyError::Corrupted(path));
        }
        count(&mut copied, &entry);
    }
    Ok(copied)
}

/// Reads a whole backup, and compares each file with its recorded length and checksum. Returns what
/// the backup consists of, and the files that are missing, corrupt or unreadable. `watch` receives
/// the progress, and may stop the check.
///
/// # Errors
/// [`CopyError`], with a text for the operator, if the backup is incomplete.
pub fn check(backup: &Path, watch: OnProgress<'_>) -> Result<(Copied, Vec<PathBuf>), CopyError> {
    let entries = read_manifest(backup)?;
    let total_bytes = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    let (mut copied, mut corrupt) = (Copied::default(), Vec::new());
    for entry in entries {
        let path = backup.join(&entry.name);
        let done_bytes = copied.bytes;
        let mut advance =
            |bytes| watch(Progress { done_bytes: done_bytes.saturating_add(bytes), total_bytes });
        match is_sound(&path, &entry, &mut advance) {
            Some(true) => {}
            Some(false) => corrupt.push(path),
            None => return Err(CopyError::Stopped),
        }
        count(&mut copied, &entry);
    }
    Ok((copied, corrupt))
}

/// Whether a file is what was written; `None` if `advance` stops the check.
fn is_sound(path: &Path, entry: &Entry, advance: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Option<bool> {
    // A link or a pipe is not what was written, and reading it could block.
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == entry.bytes);
    let Some(file) = is_file.then(|| std::fs::File::open(path).ok()).flatten() else { return Some(false) };
    let mut is_stopped = false;
    let checksum = each_piece(entry.bytes, |piece, offset| {
        file.read_exact_at(piece, offset).map_err(drop)?;
        is_stopped = advance(offset + piece.len() as u64).is_break();
        if is_stopped { Err(()) } else { Ok(()) }
    });
    (!is_stopped).then_some(checksum == Ok(entry.checksum))
}

fn count(copied: &mut Copied, entry: &Entry) {
    copied.files += 1;
    copied.bytes = copied.bytes.saturating_add(entry.bytes);
}
