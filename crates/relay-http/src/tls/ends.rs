//! Warns before the certificate in use expires, and when a revocation list is overdue. If the
//! program that renews them has stopped, no file ever changes. These warnings reject nothing.

use rustls::pki_types::UnixTime;

use super::Tls;

const DAY_SECONDS: i64 = 24 * 3600;

/// How long before its expiry a certificate causes warnings.
const WARNING_SECONDS: i64 = 14 * DAY_SECONDS;

/// The warnings that were logged last.
#[derive(Debug, Default)]
pub(super) struct ExpiryWarnings {
    certificate: DailyWarning,
    crl: DailyWarning,
}

/// The end that was last warned about, and the time of that warning, in seconds since 1970.
#[derive(Debug, Default)]
struct DailyWarning(Option<(i64, i64)>);

impl ExpiryWarnings {
    /// Logs each warning once a day.
    pub(super) fn log(&mut self, tls: &Tls) {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        let current = tls.0.current.load();
        if let Some(end) = current.certificate_end_seconds
            && end.saturating_sub(now) < WARNING_SECONDS
            && self.certificate.is_due(end, now)
        {
            match end.saturating_sub(now) {
                ..=0 => tracing::warn!("the TLS certificate has expired; clients reject it"),
                left => {
                    tracing::warn!(
                        days_left = left / DAY_SECONDS,
                        "the TLS certificate expires soon; renew it"
                    );
                }
            }
        }
        if let Some(end) = current.crl_end_seconds
            && end < now
            && self.crl.is_due(end, now)
        {
            tracing::warn!(
                "a revocation list of client certificates is past its next update; it stays in use"
            );
        }
    }
}

impl DailyWarning {
    /// Whether to warn about this end now. If so, notes the warning as logged.
    fn is_due(&mut self, end: i64, now: i64) -> bool {
        let was_logged = self.0.is_some_and(|(known, logged)| {
            known == end && (0..DAY_SECONDS).contains(&now.saturating_sub(logged))
        });
        if !was_logged {
            self.0 = Some((end, now));
        }
        !was_logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_once_a_day_for_each_end() {
        let mut warning = DailyWarning::default();
        assert!(warning.is_due(7, 1000));
        assert!(!warning.is_due(7, 1000));
        assert!(!warning.is_due(7, 1000 + DAY_SECONDS - 1));
        assert!(warning.is_due(7, 1000 + DAY_SECONDS));
        assert!(warning.is_due(8, 1000 + DAY_SECONDS), "another end");
        assert!(warning.is_due(8, 1000), "the clock was set back");
        assert!(!warning.is_due(8, 1001));
    }
}
