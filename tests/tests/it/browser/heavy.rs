//! A flood of a foreign page, at the rates of the shipped configuration.

use relay_tests::at_length;

use super::Stage;

/// Over HTTP/1.1, each such request costs the browser a connection, and so its user's address may
/// be banned for their number. Over HTTP/2 it does not.
#[test]
fn a_flood_of_a_foreign_page_over_http_2_bans_nobody() {
    let Some(stage) = Stage::with_tls("") else { return };
    let foreign = stage.page(&stage.pages.origin("foreign.localhost"));
    // In full, longer than a flood that ends with a ban (`rate_limit.ban_threshold`).
    for _ in 0..at_length(8, 1) {
        foreign.run(&format!("flood('{}/push', 5)", stage.relay_url()));
    }
    assert!(stage.outcomes("forbidden") > 100.0);
    let pushed = stage.listed_page().run("post('/push', item('alice', 1))");
    assert_eq!(pushed["status"], 200, "{pushed}");
    assert_eq!(stage.relay.sum("relay_refused_connections_total", ""), 0.0);
    assert_eq!(stage.relay.bans(), 0.0);
}
