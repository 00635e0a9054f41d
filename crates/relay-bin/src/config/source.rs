//! The layers of a configuration: shipped file, the operator's file, environment, command line.
//! This file parses each layer key by key, with the origin of each value. The `config` crate merges
//! them.
//!
//! Only parsed values of known keys enter a layer, so the merge cannot interpret input differently.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::config::{Config, ConfigError, Map, Source, Value};
use relay_core::excerpt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Build};
use super::error::{ConfigErrors, Problem};
use super::keys::{self, Key};
use super::value::{self, Parsed};
use super::{Loaded, Overrides, RelayConfig, SHIPPED};

/// The largest configuration file. The shipped one is much smaller.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// How many bytes of a TOML syntax error a message repeats.
const SYNTAX_BYTES_MAX: usize = 200;

/// How many bytes of an unknown variable's name a message repeats.
const NAME_BYTES_MAX: usize = 200;

/// One parsed source.
#[derive(Debug, Default)]
pub(super) struct Layer {
    values: Values,
    /// The location of each value.
    origins: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
}

#[derive(Clone, Debug, Default)]
struct Values(Map<String, Value>);

/// A TOML text.
struct Text<'a> {
    text: &'a str,
    /// The file's name; empty for a text that is not from a file.
    name: &'a str,
}

impl Layer {
    /// The file that is part of the build.
    pub(super) fn shipped() -> Self {
        let mut layer = Self::toml(SHIPPED, "the built-in defaults").unwrap_or_default();
        // Operators cannot change the built-in file, so no message points to it.
        layer.origins.clear();
        layer
    }

    pub(super) fn with_addresses(mut self, public: &str, admin: &str) -> Self {
        self.values.0.insert("address".to_owned(), public.into());
        self.values.0.insert("admin.address".to_owned(), admin.into());
        self
    }

    /// The operator's file. Fails if it cannot be read or is not TOML.
    pub(super) fn file(path: &Path) -> Result<Self, Problem> {
        let name = path.display().to_string();
        let text = read_file(path).map_err(|message| problem(None, message, name.clone()))?;
        Self::toml(&text, &name)
    }

    /// A TOML text; `name` is its file, or empty. Fails if it is not TOML.
    pub(super) fn toml(text: &str, name: &str) -> Result<Self, Problem> {
        let text = Text { text, name };
        let table = DeTable::parse(text.text).map_err(|error| text.syntax_problem(&error))?;
        let mut layer = Self::default();
        layer.add_table(&text, table.get_ref(), "");
        Ok(layer)
    }

    /// The variables whose names start with `RELAY__`.
    pub(super) fn environment(variables: &[(String, String)]) -> Self {
        let mut layer = Self::default();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix("RELAY__") else { continue };
            let origin = format!("environment variable {}", plain(name));
            match keys::KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => layer.add(key, value::from_text(key, text), origin),
                None => layer.problems.push(unknown_variable(rest, origin)),
            }
        }
        layer
    }

    pub(super) fn overrides(overrides: Overrides) -> Self {
        let path = overrides
            .storage_path
            .map(|path| path.into_os_string().into_string().map_err(|_| vec![check::NOT_UTF8.to_owned()]));
        let given =
            [("address", "--address", overrides.address.map(Ok)), ("storage.path", "--storage-path", path)];
        let mut layer = Self::default();
        for (name, flag, text) in given {
            if let (Some(key), Some(text)) = (keys::find(name), text) {
                layer.add(key, text.map(Into::into), format!("command line {flag}"));
            }
        }
        layer
    }

    /// Adds a value with its origin, or its problems.
    fn add(&mut self, key: &'static Key, parsed: Parsed, origin: String) {
        match parsed {
            Ok(value) => {
                self.values.0.insert(key.name.to_owned(), Value::new(None, value));
                self.origins.insert(key.name, origin);
            }
            Err(messages) => {
                let name = Some(key.name.to_owned());
                self.problems.extend(messages.into_iter().map(|m| problem(name.clone(), m, origin.clone())));
            }
        }
    }

    /// Adds all keys of a table and of the known tables in it, in the order of the text.
    fn add_table(&mut self, text: &Text<'_>, table: &DeTable<'_>, prefix: &str) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (leaf, given) in entries {
            let origin = text.origin(leaf.span().start);
            let name = join(prefix, leaf.get_ref());
            match (keys::find(&name), given.get_ref()) {
                (Some(key), given) => self.add(key, value::from_toml(key, given), origin),
                (None, DeValue::Table(inner)) if keys::is_table(&name) => self.add_table(text, inner, &name),
                (None, _) => self.problems.push(unknown_name(name, given, origin)),
            }
        }
    }
}

impl Source for Values {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Text<'_> {
    fn origin(&self, offset: usize) -> String {
        let line = self.text_until(offset).matches('\n').count() + 1;
        format!("{} line {line}", self.name).trim_start().to_owned()
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let reason = excerpt(&error.message(), SYNTAX_BYTES_MAX).replace('\n', " ");
        let message = format!("not TOML: {reason}");
        let Some(span) = error.span() else { return problem(None, message, self.name.to_owned()) };
        let text = self.text_until(span.start);
        let column = text.rsplit('\n').next().unwrap_or(text).chars().count() + 1;
        problem(None, message, format!("{}, column {column}", self.origin(span.start)))
    }

