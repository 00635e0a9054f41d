//! One request and its response over HTTP. It repeats nothing, follows no redirect, uses no proxy
//! of the environment, and reads no more of a response than its caller allows.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use relay_roots::Authorities;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, Url, redirect};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use crate::error::{Error, of_http};
use crate::options::{Identity, Options, Roots};
use crate::wire;

/// The largest page or event that is read.
pub(crate) const PAGE_BYTES_MAX: usize = 128 << 20;
/// The largest other response.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The largest error response; the relay's have 2 KiB.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The relay closes idle connections after 75 seconds.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The connections to one relay.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
}

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: &'static str,
    /// A body makes it a POST.
    pub(crate) body: Option<Bytes>,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) timeout: Duration,
    pub(crate) answer_bytes_max: usize,
}

impl Http {
    /// Reads the authorities, which may block on disk. Connects to nobody.
    pub(crate) fn new(base_url: &str, options: &Options) -> Result<Self, Error> {
        let base = parse(base_url)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&base, options)?)
            .user_agent(concat!("relay-client/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_MAX.min(options.request_timeout))
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|error| Error::Options(of_http(error).to_string()))?;
        Ok(Self { client, base })
    }

    /// Whether nobody in between can change what the relay says: TLS, or the same machine.
    pub(crate) fn is_trusted(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.base.scheme() == "https" || is_loopback || host == "localhost"
    }

    /// Sends a request and reads its response.
    pub(crate) async fn send(&self, request: Request) -> Result<Bytes, Error> {
        let (time, answer_bytes_max) = (request.timeout, request.answer_bytes_max);
        let exchange = async {
            let mut response = self.open(request, None).await?;
            read(&mut response, answer_bytes_max).await
        };
        timeout(time, exchange).await.map_err(|_| Error::Timeout)?
    }

    /// Sends a request, and leaves the body of a successful response to the caller.
    pub(crate) async fn open(
        &self,
        request: Request,
        accept: Option<&'static str>,
    ) -> Result<Response, Error> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), request.path));
        let method = if request.body.is_some() { Method::POST } else { Method::GET };
        let mut call = self.client.request(method, url);
        if let Some(body) = request.body {
            call = call.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body);
        }
        if let Some(header) = request.authorization {
            call = call.header(AUTHORIZATION, header);
        }
        if let Some(accept) = accept {
            call = call.header(ACCEPT, HeaderValue::from_static(accept));
        }
        let exchange = async {
            let mut response = call.send().await.map_err(of_http)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let pause = retry_after(response.headers());
            let body = match read(&mut response, REFUSAL_BYTES_MAX).await {
                Ok(body) => body,
                Err(Error::AnswerTooLarge { .. }) => Bytes::new(),
                Err(error) => return Err(error),
            };
            Err(wire::refusal(status.as_u16(), &body, pause))
        };
        timeout(request.timeout, exchange).await.map_err(|_| Error::Timeout)?
    }
}

/// Reads a body up to its limit.
async fn read(response: &mut Response, limit_bytes: usize) -> Result<Bytes, Error> {
    if response.content_length().is_some_and(|length| length > limit_bytes as u64) {
        return Err(Error::AnswerTooLarge { limit_bytes });
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(of_http)? {
        if piece.len() > limit_bytes.saturating_sub(body.len()) {
            return Err(Error::AnswerTooLarge { limit_bytes });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The value of `Retry-After`, in seconds or as a date. That counts from the response's own date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = headers.get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
    let now = now.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(UNIX_EPOCH);
    Some(at.duration_since(now).unwrap_or_default())
}

fn parse(base_url: &str) -> Result<Url, Error> {
    let wrong = |message: &str| Error::Options(format!("the address of the relay {message}"));
    let url = Url::parse(base_url).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("begins neither with http:// nor with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or a password; use credentials instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a query or a fragment"));
    }
    Ok(url)
}

fn tls(base: &Url, options: &Options) -> Result<ClientConfig, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Options(error.to_string());
    let authorities = match &options.roots {
        _ if base.scheme() == "http" => Authorities::Nobody,
        Roots::System => Authorities::System,
        Roots::File(path) => Authorities::File(path),
        Roots::Pem(pem) => Authorities::Pem(pem),
    };
    let builder = relay_roots::builder(authorities).map_err(|error| wrong(&error))?;
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate_pem, key_pem }) => {
            let chain = CertificateDer::pem_slice_iter(certificate_pem).collect::<Result<Vec<_>, _>>();
            let chain = chain.ok().filter(|chain| !chain.is_empty());
            let chain = chain.ok_or_else(|| wrong(&"the client certificate is not in PEM format"))?;
            let key = PrivateKeyDer::from_pem_slice(key_pem);
            let key = key.map_err(|_| wrong(&"the key of the client certificate is not in PEM format"))?;
            let unusable = |error| wrong(&format!("the client certificate cannot be used: {error}"));
            builder.with_client_auth_cert(chain, key).map_err(unusable)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        for url in [
            "",
            "relay",
            "ftp://relay",
            "http://user@relay",
            "http://:p@relay",
            "http://relay?x",
            "http://r#x",
        ] {
            assert_eq!(parse(url).unwrap_err().code(), "invalid_input", "{url}");
        }
    }

    #[test]
    fn only_tls_and_this_machine_are_trusted() {
        for (url, is_trusted) in [
            ("http://127.0.0.1:7000", true),
            ("http://[::1]:7000/", true),
            ("http://localhost", true),
            ("https://relay.example.org/a", true),
            ("http://192.0.2.1", false),
            ("http://localhost.example.org", false),
        ] {
            let roots = Roots::Pem(Vec::new());
            let http = Http { client: reqwest_client(), base: parse(url).unwrap() };
            assert_eq!(http.is_trusted(), is_trusted, "{url} {roots:?}");
        }
    }

    fn reqwest_client() -> reqwest::Client {
        Http::new("http://127.0.0.1", &Options::default()).unwrap().client
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let pause = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            headers.insert("date", HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"));
            retry_after(&headers)
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Tue, 14 Nov 2023 22:13:30 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(pause("Tue, 14 Nov 2023 22:13:00 GMT"), Some(Duration::ZERO));
        assert_eq!((pause("soon"), pause("-1"), pause("1.5")), (None, None, None));
    }
}
