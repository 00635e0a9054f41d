//! The keys of `[storage.postgres]`.

use std::path::PathBuf;

use serde::Deserialize;

/// How the relay uses a PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PostgresConfig {
    /// The connection string of the only database; empty if there are `shards`. It may contain the
    /// password, and is printed without it.
    pub dsn: String,
    /// Several databases, each with a part of the queues.
    pub shards: Vec<PostgresShard>,
    /// The file with the password. Empty: it is in the connection strings, or there is none.
    pub password_path: PathBuf,
    /// Whether connections are encrypted.
    pub tls: PostgresTls,
    /// The authorities that may sign the server's certificate, in PEM format. Empty: those of the
    /// system.
    pub ca_path: PathBuf,
    /// Where a message must be before its push is answered.
    pub durability: PostgresDurability,
    /// The number of connections that write.
    pub write_connections: u64,
    /// The number of connections that read.
    pub read_connections: u64,
}

/// One of several databases.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PostgresShard {
    /// The connection string, as [`PostgresConfig::dsn`].
    pub dsn: String,
    /// The slots of its queues, such as `0-127` or `0-63,200`.
    pub slots: String,
}

/// Whether connections to the database are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostgresTls {
    /// They are, and the server proves its name with a certificate.
    VerifyFull,
    /// They are not.
    Off,
}

/// Where a message must be before its push is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresDurability {
    /// On the disks of the server and of a synchronous standby.
    Replicated,
    /// Where the operator of the database says.
    Managed,
    /// On the disk of the one server.
    Single,
}

/// A connection string without its password.
pub(super) fn without_password(dsn: &str) -> String {
    if let Some((scheme, rest)) = dsn.split_once("://")
        && ["postgres", "postgresql"].contains(&scheme)
        && let Some((user, host)) = rest.rsplit_once('@')
    {
        let name = user.split_once(':').map_or(user, |(name, _)| name);
        return format!("{scheme}://{name}@{}", without_parameter(host));
    }
    without_parameter(dsn)
}

/// Replaces everything from the word `password` on, because the value may be quoted.
fn without_parameter(text: &str) -> String {
    match text.to_ascii_lowercase().find("password") {
        Some(start) => format!("{}password=***", text.get(..start).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        for (dsn, printed) in [
            ("host=a user=relay dbname=relay", "host=a user=relay dbname=relay"),
            ("host=a password=secret user=relay", "host=a password=***"),
            ("host=a password = 'se cr\\'et' user=relay", "host=a password=***"),
            ("postgres://relay:secret@a,b:5433/relay", "postgres://relay@a,b:5433/relay"),
            ("postgresql://relay:s@cret@a/relay", "postgresql://relay@a/relay"),
            ("postgres://a/relay?user=relay&PASSWORD=secret", "postgres://a/relay?user=relay&password=***"),
            ("host=a password=x://y@secret", "host=a password=***"),
            ("", ""),
        ] {
            assert_eq!(without_password(dsn), printed);
            assert!(!without_password(dsn).contains("cret"));
        }
    }
}
