//! Clients that vanish without a word: the system notices them.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// When the system begins to ask a silent client whether it is still there, and how often.
const PROBE_TIME: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// How long a client may leave bytes or questions without an acknowledgement. It is longer than a
/// client may take to read anything.
const DEAD_AFTER: Duration = Duration::from_secs(120);

/// Makes the system end the connection of a client that has vanished without a word, whether it
/// owes an acknowledgement or nothing at all. Else a client that waits would keep its place for
/// long.
pub(super) fn notice_dead_peer(socket: SockRef<'_>, request_timeout: Duration) {
    let keepalive = TcpKeepalive::new().with_time(PROBE_TIME).with_interval(PROBE_INTERVAL);
    // Failures are harmless: other limits bound what a dead client holds. A Unix socket cannot
    // vanish without a word.
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER.max(request_timeout.saturating_mul(2))));
}
