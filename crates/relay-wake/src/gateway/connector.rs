//! Connects to the gateway: look-up, TCP, TLS. Each attempt has a time limit of its own, because
//! the client may go on with one whose call has ended.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
#[cfg(feature = "tls")]
use relay_roots::{Authorities, RootsError};
use tower_service::Service;

use super::GatewayError;
use super::resolver::Resolver;
use crate::options::Options;

#[cfg(feature = "tls")]
type Inner = hyper_rustls::HttpsConnector<HttpConnector<Resolver>>;
#[cfg(not(feature = "tls"))]
type Inner = HttpConnector<Resolver>;

/// The connector of a gateway.
pub(super) type Connector = Timed<Inner>;

/// A connector with a time limit.
#[derive(Clone)]
pub(super) struct Timed<C> {
    connector: C,
    timeout: Duration,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// The connector for these options. Blocks on disk.
pub(super) fn connector(options: &Options) -> Result<Connector, GatewayError> {
    let mut http = HttpConnector::new_with_resolver(Resolver::system());
    http.set_nodelay(true);
    http.set_connect_timeout(Some(options.timeout));
    Ok(Timed { connector: encrypted(http, options)?, timeout: options.timeout })
}

#[cfg(feature = "tls")]
fn encrypted(mut http: HttpConnector<Resolver>, options: &Options) -> Result<Inner, GatewayError> {
    http.enforce_http(false);
    let authorities = match &options.ca_path {
        _ if !options.url.is_https() => Authorities::Nobody,
        Some(path) => Authorities::File(path),
        None => Authorities::System,
    };
    let config = relay_roots::client_config(authorities).map_err(|error| match error {
        RootsError::File { path, reason } => GatewayError::Ca { path, reason },
        RootsError::NoneOfSystem => GatewayError::NoAuthorities,
        RootsError::Pem(reason) => GatewayError::Tls(reason),
        RootsError::Tls(error) => GatewayError::Tls(error.to_string()),
    })?;
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = if options.url.is_https() { builder.https_only() } else { builder.https_or_http() };
    Ok(builder.enable_http1().wrap_connector(http))
}

#[cfg(not(feature = "tls"))]
fn encrypted(http: HttpConnector<Resolver>, options: &Options) -> Result<Inner, GatewayError> {
    if options.url.is_https() {
        return Err(GatewayError::Tls("it is not built into this program".to_owned()));
    }
    Ok(http)
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.connector.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
