//! The hosts of a connection string, one by one.

use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::error::PostgresError;
use crate::options::{Options, Tls};

/// The parser's own words would repeat parts of a password that lacks its quotes.
const NOT_A_DSN: &str = "an option is unknown or has a wrong value, or a value needs quotes";

/// How long a server may take to accept a connection, for each of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long sent data may stay without a sign of the other machine.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A configuration for each host. What the relay decides itself, such as timeouts and TLS, is not
/// taken from the connection string.
pub(crate) fn of(dsn: &str, options: &Options) -> Result<Vec<Config>, PostgresError> {
    let all = Config::from_str(dsn).map_err(|_| PostgresError::Dsn(NOT_A_DSN.to_owned()))?;
    let count = all.get_hosts().len().max(all.get_hostaddrs().len());
    if count == 0 {
        return Err(PostgresError::Dsn("it names no host".to_owned()));
    }
    let (ports, hosts, addresses) = (all.get_ports(), all.get_hosts(), all.get_hostaddrs());
    let fits = |length: usize| length <= 1 || length == count;
    if !fits(ports.len()) || ![0, count].contains(&addresses.len()) || ![0, count].contains(&hosts.len()) {
        return Err(PostgresError::Dsn(
            "it has another number of ports or addresses than of hosts".to_owned(),
        ));
    }
    Ok((0..count).map(|index| one(&all, index, options)).collect())
}

fn one(all: &Config, index: usize, options: &Options) -> Config {
    let mut config = Config::new();
    match all.get_hosts().get(index) {
        Some(Host::Tcp(name)) => _ = config.host(name),
        #[cfg(unix)]
        Some(Host::Unix(path)) => _ = config.host_path(path),
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(index) {
        config.hostaddr(*address);
    }
    if let Some(port) = all.get_ports().get(index).or(all.get_ports().first()) {
        config.port(*port);
    }
    if let Some(user) = all.get_user() {
        config.user(user);
    }
    if let Some(name) = all.get_dbname() {
        config.dbname(name);
    }
    if let Some(given) = all.get_options() {
        config.options(given);
    }
    let password = options.password.as_ref().map(|password| password.0.as_slice());
    if let Some(password) = password.or(all.get_password()) {
        config.password(password);
    }
    config
        .application_name("relay")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives_idle(SILENCE_MAX)
        .ssl_mode(match options.tls {
            Tls::VerifyFull => SslMode::Require,
            Tls::Off => SslMode::Disable,
        });
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(dsn: &str) -> Result<Vec<Config>, PostgresError> {
        of(dsn, &Options { tls: Tls::Off, ..Options::default() })
    }

    #[test]
    fn each_host_has_its_port_and_all_have_the_rest() {
        let found = hosts("host=a,b port=1,2 user=u password=p dbname=d").expect("it is valid");
        let seen = found.iter().map(|host| (host.get_hosts(), host.get_ports(), host.get_user()));
        let (a, b) = ([Host::Tcp("a".to_owned())], [Host::Tcp("b".to_owned())]);
        assert_eq!(seen.collect::<Vec<_>>(), [(&a[..], &[1][..], Some("u")), (&b[..], &[2][..], Some("u"))]);
        assert!(found.iter().all(|host| host.get_password() == Some(b"p") && host.get_dbname() == Some("d")));
        let found = hosts("postgres://u@a,b:7/d").expect("it is valid");
        assert_eq!(found.len(), 2);
        assert!(hosts("user=u").is_err());
    }
}
