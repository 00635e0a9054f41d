//! What becomes of a configuration that is read again while the relay runs: which keys change, and
//! which wait for a restart. The table of all keys says which is which.

use std::fmt;

use super::check::{self, Build};
use super::error::{ConfigErrors, Problem};
use super::keys::{self, Key};
use super::print;
use super::{AuthConfig, RateLimitConfig, RelayConfig, ServerConfig};

/// The keys of a new configuration whose values differ from those in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These are in force now.
    pub live: Vec<&'static str>,
    /// These need a restart, until which the relay runs with their former values.
    pub need_restart: Vec<&'static str>,
}

impl RelayConfig {
    /// The configuration that is in force after this one was in force and `new`, which is valid,
    /// was read.
    ///
    /// # Errors
    /// If the keys that change do not fit to those that need a restart first.
    pub(crate) fn reloaded(&self, new: Self) -> Result<(Self, Changes), ConfigErrors> {
        let (live, need_restart): (Vec<&Key>, Vec<&Key>) =
            keys::KEYS.iter().filter(|key| differs(key, self, &new)).partition(|key| key.is_live);
        let names = |keys: Vec<&Key>| keys.iter().map(|key| key.name).collect::<Vec<_>>();
        let changes = Changes { live: names(live), need_restart: names(need_restart) };
        let in_force = self.with_live_keys_of(new);
        let problems = check::examine(&in_force, Build::THIS).problems;
        match ConfigErrors::from_problems(problems.into_iter().map(|p| until_restart(p, &changes)).collect())
        {
            None => Ok((in_force, changes)),
            Some(errors) => Err(errors),
        }
    }

    /// These tables and fields are the keys that a reload changes.
    fn with_live_keys_of(&self, new: Self) -> Self {
        let running = self.clone();
        Self {
            server: ServerConfig {
                start_wait_seconds: running.server.start_wait_seconds,
                max_inflight_bytes: running.server.max_inflight_bytes,
                ..new.server
            },
            auth: AuthConfig {
                locks: running.auth.locks,
                issuer: running.auth.issuer,
                issuer_jwks_path: running.auth.issuer_jwks_path,
                ..new.auth
            },
            rate_limit: RateLimitConfig {
                ipv6_prefix: running.rate_limit.ipv6_prefix,
                max_tracked_addresses: running.rate_limit.max_tracked_addresses,
                ..new.rate_limit
            },
            relay: new.relay,
            cors: new.cors,
            ..running
        }
    }
}

impl fmt::Display for Changes {
    /// One line for each kind of change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.live.as_slice() {
            [] => f.write_str("nothing that a reload can change is different")?,
            live => write!(f, "changed: {}", live.join(", "))?,
        }
        match self.need_restart.as_slice() {
            [] => Ok(()),
            keys => write!(f, "\nneeds a restart: {}", keys.join(", ")),
        }
    }
}

/// Whether two configurations have different values of a key, also if these are printed alike.
fn differs(key: &Key, a: &RelayConfig, b: &RelayConfig) -> bool {
    let [of_a, of_b] = [&a.storage.postgres, &b.storage.postgres];
    match key.name {
        "storage.postgres.dsn" => of_a.dsn != of_b.dsn,
        "storage.postgres.shards" => of_a.shards != of_b.shards,
        _ => print::value(key, a) != print::value(key, b),
    }
}

