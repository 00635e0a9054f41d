//! Stands in for the file with the keys of the issuer in a program without the feature `tls`. The
//! check of the configuration refuses an issuer.

use std::convert::Infallible;
use std::future::pending;

use relay_auth::Issuer;

use crate::config::AuthConfig;
use crate::supervision::ReloadRequests;

/// Never happens: without the feature `tls` there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum IssuerFileError {}

/// There is none.
pub(crate) struct IssuerFile(Infallible);

impl IssuerFile {
    #[expect(clippy::unnecessary_wraps, reason = "same signature as with TLS")]
    pub(crate) const fn load(_: &AuthConfig) -> Result<Option<Self>, IssuerFileError> {
        Ok(None)
    }

    pub(crate) const fn issuer(&self) -> Issuer {
        match self.0 {}
    }

    pub(crate) async fn watch(self, _: ReloadRequests) {
        pending::<()>().await;
    }
}
