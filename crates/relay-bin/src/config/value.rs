//! Parses one value, from TOML or from plain text, as the type of its key. It never guesses: the
//! text "1" for an address stays text, and 1.5 or "8" is no whole number in TOML.

use std::net::IpAddr;

use ::config::{Map, Value, ValueKind};
use ipnet::IpNet;
use relay_core::excerpt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind};
use super::listen::LISTENERS_MAX;
use super::peer;

/// A parsed value, or all problems with it.
pub(super) type Parsed = Result<ValueKind, Vec<String>>;

/// The number of bits before an IPv4 address that is written as IPv6.
const MAPPED_PREFIX: u8 = 96;

/// How many bytes of a name or value a message repeats.
pub(super) const EXCERPT_BYTES_MAX: usize = 60;

/// Parses a value of a file.
pub(super) fn from_toml(key: &Key, given: &DeValue<'_>) -> Parsed {
    match (&key.kind, given) {
        (Kind::Text(_), DeValue::String(text)) => Ok(text.as_ref().into()),
        (Kind::Choice(choices, _), DeValue::String(text)) => choice(key, choices, text),
        (Kind::Flag(_), DeValue::Boolean(on)) => Ok((*on).into()),
        (Kind::Number { .. } | Kind::Rate(_), DeValue::Integer(integer)) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
            whole_number(key, number, &excerpt(integer, EXCERPT_BYTES_MAX))
        }
        (Kind::Networks(_) | Kind::Peers(_), DeValue::Array(items)) => networks(
            matches!(key.kind, Kind::Peers(_)),
            items.iter().map(Spanned::get_ref).map(|item| item.as_str().ok_or_else(|| describe(item))),
        ),
        (Kind::Texts(_), DeValue::Array(items)) => {
            let text = |item: &DeValue<'_>| {
                let text = item.as_str().map(str::to_owned);
                text.ok_or_else(|| unfit(key, &format!("{} in it", describe(item))))
            };
            let texts: Result<Vec<String>, String> = items.iter().map(|item| text(item.get_ref())).collect();
            texts.map(Into::into).map_err(|message| vec![message])
        }
        (Kind::Listeners(_), DeValue::Array(items)) => listeners(key, items.iter().map(Spanned::get_ref)),
        (Kind::Shards(_), DeValue::Array(items)) => shards(items.iter().map(Spanned::get_ref)),
        (Kind::Shards(_), other) => Err(vec![unfit(key, &without_text(other))]),
        (_, other) => Err(vec![unfit(key, &describe(other))]),
    }
}

/// Parses a value of an environment variable. Text needs no quotes, and commas separate a list. A
/// list of databases is written as in a file.
pub(super) fn from_text(key: &Key, given: &str) -> Parsed {
    match &key.kind {
        Kind::Text(_) => Ok(given.into()),
        Kind::Choice(choices, _) => choice(key, choices, given),
        Kind::Flag(_) => given.parse::<bool>().map(Into::into).map_err(|_| vec![unfit(key, &quoted(given))]),
        Kind::Number { .. } | Kind::Rate(_) => {
            whole_number(key, given.replace('_', "").parse().ok(), &quoted(given))
        }
        Kind::Texts(_) => {
            let texts = given.split(',').map(str::trim).filter(|text| !text.is_empty());
            Ok(texts.map(str::to_owned).collect::<Vec<_>>().into())
        }
        Kind::Listeners(_) => match DeValue::parse(given) {
            Ok(parsed) => from_toml(key, parsed.get_ref()),
            Err(_) => Err(vec![unfit(key, &quoted(given))]),
        },
        // The text may contain a password.
        Kind::Shards(_) => match DeValue::parse(given) {
            Ok(parsed) => from_toml(key, parsed.get_ref()),
            Err(_) => Err(vec![unfit(key, "another text")]),
        },
        Kind::Networks(_) | Kind::Peers(_) if given.trim().is_empty() => Ok(Vec::<String>::new().into()),
        Kind::Networks(_) | Kind::Peers(_) => {
            networks(matches!(key.kind, Kind::Peers(_)), given.split(',').map(|item| Ok(item.trim())))
        }
    }
}

