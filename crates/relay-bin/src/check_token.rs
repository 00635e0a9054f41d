//! `relay-bin check-token`: says whether a proof opens a recipient, and why not. The proof comes
//! from standard input, since other users can see the arguments of a process.

use std::io::Read;

use clap::Args;
use relay_auth::{HEADER_BYTES_MAX, Operation, Policy, Proof, Refusal};
use relay_core::Clock;

use crate::clock::SystemClock;
use crate::config::AuthConfig;
use crate::error::RelayError;
use crate::issuer_file::IssuerFile;
use crate::wiring;

/// What `check-token` checks.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckTokenArgs {
    /// The recipient, such as sha256:...
    pub recipient: String,
}

/// Why `check-token` fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckTokenError {
    /// The proof does not open the recipient.
    #[error("{0} ({reason})", reason = .0.reason())]
    Refused(Refusal),
    /// The relay could not start.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Reads a secret or a token, as it would follow "Bearer", and checks it at this moment.
///
/// # Errors
/// If it does not open the recipient for pulls, or if the keys of the issuer cannot be used.
pub(crate) fn check(
    args: &CheckTokenArgs,
    auth: &AuthConfig,
    input: impl Read,
) -> Result<(), CheckTokenError> {
    let issuer = IssuerFile::load(auth).map_err(RelayError::from)?;
    let mut header = b"Bearer ".to_vec();
    // What cannot be read is missing, and the proof is then refused as too short.
    let _ = input.take(HEADER_BYTES_MAX as u64).read_to_end(&mut header);
    let proof = Proof::parse(std::iter::once(header.trim_ascii_end()));
    let issuer = issuer.as_ref().map(IssuerFile::issuer);
    let policy = Policy::new(wiring::auth_settings(auth, issuer));
    let granted = policy.may(Operation::Pull, &args.recipient, &proof, SystemClock.now().as_ms());
    granted.map(drop).map_err(CheckTokenError::Refused)
}
