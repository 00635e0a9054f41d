//! `relay-bin check-token`: says whether a proof opens a recipient, and why not. The proof comes
//! from standard input, since other users can see the arguments of a process.

use std::io::Read;

use clap::Args;
use relay_auth::{HEADER_BYTES_MAX, Operation, Policy, Proof, Refusal};
use relay_core::Clock;

use crate::clock::SystemClock;
use crate::config::AuthConfig;
use crate::wiring;

/// What `check-token` checks.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckTokenArgs {
    /// The recipient, such as sha256:...
    pub recipient: String,
}

/// Reads a secret or a token, as it would follow "Bearer", and checks it at this moment.
///
/// # Errors
/// If it does not open the recipient for pulls.
pub(crate) fn check(args: &CheckTokenArgs, auth: &AuthConfig, input: impl Read) -> Result<(), Refusal> {
    let mut header = b"Bearer ".to_vec();
    // What cannot be read is missing, and the proof is then refused as too short.
    let _ = input.take(HEADER_BYTES_MAX as u64).read_to_end(&mut header);
    let proof = Proof::parse(std::iter::once(header.trim_ascii_end()));
    let policy = Policy::new(wiring::auth_settings(auth));
    policy.may(Operation::Pull, &args.recipient, &proof, SystemClock.now().as_ms()).map(drop)
}