/// The message for a value that is invalid for its key.
pub(super) fn unfit(key: &Key, found: &str) -> String {
    format!("must be {}, found {found}", key.allowed())
}

/// Describes a value in a few words.
pub(super) fn describe(given: &DeValue<'_>) -> String {
    match given {
        DeValue::String(text) => format!("the text {}", quoted(text)),
        DeValue::Integer(integer) => excerpt(integer, EXCERPT_BYTES_MAX),
        DeValue::Float(float) => format!("the fraction {}", excerpt(float, EXCERPT_BYTES_MAX)),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The beginning of a text in quotes, on one line.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", excerpt(&text, EXCERPT_BYTES_MAX))
}

fn choice(key: &Key, choices: &[&str], given: &str) -> Parsed {
    if choices.contains(&given) {
        return Ok(given.into());
    }
    if (key.name, given) == ("storage.kind", "sled") {
        return Err(vec![
            "the relay cannot read the sled store of enigma-relay 0.0.3; let the old relay run beside this one \
             until its queues are empty, and set kind = \"redb\" here"
                .to_owned(),
        ]);
    }
    Err(vec![unfit(key, &quoted(given))])
}

/// Checks the upper bound of a number. The check of the whole configuration checks the lower bound,
/// which depends on whether rate limiting is on.
fn whole_number(key: &Key, number: Option<i128>, found: &str) -> Parsed {
    number
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| key.number_max().is_some_and(|max| *number <= max))
        .map(Into::into)
        .ok_or_else(|| vec![unfit(key, found)])
}

/// Parses networks, and `unix` if that may be among them.
pub(super) fn networks<'a>(with_unix: bool, items: impl Iterator<Item = Result<&'a str, String>>) -> Parsed {
    let mut networks: Vec<Value> = Vec::new();
    let mut problems = Vec::new();
    for item in items {
        if with_unix && item == Ok(peer::UNIX) {
            networks.push(peer::UNIX.into());
            continue;
        }
        match item.and_then(|text| network(text).ok_or_else(|| quoted(text))) {
            Ok(network) => networks.push(network.to_string().into()),
            Err(found) => problems.push(format!(
                "must list networks such as \"10.0.0.0/8\" or \"2001:db8::/32\", or single addresses, found {found}"
            )),
        }
    }
    if problems.is_empty() { Ok(networks.into()) } else { Err(problems) }
}

/// Parses the tables of `listen`.
fn listeners<'a>(key: &Key, items: impl ExactSizeIterator<Item = &'a DeValue<'a>>) -> Parsed {
    if items.len() > LISTENERS_MAX {
        return Err(vec![unfit(key, &items.len().to_string())]);
    }
    let (mut listeners, mut problems) = (Vec::<Value>::new(), Vec::new());
    for (number, item) in (1_usize..).zip(items) {
        match listener(item) {
            Ok(listener) => listeners.push(Value::new(None, listener)),
            Err(message) => problems.push(format!("table {number} {message}")),
        }
    }
    if problems.is_empty() { Ok(listeners.into()) } else { Err(problems) }
}

/// Parses one table of a file.
///
/// # Errors
/// What is wrong, to follow the number of the table.
fn listener(item: &DeValue<'_>) -> Result<ValueKind, String> {
    let DeValue::Table(table) = item else {
        return Err(format!("must be a table, found {}", describe(item)));
    };
    let mut entries = Map::new();
    for (key, given) in table {
        let value = match (key.get_ref().as_ref(), given.get_ref()) {
            (key @ ("address" | "mode"), given) => text_of(key, given)?,
            ("proxy_protocol", DeValue::Array(items)) => {
                let items = items.iter().map(Spanned::get_ref);
                let parsed = networks(true, items.map(|item| item.as_str().ok_or_else(|| describe(item))));
                parsed.map_err(|problems| format!("has a proxy_protocol that {}", problems.join("; ")))?
            }
            ("proxy_protocol", other) => {
                return Err(format!("must have a list as proxy_protocol, found {}", describe(other)));
            }
            ("tls", DeValue::Table(table)) => certificate(table)?,
            ("tls", other) => return Err(format!("must have a table as tls, found {}", describe(other))),
            (unknown, _) => {
                return Err(format!(
                    "has the unknown key {}; it has: address, mode, proxy_protocol, tls",
                    quoted(unknown)
                ));
            }
        };
        entries.insert(key.get_ref().to_string(), Value::new(None, value));
    }
    if entries.contains_key("address") { Ok(entries.into()) } else { Err("has no address".to_owned()) }
}