    fn text_until(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }
}

/// Merges the layers; later ones override earlier ones.
pub(super) fn merge(layers: &[Layer]) -> Result<RelayConfig, ConfigError> {
    let builder = layers.iter().fold(Config::builder(), |b, layer| b.add_source(layer.values.clone()));
    builder.build()?.try_deserialize()
}

/// A text over the defaults of an embedded relay, whose values are parsed but not checked together.
#[cfg(test)]
pub(super) fn unchecked(text: &str) -> Result<RelayConfig, Problem> {
    let defaults = Layer::shipped().with_addresses(super::LIBRARY_ADDRESS, super::LIBRARY_ADMIN_ADDRESS);
    let layer = Layer::toml(text, "")?;
    assert_eq!(layer.problems, [], "{text}");
    Ok(merge(&[defaults, layer]).expect("the values are of known keys"))
}

/// Merges all sources and checks the result.
pub(super) fn resolve(
    defaults: Layer,
    file: Result<Option<Layer>, Problem>,
    overrides: Vec<Layer>,
) -> Result<Loaded, ConfigErrors> {
    // An unreadable file may set any key, so the result cannot be checked without it.
    let complete = file.is_ok();
    let (file, mut problems) = match file {
        Ok(layer) => (layer, Vec::new()),
        Err(problem) => (None, vec![problem]),
    };
    let mut layers: Vec<Layer> = [defaults].into_iter().chain(file).chain(overrides).collect();
    problems.extend(layers.iter_mut().flat_map(|layer| std::mem::take(&mut layer.problems)));

    let config = match merge(&layers) {
        Ok(config) => config,
        Err(error) => {
            problems.push(Problem { key: None, message: error.to_string(), origin: None });
            RelayConfig::default()
        }
    };
    let findings = check::examine(&config, Build::THIS);
    if complete {
        let mut found = findings.problems;
        found.retain(|found| problems.iter().all(|known| known.key != found.key));
        problems.extend(found.into_iter().map(|problem| with_origin(problem, &layers)));
    }
    ConfigErrors::from_problems(problems).map_or(Ok(Loaded { config, warnings: findings.warnings }), Err)
}

/// Adds the origin of the value, from the last layer that has it.
fn with_origin(mut problem: Problem, layers: &[Layer]) -> Problem {
    let key = problem.key.as_deref().unwrap_or_default();
    problem.origin = layers.iter().rev().find_map(|layer| layer.origins.get(key).cloned());
    problem
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("the configuration file cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the configuration file is over {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "the configuration file is not UTF-8 text".to_owned())
}

fn unknown_name(name: String, given: &Spanned<DeValue<'_>>, origin: String) -> Problem {
    let given = given.get_ref();
    let message = if keys::is_table(&name) {
        format!("is a table, [{name}], found {}", value::describe(given))
    } else if given.is_table() {
        let hint = keys::nearest_table(&name).map(|near| format!("did you mean [{near}]?"));
        format!("unknown table; {}", hint.unwrap_or_else(|| known(&name)))
    } else {
        let hint = keys::nearest_key(&name).map(|near| format!("did you mean {near}?"));
        format!("unknown key; {}", hint.unwrap_or_else(|| known(&name)))
    };
    problem(Some(name), message, origin)
}

fn unknown_variable(rest: &str, origin: String) -> Problem {
    let name = rest.replace("__", ".").to_lowercase();
    let message = if keys::is_table(&name) {
        format!("is a table, [{name}]; set one of its keys instead: {}", keys::members(&name))
    } else {
        let hint = keys::nearest_key(&name).map(|near| format!("did you mean {}?", keys::variable(near)));
        format!("unknown key; {}", hint.unwrap_or_else(|| known(&name)))
    };
    let spelled = name.split('.').map(plain).collect::<Vec<_>>().join(".");
    problem(Some(excerpt(&spelled, NAME_BYTES_MAX)), message, origin)
}

fn known(name: &str) -> String {
    match keys::split(name).0 {
        table if keys::is_table(table) => format!("[{table}] has: {}", keys::members(table)),
        _ => format!("known at the top level: {}", keys::members("")),
    }
}

/// Builds a full name. A leaf that TOML has to quote is quoted, so a dot in it does not look like a
/// table.
fn join(prefix: &str, leaf: &str) -> String {
    let leaf = plain(leaf);
    if prefix.is_empty() { leaf } else { format!("{prefix}.{leaf}") }
}

/// The beginning of a word, in quotes unless it is a bare word of TOML.
fn plain(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_bare = !word.is_empty() && word.chars().all(bare);
    if is_bare { excerpt(&word, value::EXCERPT_BYTES_MAX) } else { value::quoted(word) }
}

fn problem(key: Option<String>, message: String, origin: String) -> Problem {
    Problem { key, message, origin: Some(origin).filter(|origin| !origin.is_empty()) }
}
