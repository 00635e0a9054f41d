//! What can fail between the relay and its database, and what to do about it.

use tokio_postgres::error::SqlState;

use crate::slots::SlotsError;

/// An error of the database, of the connection to it, or of what it contains. The messages are for
/// operators. They repeat no data of clients.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The connection string is malformed.
    #[error("storage.postgres.dsn, or that of a shard, is not a connection string for PostgreSQL: {0}")]
    Dsn(String),
    /// The certificates of the database's authorities cannot be used.
    #[error("the authorities of the database's certificate cannot be used (storage.postgres.ca_path): {0}")]
    Authorities(#[from] relay_roots::RootsError),
    /// The database cannot be reached, or has closed the connection.
    #[error("the database cannot be reached: {0}")]
    Connection(String),
    /// The certificate of the database is not to be trusted.
    #[error("the certificate of the database is refused: {0}")]
    Certificate(rustls::Error),
    /// The server cannot keep what this relay promises.
    #[error("the database server cannot be used: {0}")]
    Server(String),
    /// The server is a standby, or writes nothing for another reason.
    #[error("the database server accepts no writes")]
    ReadOnly,
    /// The tables are missing, or those of another program version.
    #[error("the database's tables cannot be used: {0}")]
    Schema(String),
    /// The database refused a statement.
    #[error("the database refused a statement ({})", .0.code())]
    Statement(SqlState),
    /// The statements that this connection has prepared are not there.
    #[error(
        "the database does not know what this connection has prepared; a pooler between the relay and the server must \
         be in session mode"
    )]
    Pooler,
    /// The database has not answered in time.
    #[error("the database has not answered in time")]
    Timeout,
    /// It is not known whether the last transaction is on the standby as well.
    #[error("the database has committed without its standby")]
    Unconfirmed,
    /// The tables contain what this relay never writes.
    #[error("the database contains what the relay has not written: {0}")]
    Corrupted(&'static str),
    /// The database belongs to relays with another key.
    #[error(
        "the database is used by relays with another key; all relays of a database need the same file privacy.key_path"
    )]
    OtherKey,
    /// Some databases of a store hold keyed hashes, and others plain recipients.
    #[error(
        "some of the databases hold hashed recipients and others plain ones; all shards of a store must be alike"
    )]
    MixedRecipients,
    /// The shards do not hold each slot once.
    #[error("storage.postgres.shards: {0}")]
    Slots(#[from] SlotsError),
    /// The database belongs to other slots.
    #[error(
        "the database belongs to slots {stored}, but storage.postgres of this relay gives it {configured}; \
         docs/scale-out.md says how to change that"
    )]
    OtherSlots {
        /// Those that the database knows.
        stored: String,
        /// Those of the options.
        configured: String,
    },
    /// The database holds queues of slots that it is not to have.
    #[error(
        "the database holds queues of other slots than {configured}, which storage.postgres of this relay gives \
         it; docs/scale-out.md says how to move them"
    )]
    ForeignQueues {
        /// The slots of the options.
        configured: String,
    },
    /// Another command changes the slots, or two shards are one database.
    #[error("another command changes its slots now, or two shards are the same database")]
    Assigning,
    /// Queues would be lost.
    #[error(
        "queues of other slots ({queues}) are not in the databases that are to have them, or are newer here; \
         nothing was removed. Copy the database first (docs/scale-out.md)"
    )]
    NotCopied {
        /// How many of them.
        queues: u64,
    },
    /// An error of one of several databases.
    #[error("shard {number}: {error}")]
    InShard {
        /// Its number in the configuration, from 1.
        number: usize,
        /// Its error.
        error: Box<Self>,
    },
    /// A connection could not be made, for any of the other reasons.
    #[error("{0}")]
    Connecting(Box<Self>),
    /// The relay is ending.
    #[error("the relay is ending")]
    Ending,
    /// A thread for the system could not be started.
    #[error("the relay cannot start its threads: {0}")]
    Threads(#[source] std::io::Error),
}

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// The same transaction again: it met another one.
    Repeat,
    /// The same transaction again, over a new connection. Its outcome may be unknown.
    Reconnect,
    /// The disk of the database is full.
    Full,
    /// None.
    Fail,
}

