//! How many connections this process, and a relay that it starts, may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs besides its connections.
const SPARE_FILES: usize = 500;

/// Raises the limit on open files for this many connections, as far as the system allows. Returns
/// how many there may be then.
pub(super) fn allow(connections: usize) -> anyhow::Result<usize> {
    let wanted = (connections + SPARE_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        // Only root may raise the maximum.
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_err() {
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
        }
    }
    let current = getrlimit(Resource::Nofile).current.and_then(|current| usize::try_from(current).ok());
    Ok(current.map_or(connections, |current| current.saturating_sub(SPARE_FILES).min(connections)))
}