fn certificate(table: &DeTable<'_>) -> Result<ValueKind, String> {
    const KEYS: [&str; 4] = ["cert_pem_path", "key_pem_path", "client_ca_pem_path", "client_crl_pem_path"];
    let mut entries = Map::new();
    for (key, given) in table {
        let name = key.get_ref().as_ref();
        if !KEYS.contains(&name) {
            return Err(format!("has the unknown key {} in tls; it has: {}", quoted(name), KEYS.join(", ")));
        }
        entries.insert(name.to_owned(), Value::new(None, text_of(name, given.get_ref())?));
    }
    Ok(entries.into())
}

fn text_of(key: &str, given: &DeValue<'_>) -> Result<ValueKind, String> {
    let text =
        given.as_str().ok_or_else(|| format!("must have a text as {key}, found {}", describe(given)))?;
    if key == "mode" && !["http", "tls"].contains(&text) {
        return Err(format!("must have \"http\" or \"tls\" as mode, found {}", quoted(text)));
    }
    Ok(text.into())
}

/// Parses databases: tables with two texts each. No message repeats a connection string.
fn shards<'a>(items: impl Iterator<Item = &'a DeValue<'a>>) -> Parsed {
    let (mut shards, mut problems) = (Vec::<Value>::new(), Vec::new());
    for (number, item) in (1_usize..).zip(items) {
        match shard(item) {
            Ok(shard) => shards.push(Value::new(None, shard)),
            Err(message) => problems.push(format!("shard {number} {message}")),
        }
    }
    if problems.is_empty() { Ok(shards.into()) } else { Err(problems) }
}

/// Describes a value that may be a connection string, so its text may be a secret.
fn without_text(given: &DeValue<'_>) -> String {
    if given.is_str() { "a text".to_owned() } else { describe(given) }
}

fn shard(item: &DeValue<'_>) -> Result<ValueKind, String> {
    const KEYS: [&str; 2] = ["dsn", "slots"];
    let DeValue::Table(table) = item else {
        return Err(format!("must be a table, found {}", without_text(item)));
    };
    if let Some((unknown, _)) = table.iter().find(|(key, _)| !KEYS.contains(&key.get_ref().as_ref())) {
        return Err(format!("has the unknown key {}; it has: dsn, slots", quoted(unknown.get_ref())));
    }
    let text = |key: &str| match table.get(key).map(Spanned::get_ref) {
        Some(DeValue::String(text)) => Ok((key.to_owned(), Value::new(None, text.as_ref()))),
        Some(_) => Err(format!("must have a text as {key}")),
        None => Err(format!("has no {key}")),
    };
    let entries = KEYS.map(text).into_iter().collect::<Result<Map<_, _>, _>>()?;
    Ok(entries.into())
}

/// Parses a network, or a single address as a network of its own. An IPv4 network that is written
/// as IPv6 becomes IPv4, like the addresses that the relay compares with it.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let prefix = network.prefix_len().checked_sub(MAPPED_PREFIX).filter(|_| is_mapped(&network));
    prefix.map_or(Some(network), |prefix| IpNet::new(network.addr().to_canonical(), prefix).ok())
}

/// Whether this is an IPv4 network that is written as IPv6, such as `::ffff:10.0.0.0/104`.
pub(super) fn is_mapped(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some())
}
