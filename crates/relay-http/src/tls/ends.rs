//! Says in time that the served certificate ends, and that a revocation list is late. Whoever
//! renews them may have stopped doing so, and then no file ever changes. It refuses nothing.

use rustls::pki_types::UnixTime;

use super::Tls;

const DAY_SECONDS: i64 = 24 * 3600;

/// How long before its end a certificate is warned of.
const AHEAD_SECONDS: i64 = 14 * DAY_SECONDS;

/// What was warned of.
#[derive(Debug, Default)]
pub(super) struct Ends {
    certificate: Told,
    crl: Told,
}

/// Which end was told, and when, in seconds since 1970.
#[derive(Debug, Default)]
struct Told(Option<(i64, i64)>);

impl Ends {
    /// Logs what ends, once a day for each end.
    pub(super) fn warn(&mut self, tls: &Tls) {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        let in_force = tls.0.in_force.load();
        let certificate =
            in_force.certificate_end_seconds.filter(|end| end.saturating_sub(now) < AHEAD_SECONDS);
        if let Some(end) = certificate.filter(|end| self.certificate.is_due(*end, now)) {
            match end.saturating_sub(now) {
                ..=0 => tracing::warn!("the TLS certificate has expired; clients refuse it"),
                left => {
                    tracing::warn!(days_left = left / DAY_SECONDS, "the TLS certificate ends soon; renew it");
                }
            }
        }
        let crl = in_force.crl_end_seconds.filter(|end| *end < now);
        if crl.is_some_and(|end| self.crl.is_due(end, now)) {
            tracing::warn!(
                "a revocation list of client certificates is past its next update; it stays in force"
            );
        }
    }
}

impl Told {
    /// Whether this end is to be told now. It counts as told, then.
    fn is_due(&mut self, end: i64, now: i64) -> bool {
        let is_fresh = |told: i64| (0..DAY_SECONDS).contains(&now.saturating_sub(told));
        let is_told = self.0.is_some_and(|(known, told)| known == end && is_fresh(told));
        if !is_told {
            self.0 = Some((end, now));
        }
        !is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_told_once_a_day() {
        let mut told = Told::default();
        assert!(told.is_due(7, 1000));
        assert!(!told.is_due(7, 1000));
        assert!(!told.is_due(7, 1000 + DAY_SECONDS - 1));
        assert!(told.is_due(7, 1000 + DAY_SECONDS));
        assert!(told.is_due(8, 1000 + DAY_SECONDS), "another one is news");
        assert!(told.is_due(8, 1000), "the clock was set back");
        assert!(!told.is_due(8, 1001));
    }
}
