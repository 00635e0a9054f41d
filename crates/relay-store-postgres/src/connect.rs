//! Connections to the database: how they are made, what is asked of each before it is used, and
//! what the server says beside its answers.
//!
//! A request to cancel a statement is never sent: if it met a wait for the standby, the server
//! would answer with a success although the transaction is on one server only.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use relay_roots::Authorities;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use crate::error::PostgresError;
use crate::hosts;
use crate::naming;
use crate::options::{Durability, Options, ShardOptions, Tls};
use crate::statements::Statements;

/// How long a connection to one host may take until it can be used.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// The schemas that this program can use.
const SCHEMA: i32 = 2;

/// Plans are made once and look up single rows by index, however wrong statistics are. A client
/// that is gone frees its locks.
const SESSION: &str = "\
SET search_path = relay;
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET plan_cache_mode = force_generic_plan;
SET jit = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SET client_min_messages = warning;
SET statement_timeout = 0;
SET lock_timeout = '1s';
SET idle_in_transaction_session_timeout = '10s';
SELECT set_config('client_connection_check_interval', '2s', false)
    WHERE current_setting('server_version_num')::int >= 140000";

/// What a server must be, in the order of [`ServerState`].
const SERVER: &str = "\
SELECT current_setting('server_version_num')::int,
    pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
    current_setting('fsync')::bool AND current_setting('full_page_writes')::bool,
    current_setting('server_encoding') = 'UTF8',
    current_setting('synchronous_standby_names') <> '',
    extract(epoch FROM pg_postmaster_start_time())::text,
    CASE WHEN pg_is_in_recovery() THEN '0' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END";

const TABLES: &str = "SELECT schema_version, compatible_from FROM meta";

/// Makes connections.
pub(crate) struct Connector {
    /// One for each host, in the order of the connection string.
    hosts: Vec<Config>,
    /// The host that was used last.
    last: AtomicUsize,
    tls: Option<MakeRustlsConnect>,
    durability: Durability,
    /// The slots that the database must belong to, as it writes them.
    pub(crate) slots: String,
    /// Of the newest primary that was seen. An older one may have come back.
    timeline: AtomicU32,
}

/// A connection that may be used.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) statements: Statements,
    /// Tells servers, and starts of one server, from each other.
    pub(crate) server: String,
    warned: Arc<AtomicBool>,
}

/// Receives the notifications of a connection that listens.
pub(crate) type Notifications = mpsc::UnboundedSender<String>;

struct ServerState {
    version: i32,
    is_read_only: bool,
    is_safe: bool,
    is_utf8: bool,
    has_standby: bool,
    identity: String,
    timeline: u32,
}

impl Connector {
    pub(crate) fn new(options: &Options, shard: &ShardOptions) -> Result<Self, PostgresError> {
        let tls = match options.tls {
            Tls::VerifyFull => {
                let authorities = options.ca_path.as_deref().map_or(Authorities::System, Authorities::File);
                Some(MakeRustlsConnect::new(relay_roots::client_config(authorities)?))
            }
            Tls::Off => None,
        };
        Ok(Self {
            hosts: hosts::of(&shard.dsn, options)?,
            last: AtomicUsize::new(0),
            tls,
            durability: options.durability,
            slots: shard.slots.to_string(),
            timeline: AtomicU32::new(0),
        })
    }

    /// Whether each transaction must be on a standby.
    pub(crate) fn is_replicated(&self) -> bool {
        self.durability == Durability::Replicated
    }

    /// A connection to the server that accepts writes.
    pub(crate) async fn connect(&self) -> Result<Connection, PostgresError> {
        self.connect_with(None).await
    }

    /// Like [`Self::connect`]. Notifications go to `notifications`.
    pub(crate) async fn connect_with(
        &self,
        notifications: Option<Notifications>,
    ) -> Result<Connection, PostgresError> {
        let to = |host| self.connect_to(host, notifications.clone()).boxed();
        self.first_host(to).await
    }

