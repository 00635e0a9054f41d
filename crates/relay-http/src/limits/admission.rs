//! What becomes of a connection, before anything of it is read.

use crate::limits::addresses::Address;

/// What may become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Open,
    /// Its address is shut out: it is told so, once.
    RefuseOnce,
    /// It is closed without a word.
    Closed(WhyRefused),
}

/// What is to become of a connection, before anything of it is read.
pub(crate) struct Admission {
    pub(crate) entry: Entry,
    /// The address that it counts for, unless it is exempt.
    pub(crate) address: Option<Address>,
    /// Whether it has set off a ban.
    pub(crate) ban_began: bool,
}

impl Admission {
    /// Nothing is known against it.
    pub(crate) const OPEN: Self = Self { entry: Entry::Open, address: None, ban_began: false };
}

/// Why nothing of a connection is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyRefused {
    /// Its address opens too many in a second.
    Rate,
    /// Its address has as many as it may, and each of them is in use.
    Address,
    /// Its address is banned; some of these are told so.
    Ban,
}

impl WhyRefused {
    pub(crate) const ALL: [Self; 3] = [Self::Rate, Self::Address, Self::Ban];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Address => "address",
            Self::Ban => "ban",
        }
    }
}
