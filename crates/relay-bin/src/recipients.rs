//! Hashes recipients before they reach a store, so that nothing that the store writes names
//! anybody.
//!
//! This is the only place that hashes for requests, and it lies above the store: every store can be
//! behind it. Everything above it, such as cursors, locks and rate limits, sees the recipients of
//! the clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_core::{
    Ack, AckOutcome, Envelope, Error, Figures, Limits, Operation, Page, Pull, PushOutcome, Recipient, Relay,
    Swept, TooManyWaiters, Unavailable, Waiter,
};

/// The length of a hash in base64url without padding.
const HASH_CHARACTERS: usize = 43;

/// Hashes recipients with a secret key. Without the key, nobody can test whether a hash is that of
/// a known name. It does not implement `Debug`.
pub(crate) struct RecipientHasher {
    key: [u8; blake3::KEY_LEN],
}

/// A relay that gets hashes in place of recipients, unless its store holds plain ones.
pub(crate) struct HashedRecipients<R> {
    relay: R,
    hasher: Option<RecipientHasher>,
}

impl RecipientHasher {
    pub(crate) const fn new(key: [u8; blake3::KEY_LEN]) -> Self {
        Self { key }
    }

    /// The keyed BLAKE3 hash of a recipient as base64url, which is a recipient as well.
    pub(crate) fn hash(&self, recipient: &Recipient) -> Recipient {
        let hash = blake3::keyed_hash(&self.key, recipient.as_str().as_bytes());
        let mut text = [0; HASH_CHARACTERS];
        let encoded = URL_SAFE_NO_PAD.encode_slice(hash.as_bytes(), &mut text);
        let text = encoded.ok().and_then(|bytes| std::str::from_utf8(text.get(..bytes)?).ok());
        text.and_then(|text| Recipient::parse(text).ok())
            .expect("32 bytes are 43 characters of ASCII, which are a valid recipient")
    }
}

impl<R> HashedRecipients<R> {
    /// Without a hasher, the relay gets the recipients as they are.
    pub(crate) const fn new(relay: R, hasher: Option<RecipientHasher>) -> Self {
        Self { relay, hasher }
    }

    pub(crate) const fn inner(&self) -> &R {
        &self.relay
    }

    fn name(&self, recipient: Recipient) -> Recipient {
        match &self.hasher {
            Some(hasher) => hasher.hash(&recipient),
            None => recipient,
        }
    }
}

impl<R: Relay> Relay for HashedRecipients<R> {
    async fn push(&self, mut envelope: Envelope) -> Result<PushOutcome, Error> {
        envelope.recipient = self.name(envelope.recipient);
        self.relay.push(envelope).await
    }

    async fn push_all(&self, mut envelopes: Vec<Envelope>) -> Result<Vec<Result<PushOutcome, Error>>, Error> {
        for envelope in &mut envelopes {
            envelope.recipient = self.name(envelope.recipient.clone());
        }
        self.relay.push_all(envelopes).await
    }

    async fn pull(&self, mut pull: Pull) -> Result<Page, Error> {
        pull.recipient = self.name(pull.recipient);
        self.relay.pull(pull).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        self.relay.ack(ack.map_recipient(|recipient| self.name(recipient))).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        self.relay.sweep().await
    }

    async fn ready(&self) -> Result<(), Error> {
        self.relay.ready().await
    }

    /// With the recipient of the client.
    async fn permit(
        &self,
        operation: Operation,
        recipient: &Recipient,
        authorization: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.relay.permit(operation, recipient, authorization).await
    }

    fn waiter(&self, recipient: &Recipient) -> Result<Option<Waiter>, TooManyWaiters> {
        self.relay.waiter(&self.name(recipient.clone()))
    }

    fn has_waiter(&self, recipient: &Recipient) -> bool {
        self.relay.has_waiter(&self.name(recipient.clone()))
    }

    fn is_full(&self) -> bool {
        self.relay.is_full()
    }

    fn unavailable(&self) -> Option<Unavailable> {
        self.relay.unavailable()
    }

    async fn ended(&self) -> Error {
        self.relay.ended().await
    }

    fn set_limits(&self, limits: &Limits) -> bool {
        self.relay.set_limits(limits)
    }

    fn figures(&self) -> Figures {
        self.relay.figures()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn recipient(text: &str) -> Recipient {
        Recipient::parse(text).unwrap()
    }

    #[test]
    fn a_hash_never_changes_and_depends_on_the_key() {
        let hash = |key: u8, text: &str| RecipientHasher::new([key; 32]).hash(&recipient(text));
        // The stores of operators contain such hashes.
        assert_eq!(hash(7, "alice").as_str(), "BZiZmFNLJE9H5Vk8Fe01q6h0Uq_B_-WLeg26f0nry0Q");
        assert_ne!(hash(7, "alice"), hash(8, "alice"));
        assert_ne!(hash(7, "alice"), hash(7, "Alice"));
    }

    #[test]
    fn every_recipient_has_a_hash_of_the_same_length() {
        let hasher = RecipientHasher::new([7; 32]);
        let mut hashes = std::collections::BTreeSet::new();
        for bytes in 1..=Recipient::BYTES_MAX {
            let hash = hasher.hash(&recipient(&"x".repeat(bytes)));
            assert_eq!(hash.as_str().len(), HASH_CHARACTERS);
            assert!(hashes.insert(hash.as_str().to_owned()), "{bytes}");
        }
        assert_eq!(hasher.hash(&recipient("é🦀")).as_str().len(), HASH_CHARACTERS);
    }
}
