//! Refuses requests that a web page of another site makes a browser send, and requests to a host
//! name that is not allowed. A browser reaches what attackers do not: loopback, an intranet,
//! servers that ask for the user's certificate. It reports where a request comes from, and a page
//! cannot forge that. This is not authentication: other programs can send what they like.
//!
//! - A request from another site is refused. With `Sec-Fetch-Site`, that is every value except
//!   `same-origin` and `none`. Without it, that is an `Origin` that differs from the target.
//!   Origins that the operator has listed are allowed.
//! - With DNS rebinding, a page makes its own host name resolve to the relay, and then counts as
//!   the same site. The name in `Host` reveals that. IP addresses are always allowed, since no page
//!   can redirect them.
//! - Requests of other programs are not checked, unless the operator has listed host names.
//!
//! The functions are pure, log nothing, and repeat nothing that the client has sent.

mod authority;
#[cfg(test)]
mod tests;

use actix_web::http::Uri;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use authority::{Authority, Host};

use crate::api::error::Denied;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Fields that browsers send and pages cannot set. Browsers omit some of them on connections that
/// they do not trust.
const BROWSER_FIELDS: [HeaderName; 4] = [
    ORIGIN,
    SEC_FETCH_SITE,
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
];

/// The origin of a web page, as browsers send it in `Origin`: `https://app.example.org`,
/// `http://localhost:8080`, or one with the custom scheme of an application, such as
/// `tauri://localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Scheme);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scheme {
    Web {
        is_secure: bool,
        host: Host,
        port: u16,
    },
    /// The whole origin in lower case.
    Custom(String),
}

/// The host names that requests may use. IP addresses, `localhost` and its subdomains are always
/// allowed, since no name server decides where they lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// `None` allows any name.
    names: Option<Vec<Host>>,
    /// Whether only requests of browsers are checked.
    of_browsers: bool,
}

impl Origin {
    /// Parses an origin as browsers send it. `None` for anything else, also for `null` and `*`,
    /// which do not identify a site.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_plain) {
            return None;
        }
        let (is_secure, default_port) = match scheme.as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => {
                let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*\"\\".contains(&byte);
                return rest
                    .bytes()
                    .all(is_allowed)
                    .then(|| Self(Scheme::Custom(format!("{scheme}://{}", rest.to_ascii_lowercase()))));
            }
        };
        let Authority { host, port } = Authority::parse(rest)?;
        Some(Self(Scheme::Web { is_secure, host, port: port.unwrap_or(default_port) }))
    }

    /// Whether `target` is the own site of a page with this origin. A proxy that terminates TLS
    /// hides the scheme of `target` and may omit its port, so the port defaults to that of the
    /// origin.
    fn is_at(&self, target: &Authority) -> bool {
        match &self.0 {
            Scheme::Web { is_secure, host, port } => {
                let default_port = if *is_secure { 443 } else { 80 };
                target.host == *host && target.port.unwrap_or(default_port) == *port
            }
            Scheme::Custom(_) => false,
        }
    }
}

impl AllowedHosts {
    /// Allows any name.
    pub const fn any() -> Self {
        Self { names: None, of_browsers: false }
    }

    /// Allows these names, given without a port. `*` among them allows any name. Invalid names are
    /// ignored.
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        if names.contains(&"*") {
            return Self::any();
        }
        Self { names: Some(names.into_iter().filter_map(Host::parse).collect()), of_browsers: false }
    }

    /// Checks only requests of browsers. A proxy may then forward other requests under any name.
    #[must_use]
    pub fn of_browsers(self) -> Self {
        Self { of_browsers: true, ..self }
    }

    /// Whether [`AllowedHosts::only`] accepts this text as a name.
    pub fn is_name(text: &str) -> bool {
        text == "*" || Host::parse(text).is_some()
    }

    fn allows(&self, host: &Host) -> bool {
        let Some(names) = &self.names else { return true };
        host.is_address() || host.is_loopback_name() || names.contains(host)
    }
}

/// Checks a request to `target` with these headers.
///
/// # Errors
/// [`Denied`] if the request is refused.
pub(crate) fn check(
    target: &Uri,
    headers: &HeaderMap,
    allowed_origins: &[Origin],
    allowed_hosts: &AllowedHosts,
) -> Result<(), Denied> {
    let target = checked_target(target, headers, allowed_hosts)?;
    if is_of_browser(headers) { check_site(target.as_ref(), headers, allowed_origins) } else { Ok(()) }
}

/// Like [`check`], for something that other sites may link to: checks the host name alone.
///
/// # Errors
/// [`Denied`] if the request is refused.
pub(crate) fn check_host(
    target: &Uri,
    headers: &HeaderMap,
    allowed_hosts: &AllowedHosts,
) -> Result<(), Denied> {
    checked_target(target, headers, allowed_hosts).map(drop)
}

fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| BROWSER_FIELDS.contains(name))
}

/// The host and port that the request addresses, if they matter and it may.
fn checked_target(
    target: &Uri,
    headers: &HeaderMap,
    allowed_hosts: &AllowedHosts,
) -> Result<Option<Authority>, Denied> {
    let (is_of_browser, is_any_name) = (is_of_browser(headers), allowed_hosts.names.is_none());
    if !is_of_browser && (is_any_name || allowed_hosts.of_browsers) {
        return Ok(None);
    }
    let target = authority(target, headers)?;
    match &target {
        Some(target) if !allowed_hosts.allows(&target.host) => Err(Denied::Host),
        // Requests of HTTP/1.0 may have no host, but browsers do not send such requests.
        None if is_of_browser && !is_any_name => Err(Denied::Host),
        _ => Ok(target),
    }
}

/// The origin of the page that sends a request, if the operator has listed it.
pub(crate) fn listed_origin<'a>(headers: &'a HeaderMap, allowed: &[Origin]) -> Option<&'a HeaderValue> {
    let origin = Origin::parse(single(headers, &ORIGIN).ok()??)?;
    allowed.contains(&origin).then(|| headers.get(ORIGIN)).flatten()
}

/// Checks which site makes a browser send the request.
fn check_site(target: Option<&Authority>, headers: &HeaderMap, allowed: &[Origin]) -> Result<(), Denied> {
    let origin = single(headers, &ORIGIN).map_err(|Ambiguous| Denied::Origin)?;
    let page = origin.map(Origin::parse);
    if let Some(Some(page)) = &page
        && allowed.contains(page)
    {
        return Ok(());
    }
    match single(headers, &SEC_FETCH_SITE).map_err(|Ambiguous| Denied::Origin)? {
        Some("same-origin" | "none") => Ok(()),
        // `cross-site`, `same-site`, and future values.
        Some(_) => Err(Denied::Origin),
        None => match (page, target) {
            (None, _) => Ok(()),
            (Some(Some(page)), Some(target)) if page.is_at(target) => Ok(()),
            (Some(_), _) => Err(Denied::Origin),
        },
    }
}

/// The host and port that the request addresses. HTTP/2 and absolute targets have it in the target;
/// `Host` must not differ then.
fn authority(target: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Denied> {
    let parse = |text| Authority::parse(text).ok_or(Denied::Host);
    let host = single(headers, &HOST).map_err(|Ambiguous| Denied::Host)?.map(parse).transpose()?;
    let target = target.authority().map(|authority| parse(authority.as_str())).transpose()?;
    match (target, host) {
        (Some(target), Some(host)) if target != host => Err(Denied::Host),
        (target, host) => Ok(target.or(host)),
    }
}

/// A field appears more than once, or is not ASCII text.
struct Ambiguous;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Ambiguous> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(Ambiguous),
    }
}