impl PostgresError {
    /// The server would answer before a message is on a second machine.
    pub(crate) fn no_standby() -> Self {
        Self::Server(
            "synchronous_standby_names is empty, so messages would be on one machine only; set it, or set \
             storage.postgres.durability to \"single\" or \"managed\""
                .to_owned(),
        )
    }

    /// An error of a connection that is being made says nothing of the requests that wait for it.
    pub(crate) fn in_connecting(self) -> Self {
        Self::Connecting(Box::new(self))
    }

    /// Names the shard, if there are several.
    pub(crate) fn of_shard(self, number: Option<usize>) -> Self {
        match number {
            Some(number) => Self::InShard { number, error: Box::new(self) },
            None => self,
        }
    }

    /// Whether a queue stayed locked by another transaction.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Statement(code) if *code == SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Of two hosts: what a server says tells more than that the other one is silent.
    pub(crate) fn or(self, earlier: Option<Self>) -> Self {
        earlier.filter(|_| self.is_of_connection()).unwrap_or(self)
    }

    /// Whether the server could not be reached, or is not ready yet.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Timeout | Self::ReadOnly)
            || matches!(self, Self::Statement(code) if ["57", "08", "53"].contains(&code.code().get(..2).unwrap_or_default()))
    }

    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Connection(_)
            | Self::Certificate(_)
            | Self::Connecting(_)
            | Self::Server(_)
            | Self::ReadOnly
            | Self::Timeout
            | Self::Unconfirmed
            // Until the map is the same, new connections are refused, too.
            | Self::OtherSlots { .. } => Remedy::Reconnect,
            Self::Statement(code) => remedy(code),
            Self::Dsn(_)
            | Self::Authorities(_)
            | Self::Schema(_)
            | Self::Pooler
            | Self::Corrupted(_)
            | Self::OtherKey
            | Self::MixedRecipients
            | Self::Slots(_)
            | Self::ForeignQueues { .. }
            | Self::Assigning
            | Self::NotCopied { .. }
            | Self::InShard { .. }
            | Self::Ending
            | Self::Threads(_) => Remedy::Fail,
        }
    }
}

fn remedy(code: &SqlState) -> Remedy {
    // Two relays have created the same queue, or waited for each other.
    let repeated = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    let full = [SqlState::DISK_FULL];
    match code {
        code if repeated.contains(code) => Remedy::Repeat,
        code if full.contains(code) => Remedy::Full,
        // The server stops or starts, has become a standby, or has closed the connection.
        code if ["57", "08", "25", "53"].contains(&code.code().get(..2).unwrap_or_default()) => {
            Remedy::Reconnect
        }
        _ => Remedy::Fail,
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if is_of_another_session(code) => Self::Pooler,
            Some(code) => Self::Statement(code.clone()),
            None if let Some(refused) = certificate_error(&error) => Self::Certificate(refused.clone()),
            // Its text has the address and the reason of the system, and nothing that was sent.
            None => Self::Connection(with_causes(&error)),
        }
    }
}

impl From<PostgresError> for relay_core::Error {
    fn from(error: PostgresError) -> Self {
        match error.remedy() {
            Remedy::Full => Self::StorageFull,
            _ => Self::storage(error),
        }
    }
}

/// Each connection prepares its statements once, so it uses the session of another one.
fn is_of_another_session(code: &SqlState) -> bool {
    [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT].contains(code)
}

/// The error of rustls in a failed handshake, which lies in one of the system.
fn certificate_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(refused) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(refused);
        }
        source = cause.source();
    }
    None
}

fn with_causes(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_other_transactions_and_of_the_connection_are_repeated() {
        for (code, expected) in [
            ("40001", Remedy::Repeat),
            ("40P01", Remedy::Repeat),
            ("23505", Remedy::Repeat),
            ("55P03", Remedy::Repeat),
            ("57P01", Remedy::Reconnect),
            ("57P03", Remedy::Reconnect),
            ("25006", Remedy::Reconnect),
            ("08006", Remedy::Reconnect),
            ("53300", Remedy::Reconnect),
            ("53100", Remedy::Full),
            ("42P01", Remedy::Fail),
            ("22021", Remedy::Fail),
        ] {
            let error = PostgresError::Statement(SqlState::from_code(code));
            assert_eq!(error.remedy(), expected, "{code}");
        }
    }
}
