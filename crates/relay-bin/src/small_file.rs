//! Reads a file that the configuration names, and that should be small.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The first bytes of a file, at most `bytes_max`; `None` if it is not a regular file. It does not
/// block on a pipe.
///
/// # Errors
/// Those of the system.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    // Opening a pipe could block for ever.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
