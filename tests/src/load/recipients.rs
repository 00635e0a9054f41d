//! The recipients of a load. Their names, and the proofs that open those with a lock, follow from
//! numbers. Plain names are computed where they are written; names with a lock are prepared before
//! the clock starts, because a key or a token takes too long.

use std::fmt;
use std::sync::Arc;

use super::locks::Owner;
use super::scramble;

/// A number of recipients.
#[derive(Clone, Debug)]
pub struct Recipients {
    count: u64,
    /// `None`: plain names of [`Recipients::COMPUTED_BYTES`], without proofs.
    prepared: Option<Arc<Prepared>>,
}

/// Names of one length, and header lines of one length, each in one piece of memory.
struct Prepared {
    name_bytes: usize,
    names: Vec<u8>,
    header_bytes: usize,
    headers: Vec<u8>,
}

impl Recipients {
    /// Length of a computed name: 64 hexadecimal digits, as in real clients.
    pub const COMPUTED_BYTES: usize = 64;

    /// Plain names that are computed. There may be any number of them.
    pub fn computed(count: u64) -> Self {
        Self { count: count.max(1), prepared: None }
    }

    /// Plain names of `name_bytes` characters, at most [`Recipients::COMPUTED_BYTES`]. They are
    /// prepared like names with a lock, so that a comparison with those shows the lock alone.
    pub fn plain(count: u64, name_bytes: usize) -> Self {
        Self::prepare(count, |number| {
            let mut name = Vec::with_capacity(Self::COMPUTED_BYTES);
            scramble::write_name(number, &mut name);
            name.truncate(name_bytes);
            (name, String::new())
        })
    }

    /// `sha256:` names. The proofs are their secrets.
    pub fn with_secrets(count: u64) -> Self {
        Self::with_owners(count, Owner::of_secret, "", 0)
    }

    /// `ed25519:` names. The proofs are tokens for `audience` that are valid for ten minutes from
    /// `now` on, in seconds since 1970.
    pub fn with_keys(count: u64, audience: &str, now: u64) -> Self {
        Self::with_owners(count, Owner::of_key, audience, now)
    }

    fn with_owners(count: u64, owner_of: fn(u64) -> Owner, audience: &str, now: u64) -> Self {
        Self::prepare(count, |number| {
            let owner = owner_of(number);
            let header = authorization(&owner.proof(audience, now));
            (owner.name().as_bytes().to_vec(), header)
        })
    }

    fn prepare(count: u64, recipient: impl Fn(u64) -> (Vec<u8>, String)) -> Self {
        let (mut names, mut headers) = (Vec::new(), Vec::new());
        let (mut name_bytes, mut header_bytes) = (0, 0);
        for number in 0..count.max(1) {
            let (name, header) = recipient(number);
            (name_bytes, header_bytes) = (name.len(), header.len());
            names.extend_from_slice(&name);
            headers.extend_from_slice(header.as_bytes());
        }
        let prepared = Prepared { name_bytes, names, header_bytes, headers };
        Self { count: count.max(1), prepared: Some(Arc::new(prepared)) }
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The length of a name.
    pub fn name_bytes(&self) -> usize {
        self.prepared.as_ref().map_or(Self::COMPUTED_BYTES, |prepared| prepared.name_bytes)
    }

    /// Appends the name of the recipient with this number.
    pub fn write_name(&self, number: u64, text: &mut Vec<u8>) {
        match &self.prepared {
            None => scramble::write_name(number, text),
            Some(prepared) => text.extend_from_slice(entry(&prepared.names, prepared.name_bytes, number)),
        }
    }

    /// Appends the header line with the proof that opens this recipient; nothing if it is plain.
    pub fn write_proof(&self, number: u64, head: &mut Vec<u8>) {
        if let Some(prepared) = &self.prepared {
            head.extend_from_slice(entry(&prepared.headers, prepared.header_bytes, number));
        }
    }
}

/// Hides names and proofs.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("name_bytes", &self.name_bytes).finish_non_exhaustive()
    }
}

/// The header line with this proof.
pub fn authorization(proof: &str) -> String {
    format!("authorization: Bearer {proof}\r\n")
}

/// One of the entries that lie one after the other; empty if there is none with this number.
fn entry(entries: &[u8], bytes: usize, number: u64) -> &[u8] {
    let start = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(bytes);
    entries.get(start..start.saturating_add(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use relay_auth::{LIFE_SECONDS_MAX, Operation, Policy, Proof, Settings};

    use super::*;

    const AUDIENCE: &str = "https://relay.example.org";
    const NOW: u64 = 1_800_000_000;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    fn check(recipients: &Recipients, prefix: &str, name_bytes: usize) {
        let audiences = vec![AUDIENCE.to_owned()];
        let policy = Policy::new(Settings { audiences, ..Settings::default() });
        assert_eq!(recipients.name_bytes(), name_bytes);
        let mut names = HashSet::new();
        for number in 0..recipients.count() {
            let name = written(|text| recipients.write_name(number, text));
            assert_eq!(name.len(), name_bytes);
            assert!(name.starts_with(prefix), "{name}");
            let header = written(|head| recipients.write_proof(number, head));
            let value = header.strip_prefix("authorization: ").and_then(|rest| rest.strip_suffix("\r\n"));
            assert_eq!(value.is_none(), prefix.is_empty(), "only names with a lock have proofs");
            let until = (NOW + LIFE_SECONDS_MAX) * 1000;
            for operation in [Operation::Pull, Operation::Ack] {
                let proof = Proof::parse(value.map(str::as_bytes).into_iter());
                assert!(policy.may(operation, &name, &proof, until).is_ok());
            }
            names.insert(name);
        }
        assert_eq!(names.len() as u64, recipients.count(), "two recipients have one name");
    }

    #[test]
    fn every_name_is_opened_by_its_proof() {
        check(&Recipients::computed(20), "", Recipients::COMPUTED_BYTES);
        check(&Recipients::plain(20, 50), "", 50);
        check(&Recipients::with_secrets(20), "sha256:", 50);
        check(&Recipients::with_keys(20, AUDIENCE, NOW), "ed25519:", 51);
    }

    #[test]
    fn no_name_and_no_proof_is_shown() {
        let shown = format!("{:?}", Recipients::with_secrets(2));
        assert!(!shown.contains("sha256") && !shown.contains("Bearer"), "{shown}");
    }
}
