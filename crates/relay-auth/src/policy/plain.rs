//! The rules for plain names: who may read them, and who may push to them.

use relay_core::Operation;

use super::{Granted, PlainNames, Policy, PushPlain, READER, SENDER};
use crate::certified_names::CertifiedNames;
use crate::issuer_token::IssuerToken;
use crate::proof::Proof;
use crate::refusal::Refusal;

/// What a client shows: the `Authorization` header and the names in its certificate.
type Shown<'a> = (&'a Proof, &'a CertifiedNames);

impl Policy {
    /// `now` is in seconds since 1970.
    pub(super) fn may_plain(
        &self,
        operation: Operation,
        name: &str,
        shown: Shown<'_>,
        now: u64,
    ) -> Result<Granted, Refusal> {
        let plain_names = self.settings.plain_names;
        let reader = || self.check_plain(name, shown, IssuerToken::reads, now).map(|()| READER);
        match (plain_names, operation) {
            (PlainNames::Deny, _) => Err(Refusal::PlainDenied),
            (PlainNames::Token, Operation::Push) => reader().or_else(|_| self.may_send(name, shown, now)),
            (PlainNames::Token, _) => reader(),
            // Everybody may read how full the queue is.
            (PlainNames::Open, Operation::Push) => self.may_send(name, shown, now).map(|_| READER),
            (PlainNames::Open, _) => Ok(READER),
        }
    }

    fn may_send(&self, name: &str, shown: Shown<'_>, now: u64) -> Result<Granted, Refusal> {
        let sends = |token: &IssuerToken, name: &str| token.sends_to(name) || token.reads(name);
        match self.settings.push {
            PushPlain::Open => Ok(SENDER),
            PushPlain::Token => self.check_plain(name, shown, sends, now).map(|()| SENDER),
        }
    }

    /// Whether the certificate has the name, or a valid token allows it.
    fn check_plain(
        &self,
        name: &str,
        (proof, certified): Shown<'_>,
        allows: impl Fn(&IssuerToken, &str) -> bool,
        now: u64,
    ) -> Result<(), Refusal> {
        if certified.contains(name) {
            return Ok(());
        }
        match (proof, &self.settings.issuer) {
            // A certificate without names shows nothing; one with others is a wrong proof.
            (Proof::None, _) if certified.is_empty() => Err(Refusal::NoProof),
            (Proof::Malformed(malformed), _) => Err((*malformed).into()),
            (Proof::IssuerToken(token), Some(issuer)) if allows(token, name) => {
                Ok(issuer.check(token, &self.settings.audiences, now)?)
            }
            _ => Err(Refusal::WrongProof),
        }
    }
}