/// The new configuration is valid as a whole, so it is a former value that does not fit.
fn until_restart(problem: Problem, changes: &Changes) -> Problem {
    let keys = changes.need_restart.join(", ");
    Problem { message: format!("{} (needs a restart first: {keys})", problem.message), ..problem }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::keys::Kind;
    use crate::config::{PlainNames, PostgresShard, TlsConfig};

    /// A configuration in which this key alone has another value than by default.
    fn with_other(key: &Key) -> RelayConfig {
        let value = match key.kind {
            Kind::Text(_) => "\"localhost:1\"".to_owned(),
            Kind::Choice(choices, read) => {
                let now = read(&RelayConfig::default());
                format!("{:?}", choices.iter().find(|choice| **choice != now).unwrap())
            }
            Kind::Flag(read) => (!read(&RelayConfig::default())).to_string(),
            Kind::Number { max, read, .. } => {
                // Half of it, so that it is a number of TOML and valid.
                let now = read(&RelayConfig::default());
                (if now == max / 2 { max / 2 + 1 } else { max / 2 }).to_string()
            }
            Kind::Rate(_) => "12345".to_owned(),
            Kind::Networks(_) | Kind::Peers(_) => "[\"192.0.2.0/24\"]".to_owned(),
            Kind::Listeners(_) => "[{ address = \"localhost:2\" }]".to_owned(),
            Kind::Texts(_) => "[\"https://a.example\"]".to_owned(),
            Kind::Shards(_) => "[{ dsn = \"host=a\", slots = \"0-255\" }]".to_owned(),
        };
        let text = format!("{} = {value}\n", key.name);
        crate::config::source::unchecked(&text).unwrap()
    }

    /// Every key either changes at a reload or is named: none is forgotten.
    #[test]
    fn each_key_changes_at_a_reload_or_needs_a_restart_as_its_row_says() {
        let running = RelayConfig::default();
        for key in keys::KEYS {
            let new = with_other(key);
            assert!(differs(key, &running, &new), "{}", key.name);
            let in_force = running.with_live_keys_of(new);
            assert_eq!(differs(key, &running, &in_force), key.is_live, "{}", key.name);
        }
    }

    /// What a live key means to the parts of the relay that a reload changes.
    #[test]
    fn each_live_key_reaches_a_part_of_the_relay() {
        let seen = |config: &RelayConfig| {
            let ready = relay_http::Readiness::new(|| Ok(()));
            let key = relay_http::CursorKey::random().unwrap();
            let options = crate::wiring::http_options(config, key, ready, None);
            let debug = |part: &dyn fmt::Debug| format!("{part:?}");
            let relay_http::Options { limits, rate_limit, allowed_origins, auth, .. } = &options;
            let hosts = (&options.allowed_hosts, &options.loopback_hosts);
            let numbers =
                (options.batch_bytes_max, options.connections_max, options.connections_per_address_max);
            let times = (options.connection_age_max, options.request_timeout, options.keep_alive);
            [
                debug(&(limits, rate_limit, hosts, allowed_origins, auth, numbers, times)),
                debug(&(options.pull_wait_max, options.drain, options.public_stats)),
                debug(&config.relay.gc_interval_seconds),
            ]
        };
        for key in keys::KEYS.iter().filter(|key| key.is_live) {
            assert_ne!(seen(&RelayConfig::default()), seen(&with_other(key)), "{}", key.name);
        }
    }

    #[test]
    fn the_documents_say_which_keys_need_a_restart() {
        let documents = include_str!("../../../../docs/operations.md");
        let rows: Vec<&str> = documents
            .lines()
            .filter(|line| {
                line.starts_with("| changed by a reload |") || line.starts_with("| needs a restart |")
            })
            .collect();
        assert_eq!(rows.len(), 2);
        for key in keys::KEYS {
            let name = format!("`{}`", key.name);
            let table = format!("`{}.*`", key.name.split('.').next().unwrap());
            let has = |row: &str| row.contains(&name) || row.contains(&table);
            assert_eq!((has(rows[0]), has(rows[1])), (key.is_live, !key.is_live), "{name}");
        }
    }

    #[test]
    fn only_keys_that_differ_are_named() {
        let running = RelayConfig::default();
        let (in_force, changes) = running.reloaded(running.clone()).unwrap();
        assert_eq!((in_force, changes), (running.clone(), Changes::default()));
        let mut new = running.clone();
        new.relay.max_message_bytes = 5;
        new.storage.path = "elsewhere".into();
        new.storage.postgres.dsn = "password=a".to_owned();
        let (in_force, changes) = running.reloaded(new.clone()).unwrap();
        assert_eq!(in_force.relay.max_message_bytes, 5);
        assert_eq!(in_force.storage, running.storage);
        assert_eq!(
            changes.to_string(),
            "changed: relay.max_message_bytes\nneeds a restart: storage.path, storage.postgres.dsn"
        );
        // A password is compared, and not printed.
        let shard =
            |password: &str| PostgresShard { dsn: format!("password={password}"), slots: "0-255".to_owned() };
        let [a, b] = ["a", "b"].map(|password| {
            let mut config = running.clone();
            config.storage.postgres.shards = vec![shard(password)];
            config
        });
        let (_, changes) = a.reloaded(b).unwrap();
        assert_eq!(changes.need_restart, ["storage.postgres.shards"]);
        // What waits for a restart is named again and again.
        let (_, changes) = in_force.reloaded(new).unwrap();
        assert_eq!((changes.live.len(), changes.need_restart.len()), (0, 2));
    }

    #[test]
    fn keys_that_need_another_one_first_are_refused() {
        let running = RelayConfig::default();
        let mut new = running.clone();
        new.auth.plain_names = PlainNames::Token;
        new.tls = Some(TlsConfig {
            cert_pem_path: "c".into(),
            key_pem_path: "k".into(),
            client_ca_pem_path: Some("ca".into()),
            client_crl_pem_path: None,
        });
        let errors = running.reloaded(new).unwrap_err().to_string();
        assert!(errors.starts_with("auth.plain_names: \"token\" needs"), "{errors}");
        assert!(
            errors.ends_with(
                "(needs a restart first: tls.cert_pem_path, tls.key_pem_path, tls.client_ca_pem_path)"
            ),
            "{errors}"
        );
    }
}
