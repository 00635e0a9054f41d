//! The decision about a new connection, before anything is read from it.

use crate::limits::addresses::Address;

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Open,
    /// The address is banned. The connection is served, and gets one refusal.
    RefuseOnce,
    /// The connection is closed without a response.
    Closed(WhyRefused),
}

/// The decision about a new connection.
pub(crate) struct Admission {
    pub(crate) entry: Entry,
    /// The address that the connection counts for, unless that is exempt.
    pub(crate) address: Option<Address>,
    /// Whether the connection has triggered a ban.
    pub(crate) ban_began: bool,
}

impl Admission {
    /// Lets in a connection that no limit counts.
    pub(crate) const OPEN: Self = Self { entry: Entry::Open, address: None, ban_began: false };
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyRefused {
    /// The address opens too many connections per second.
    Rate,
    /// The address has as many connections as it may, and all are busy.
    Address,
    /// The address is banned. This includes connections that get one refusal.
    Ban,
    /// Too many connections of proxies wait to learn who their clients are.
    Unnamed,
}

impl WhyRefused {
    pub(crate) const ALL: [Self; 4] = [Self::Rate, Self::Address, Self::Ban, Self::Unnamed];

    /// The value of the metric's label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Address => "address",
            Self::Ban => "ban",
            Self::Unnamed => "unnamed",
        }
    }
}