    /// The kept connection, if it is open; else a new one.
    pub(crate) async fn connect_again(&self, kept: Option<Connection>) -> Result<Connection, PostgresError> {
        match kept.filter(|kept| !kept.is_closed()) {
            Some(kept) => Ok(kept),
            None => self.connect().await,
        }
    }

    async fn connect_to(
        &self,
        host: &Config,
        notifications: Option<Notifications>,
    ) -> Result<Connection, PostgresError> {
        let (client, warned, server) = self.session(host, notifications).await?;
        let row = client.query_one(TABLES, &[]).await.map_err(schema_error)?;
        check_schema(row.try_get(0)?, row.try_get(1)?)?;
        let row = client.query_one(naming::SLOTS, &[]).await?;
        // A new database belongs to none yet.
        if let Some(stored) = row.try_get::<_, Option<&str>>(0)? {
            naming::check_slots(&self.slots, Some(stored))?;
        }
        let statements = Statements::prepare(&client).await?;
        Ok(Connection { client, statements, server, warned })
    }

    /// Looks at all hosts, to learn which of them is the newest primary. An older one that came
    /// back may accept connections, too.
    pub(crate) async fn look_at_all(&self) {
        let looks = self.hosts.iter().map(|host| timeout(HOST_TIMEOUT, self.session(host, None)));
        // Only what the sessions have noted counts.
        drop(join_all(looks).await);
    }

    /// A connection for changes of the schema, which need not be there yet.
    pub(crate) async fn connect_bare(&self) -> Result<Client, PostgresError> {
        let (client, ..) = self.first_host(|host| self.session(host, None).boxed()).await?;
        Ok(client)
    }

    /// Tries one host after the other, the one that was used last first. One that hangs or cannot
    /// be used does not hide the others.
    async fn first_host<'a, T>(
        &'a self,
        connect: impl Fn(&'a Config) -> BoxFuture<'a, Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        let (mut failure, last) = (None, self.last.load(Ordering::Relaxed) % self.hosts.len().max(1));
        let hosts = self.hosts.iter().enumerate();
        for (index, host) in hosts.clone().skip(last).chain(hosts.take(last)) {
            match timeout(HOST_TIMEOUT, connect(host)).await.unwrap_or(Err(PostgresError::Timeout)) {
                Ok(connected) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(connected);
                }
                Err(error) => failure = Some(error.or(failure)),
            }
        }
        Err(failure.unwrap_or(PostgresError::Timeout))
    }

    /// A session with a server that can be used, and the server's identity.
    async fn session(
        &self,
        host: &Config,
        notifications: Option<Notifications>,
    ) -> Result<(Client, Arc<AtomicBool>, String), PostgresError> {
        let (client, warned) = self.open(host, notifications).await?;
        let server = self.prepare_session(&client).await?;
        Ok((client, warned, server))
    }

    async fn open(
        &self,
        host: &Config,
        notifications: Option<Notifications>,
    ) -> Result<(Client, Arc<AtomicBool>), PostgresError> {
        let warned = Arc::<AtomicBool>::default();
        let client = match &self.tls {
            Some(tls) => {
                let (client, connection) = host.connect(tls.clone()).await?;
                tokio::spawn(drive(connection, Arc::clone(&warned), notifications));
                client
            }
            None => {
                let (client, connection) = host.connect(NoTls).await?;
                tokio::spawn(drive(connection, Arc::clone(&warned), notifications));
                client
            }
        };
        Ok((client, warned))
    }

    /// Checks the server and sets the session up. Returns the server's identity.
    async fn prepare_session(&self, client: &Client) -> Result<String, PostgresError> {
        client.batch_execute(SESSION).await?;
        let state = ServerState::read(&client.query_one(SERVER, &[]).await?)?;
        let newest = self.timeline.fetch_max(state.timeline, Ordering::Relaxed);
        state.check(self.durability)?;
        if state.timeline < newest {
            return Err(PostgresError::Server(format!(
                "it is on timeline {}, but a newer primary is on {newest}",
                state.timeline
            )));
        }
        // A standby becomes another server when it is promoted.
        Ok(format!("{} {}", state.identity, state.timeline))
    }
}

