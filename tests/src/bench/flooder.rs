//! A client that sends the same request as often as it can, and connects again whenever the relay
//! closes a connection. The load generator cannot do that: to it, a closed connection is a fault.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::Client;

/// Longer than the relay delays a refusal.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of the attempts: how often each status was answered. An attempt whose connection was
/// not accepted, or was closed without an answer, counts as status [`CLOSED`].
pub(super) type Outcomes = BTreeMap<u16, u64>;

pub(super) const CLOSED: u16 = 0;

/// Floods from `connections` threads for `time`. An attempt is one request, with a new connection
/// if there is none.
pub(super) fn flood(address: SocketAddr, request: &[u8], connections: usize, time: Duration) -> Outcomes {
    let is_over = AtomicBool::new(false);
    let is_over = &is_over;
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|_| scope.spawn(move || flood_until(address, request, is_over))).collect();
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        let mut total = Outcomes::new();
        for (status, count) in threads.into_iter().filter_map(|thread| thread.join().ok()).flatten() {
            *total.entry(status).or_default() += count;
        }
        total
    })
}

fn flood_until(address: SocketAddr, request: &[u8], is_over: &AtomicBool) -> Outcomes {
    let (mut outcomes, mut connection) = (Outcomes::new(), None);
    while !is_over.load(Ordering::Relaxed) {
        let status = attempt(address, request, &mut connection).unwrap_or(CLOSED);
        *outcomes.entry(status).or_default() += 1;
    }
    outcomes
}

/// The status of the answer. `None`: the connection is gone.
fn attempt(address: SocketAddr, request: &[u8], connection: &mut Option<Client>) -> Option<u16> {
    // Taken out, so that a fault leaves none behind.
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect_for(&address.to_string(), TIMEOUT).ok()?,
    };
    client.send(request).ok()?;
    let status = client.receive().ok()?.status;
    *connection = Some(client);
    Some(status)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crate::{Relay, pull_body};

    use super::*;

    #[test]
    fn attempts_are_counted_by_their_outcome() {
        let body = pull_body("bob", None, None).to_string();
        let request = crate::load::post("/pull", b"", body.as_bytes());
        let relay = Relay::start();
        let address = crate::load::command::address(&relay.base_url).unwrap();
        let outcomes = flood(address, &request, 2, Duration::from_millis(100));
        assert!(outcomes.contains_key(&200) && outcomes.len() == 1, "{outcomes:?}");

        // A server that closes each connection.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().take(5).for_each(drop));
        let outcomes = flood(address, &request, 1, Duration::from_millis(50));
        assert!(
            outcomes.get(&CLOSED).is_some_and(|count| *count >= 5) && outcomes.len() == 1,
            "{outcomes:?}"
        );
    }
}
