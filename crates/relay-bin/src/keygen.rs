//! `relay-bin keygen`: prints a new recipient with a lock, and the secret or key that opens it.

use clap::{Args, ValueEnum};
use relay_auth::{Locks, keygen};

/// What `keygen` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct KeygenArgs {
    /// What opens the recipient: a secret that is sent along, or a key that signs tokens
    #[arg(long, value_enum, default_value_t)]
    pub kind: KeyKind,
    /// Also lock sending, with a secret of its own
    #[arg(long)]
    pub send_lock: bool,
}

/// What opens a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// A secret, in each request: `sha256:`.
    #[default]
    Secret,
    /// An Ed25519 key that signs tokens: `ed25519:`.
    Key,
}

/// The lines that the command prints, or why the system has no random bytes.
pub(crate) fn run(args: KeygenArgs) -> Result<String, getrandom::Error> {
    let bytes = random()?;
    let (label, (read, proof)) = match args.kind {
        KeyKind::Secret => ("secret", keygen::secret_lock(&bytes)),
        KeyKind::Key => ("private_key", keygen::key_lock(&bytes)),
    };
    let send = args.send_lock.then(random).transpose()?.map(|bytes| keygen::send_lock(&bytes));
    let locks = Locks { read, send: send.as_ref().map(|(lock, _)| *lock) };
    let mut lines = format!("recipient {locks}\n{label} {proof}\n");
    if let Some((_, secret)) = send {
        lines.push_str(&format!("send_secret {secret}\n"));
    }
    Ok(lines)
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
