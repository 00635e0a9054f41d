//! The URL of a gateway, checked when it is made.

use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

/// The longest URL, in bytes.
const BYTES_MAX: usize = 2048;

/// Where calls go: an http or https URL with a host, without user, password or fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct GatewayUrl(Uri);

/// Why a text is no URL of a gateway. No message repeats any of it: a path may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Not a URL with a scheme and a host.
    #[error("it is no URL with a host; write a host name that is not ASCII in its xn-- form")]
    Malformed,
    /// Another scheme.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// A user or a password.
    #[error("it has a user name or a password, which the relay does not send")]
    UserInfo,
    /// A fragment.
    #[error("it has a fragment (#), which is never sent")]
    Fragment,
    /// A port that no server can have.
    #[error("its port is not from 1 to 65535")]
    Port,
    /// Too long.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
}

impl GatewayUrl {
    /// Parses a URL such as `https://push.example.org/wake`.
    ///
    /// # Errors
    /// [`UrlFault`].
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        if text.len() > BYTES_MAX {
            return Err(UrlFault::TooLong);
        }
        if text.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(UrlFault::Malformed);
        };
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(UrlFault::Scheme);
        }
        if authority.as_str().contains('@') {
            return Err(UrlFault::UserInfo);
        }
        // An IPv6 address in brackets has colons, too.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().unwrap_or_default() == 0 {
            return Err(UrlFault::Port);
        }
        if authority.host().is_empty() {
            return Err(UrlFault::Malformed);
        }
        Ok(Self(uri))
    }

    /// Whether calls are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether the gateway is on this machine. It resolves no name but `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }
}

/// Without the path, which may be a secret.
impl std::fmt::Debug for GatewayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GatewayUrl").field(&self.0.authority().map(http::uri::Authority::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_a_call_can_use_are_accepted() {
        for (text, is_https, is_loopback) in [
            ("https://push.example.org/wake?secret=1", true, false),
            ("https://push.example.org", true, false),
            ("https://push.example.org/a@b?c@d", true, false),
            ("HTTP://LOCALHOST:8080/", false, true),
            ("http://127.1.2.3", false, true),
            ("http://[::1]:80/x", false, true),
            ("http://[::ffff:127.0.0.1]/", false, true),
            ("http://[2001:db8::1]/", false, false),
            ("http://localhost.example.org", false, false),
            ("https://127.0.0.1.example.org/", true, false),
        ] {
            let url = GatewayUrl::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!((url.is_https(), url.is_loopback()), (is_https, is_loopback), "{text}");
        }
        let long = format!("https://a/{}", "x".repeat(BYTES_MAX));
        for (text, fault) in [
            ("", UrlFault::Malformed),
            ("/wake", UrlFault::Malformed),
            ("push.example.org", UrlFault::Malformed),
            ("push.example.org:80", UrlFault::Malformed),
            ("https://", UrlFault::Malformed),
            ("https:///wake", UrlFault::Malformed),
            ("https://:80/", UrlFault::Malformed),
            ("https://a b/", UrlFault::Malformed),
            ("https://pu\u{e9}sh.example/", UrlFault::Malformed),
            ("https://a/\r\nx: y", UrlFault::Malformed),
            ("file:///etc/passwd", UrlFault::Malformed),
            ("ftp://a/", UrlFault::Scheme),
            ("unix://a/", UrlFault::Scheme),
            ("https://user@a/", UrlFault::UserInfo),
            ("https://user:pass@a/", UrlFault::UserInfo),
            ("https://a/#b", UrlFault::Fragment),
            ("https://a:99999/", UrlFault::Port),
            ("https://a:0/", UrlFault::Port),
            ("https://a:/", UrlFault::Port),
            (&*long, UrlFault::TooLong),
        ] {
            assert_eq!(GatewayUrl::parse(text), Err(fault), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_refused_or_has_a_host(text in "(https?://)?[a-z0-9.:@/?#\\[\\]%é -]{0,40}") {
            if let Ok(url) = GatewayUrl::parse(&text) {
                proptest::prop_assert!(url.uri().host().is_some_and(|host| !host.is_empty()), "{}", text);
                let authority = url.uri().authority().map_or("@", http::uri::Authority::as_str);
                proptest::prop_assert!(!authority.contains('@') && !text.contains('#'), "{}", text);
            }
        }
    }

    #[test]
    fn a_path_is_never_printed() {
        let url = GatewayUrl::parse("https://a.example/secret?token=1").unwrap();
        assert_eq!(format!("{url:?}"), "GatewayUrl(Some(\"a.example\"))");
    }
}
