//! What a command works with: the client, the proofs, and the environment of the process.

use std::time::Duration;

use relay_client::{Client, Credentials, Identity, Options as ClientOptions, Roots, Secret};

use crate::cli::{Options, QueueArgs};
use crate::failure::Failure;
use crate::proofs::{Proofs, read_private};

const URL: &str = "RELAY_URL";
const DEFAULT_URL: &str = "http://127.0.0.1:7000";

/// The longest file with certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// The variables of the process.
pub(crate) struct Environment(fn(&str) -> Option<String>);

impl Environment {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the environment")]
    pub(crate) fn of_process() -> Self {
        Self(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }
}

/// What a command works with.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) send_secret: Option<Secret>,
    recipient: Option<String>,
    /// For commands that need a client of their own.
    pub(crate) url: String,
    pub(crate) options: ClientOptions,
}

impl Session {
    pub(crate) fn open(options: &Options, environment: Environment) -> Result<Self, Failure> {
        let Environment(variable) = environment;
        let proofs = match &options.credentials {
            Some(path) => Proofs::of_file(path)?,
            None => Proofs::of_environment(variable)?,
        };
        let url = options.url.clone().or_else(|| variable(URL)).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let identity = match (&options.cert, &options.cert_key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate_pem: read_public(certificate)?,
                key_pem: read_private(key)?.into_bytes(),
            }),
            _ => None,
        };
        let options = ClientOptions {
            push_timeout: Duration::from_secs(options.timeout.get()),
            roots: options.ca.clone().map_or(Roots::System, Roots::File),
            identity,
            push_credentials: proofs.sending,
            ..ClientOptions::default()
        };
        let client = Client::new(&url, options.clone())?;
        let Proofs { recipient, reading: credentials, send_secret, .. } = proofs;
        Ok(Self { client, credentials, send_secret, recipient, url, options })
    }

    /// Whose queue a command is about.
    pub(crate) fn recipient(&self, queue: &QueueArgs) -> Result<String, Failure> {
        let recipient = queue.recipient.clone().or_else(|| self.recipient.clone());
        let message = "whose queue? Name it with --recipient, or in the credentials";
        recipient.ok_or_else(|| Failure::Usage(message.to_owned()))
    }
}

fn read_public(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let unusable = |what: String| Failure::Usage(format!("file {}: {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(unusable(format!("is not a regular file of at most {PEM_BYTES_MAX} bytes")));
    }
    std::fs::read(path).map_err(|error| unusable(format!("cannot be read: {error}")))
}