impl ServerState {
    fn read(row: &Row) -> Result<Self, PostgresError> {
        let timeline: &str = row.try_get(6)?;
        Ok(Self {
            version: row.try_get(0)?,
            is_read_only: row.try_get(1)?,
            is_safe: row.try_get(2)?,
            is_utf8: row.try_get(3)?,
            has_standby: row.try_get(4)?,
            identity: row.try_get(5)?,
            timeline: u32::from_str_radix(timeline, 16).unwrap_or(0),
        })
    }

    fn check(&self, durability: Durability) -> Result<(), PostgresError> {
        let refused = |reason: &str| Err(PostgresError::Server(reason.to_owned()));
        if self.version < 130_000 {
            return refused("it is older than PostgreSQL 13");
        }
        if self.is_read_only {
            return Err(PostgresError::ReadOnly);
        }
        if !self.is_utf8 {
            return refused("its encoding is not UTF8");
        }
        if durability != Durability::Managed && !self.is_safe {
            return refused("fsync or full_page_writes is off, so a power cut could lose messages");
        }
        if durability == Durability::Replicated && !self.has_standby {
            return Err(PostgresError::no_standby());
        }
        Ok(())
    }
}

impl Connection {
    /// Whether the server has warned since the last call. During a commit, that means that the
    /// standby may not have the transaction.
    pub(crate) fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }

    /// Whether the server waits for a standby. Asked behind a commit, it tells whether the commit
    /// did.
    pub(crate) async fn has_standby(&self) -> Result<bool, PostgresError> {
        Ok(self.client.query_one(&self.statements.has_standby, &[]).await?.try_get(0)?)
    }

    /// Which of these queues another transaction has locked.
    pub(crate) async fn locked(&self, queues: &[Uuid]) -> Result<Vec<Uuid>, PostgresError> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&queues];
        // Unlike a commit, a rollback does not wait for the standby.
        let (begun, rows, ended) = tokio::join!(
            biased;
            self.client.batch_execute("BEGIN"),
            self.client.query(&self.statements.locked_queues, &parameters),
            self.client.batch_execute("ROLLBACK")
        );
        begun?;
        ended?;
        rows?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

fn check_schema(version: i32, compatible_from: i32) -> Result<(), PostgresError> {
    if version < SCHEMA {
        Err(PostgresError::Schema(format!(
            "they have schema {version}, and this program needs {SCHEMA}; run `relay-bin migrate`"
        )))
    } else if compatible_from > SCHEMA {
        Err(PostgresError::Schema(format!(
            "they have schema {version}, which programs for schema {SCHEMA} cannot use; use a newer program"
        )))
    } else {
        Ok(())
    }
}

fn schema_error(error: tokio_postgres::Error) -> PostgresError {
    use tokio_postgres::error::SqlState;
    match error.code() {
        Some(code) if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code) => {
            PostgresError::Schema("they do not exist; run `relay-bin migrate`".to_owned())
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => PostgresError::Schema(
            "this role may not read them; docs/scale-out.md lists its rights".to_owned(),
        ),
        _ => error.into(),
    }
}

/// Receives what the server sends, until the connection ends.
async fn drive<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    warned: Arc<AtomicBool>,
    notifications: Option<Notifications>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    // A warning comes before the answer that it is about, and is noted before that is passed on.
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            AsyncMessage::Notice(notice) if notice.parsed_severity() == Some(Severity::Warning) => {
                warned.store(true, Ordering::Release);
            }
            AsyncMessage::Notification(notification) => {
                if let Some(notifications) = &notifications {
                    // The receiver may have ended.
                    drop(notifications.send(notification.payload().to_owned()));
                }
            }
            _ => {}
        }
    }
}
