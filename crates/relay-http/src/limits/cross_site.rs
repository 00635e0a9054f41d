//! What a browser may be made to ask by a page of somebody else, and by which names a relay may be
//! called. A browser reaches what strangers do not: loopback, an intranet, what asks for the user's
//! certificate. It says from where a request comes, which a page cannot forge, and the rule here
//! goes by that. It is no authentication: a program that is no browser says what it likes.
//!
//! - A request of another site is refused: one with `Sec-Fetch-Site`, unless that is `same-origin`
//!   or `none`; without it, one whose `Origin` is not where it is sent to. Origins that the
//!   operator has listed may ask.
//! - To a page whose name was made to lead here (DNS rebinding), all of this is its own site. What
//!   tells is the name in `Host`, which is the page's. An address is nobody's name, so it may
//!   always be asked by.
//! - What no browser has sent is not looked at, unless the operator has listed the names.
//!
//! It is pure, logs nothing, and repeats nothing that the client has sent.

mod authority;
#[cfg(test)]
mod tests;

use actix_web::http::Uri;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};

use authority::{Authority, Host};

use crate::api::error::Denied;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What browsers send, and pages cannot set. A browser leaves some of them out where it does not
/// trust the connection.
const BROWSER_FIELDS: [HeaderName; 4] = [
    ORIGIN,
    SEC_FETCH_SITE,
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
];

/// Where a web page is from, as browsers write it into `Origin`: `https://app.example.org`,
/// `http://localhost:8080`, or that of an application with a scheme of its own, such as
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
    /// All of it, in lower case.
    Own(String),
}

/// By which names a relay may be called. An address, and `localhost` with all below it, is good in
/// any case: they lead where they say, whoever runs a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHosts {
    /// `None`: by any.
    names: Option<Vec<Host>>,
    /// Whether it is asked of browsers alone.
    of_browsers: bool,
}

impl Origin {
    /// Reads an origin as browsers write it. `None` when it is none; `null` and `*` are none, since
    /// they are everybody's.
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
                let is_bare =
                    rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@*\"\\".contains(&byte));
                return is_bare
                    .then(|| Self(Scheme::Own(format!("{scheme}://{}", rest.to_ascii_lowercase()))));
            }
        };
        let Authority { host, port } = Authority::parse(rest)?;
        Some(Self(Scheme::Web { is_secure, host, port: port.unwrap_or(default_port) }))
    }

    /// Whether a page of this origin that asks `target` asks its own site. Who ends TLS before the
    /// relay may have left out the port of `target`, and does not tell the scheme; so both default
    /// ports will do.
    fn is_at(&self, target: &Authority) -> bool {
        match &self.0 {
            Scheme::Web { is_secure, host, port } => {
                let default_port = if *is_secure { 443 } else { 80 };
                target.host == *host && target.port.unwrap_or(default_port) == *port
            }
            Scheme::Own(_) => false,
        }
    }
}

impl AllowedHosts {
    /// Any name.
    pub const fn any() -> Self {
        Self { names: None, of_browsers: false }
    }

    /// These names, without a port; `*` among them means any. What is no name allows nothing.
    pub fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        if names.contains(&"*") {
            return Self::any();
        }
        Self { names: Some(names.into_iter().filter_map(Host::parse).collect()), of_browsers: false }
    }

    /// The same, asked of browsers alone: a proxy in front may then call the relay as it likes for
    /// everybody else.
    #[must_use]
    pub fn of_browsers(self) -> Self {
        Self { of_browsers: true, ..self }
    }

    /// Whether this can stand among the names of [`AllowedHosts::only`].
    pub fn is_name(text: &str) -> bool {
        text == "*" || Host::parse(text).is_some()
    }

    fn allow(&self, host: &Host) -> bool {
        let Some(names) = &self.names else { return true };
        host.is_address() || host.is_loopback_name() || names.contains(host)
    }
}

impl Default for AllowedHosts {
    fn default() -> Self {
        Self::any()
    }
}

/// Whether a request to `target` with these headers may be answered.
///
/// # Errors
/// [`Denied`], why not.
pub(crate) fn check(
    target: &Uri,
    headers: &HeaderMap,
    allowed_origins: &[Origin],
    allowed_hosts: &AllowedHosts,
) -> Result<(), Denied> {
    let is_of_browser = headers.keys().any(|name| BROWSER_FIELDS.contains(name));
    let is_any_name = allowed_hosts.names.is_none();
    if !is_of_browser && (is_any_name || allowed_hosts.of_browsers) {
        return Ok(());
    }
    let called = called(target, headers)?;
    match &called {
        Some(called) if !allowed_hosts.allow(&called.host) => return Err(Denied::Host),
        // HTTP/1.0 has requests without a host, and no browser sends any.
        None if is_of_browser && !is_any_name => return Err(Denied::Host),
        _ => {}
    }
    if is_of_browser { check_site(called.as_ref(), headers, allowed_origins) } else { Ok(()) }
}

/// Where a browser's request comes from.
fn check_site(called: Option<&Authority>, headers: &HeaderMap, allowed: &[Origin]) -> Result<(), Denied> {
    let origin = single(headers, &ORIGIN).map_err(|Several| Denied::Origin)?;
    let page = origin.map(Origin::parse);
    if let Some(Some(page)) = &page
        && allowed.contains(page)
    {
        return Ok(());
    }
    match single(headers, &SEC_FETCH_SITE).map_err(|Several| Denied::Origin)? {
        Some("same-origin" | "none") => Ok(()),
        // `cross-site` and `same-site`, and what may come one day.
        Some(_) => Err(Denied::Origin),
        None => match (page, called) {
            (None, _) => Ok(()),
            (Some(Some(page)), Some(called)) if page.is_at(called) => Ok(()),
            (Some(_), _) => Err(Denied::Origin),
        },
    }
}

/// By what the relay is called. HTTP/2 and absolute targets have it in the target, and then it is
/// not to be another one in `Host`.
fn called(target: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Denied> {
    let parse = |text| Authority::parse(text).ok_or(Denied::Host);
    let host = single(headers, &HOST).map_err(|Several| Denied::Host)?.map(parse).transpose()?;
    let target = target.authority().map(|authority| parse(authority.as_str())).transpose()?;
    match (target, host) {
        (Some(target), Some(host)) if target != host => Err(Denied::Host),
        (target, host) => Ok(target.or(host)),
    }
}

/// There is more than one field of a name, or one that is no text.
struct Several;

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Several> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(Several),
    }
}
