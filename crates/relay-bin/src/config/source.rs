//! The layers of a configuration: shipped file, the operator's file, environment, command line.
//! Each is parsed key by key with the place of every value kept, then the `config` crate lays them
//! over each other.
//!
//! Reads no environment of its own. Only values of known keys that parsed get into a layer, so
//! nothing that an operator wrote can take a meaning in the merge that it did not have here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::config::{Config, ConfigError, Map, Source, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Build};
use super::error::{ConfigErrors, Problem};
use super::keys::{self, Key};
use super::value::{self, Parsed};
use super::{Loaded, Overrides, RelayConfig, SHIPPED};

/// Bytes of a configuration file; the shipped one, comments and all, is a small part of it.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What is told of a mistake in TOML.
const SYNTAX_BYTES_MAX: usize = 200;

/// The name of a variable that no key has, as it is told; each part of it is cut besides.
const NAME_BYTES_MAX: usize = 200;

/// One source, parsed.
#[derive(Debug, Default)]
pub(super) struct Layer {
    values: Values,
    /// Where each value stands.
    origins: BTreeMap<&'static str, String>,
    problems: Vec<Problem>,
}

#[derive(Clone, Debug, Default)]
struct Values(Map<String, Value>);

/// A TOML text while it is walked.
struct Text<'a> {
    text: &'a str,
    /// The file's name; empty for a text that has none.
    name: &'a str,
}

impl Layer {
    /// The file that is part of the build.
    pub(super) fn shipped() -> Self {
        let mut layer = Self::toml(SHIPPED, "the built-in defaults").unwrap_or_default();
        // A default is nobody's mistake, so it has no place to point at.
        layer.origins.clear();
        layer
    }

    pub(super) fn with_addresses(mut self, public: &str, admin: &str) -> Self {
        self.values.0.insert("address".to_owned(), public.into());
        self.values.0.insert("admin.address".to_owned(), admin.into());
        self
    }

    /// The operator's file. Fails when it cannot be read or is not TOML, so that nothing is known
    /// of its keys.
    pub(super) fn file(path: &Path) -> Result<Self, Problem> {
        let name = path.display().to_string();
        let text = read_file(path).map_err(|message| problem(None, message, name.clone()))?;
        Self::toml(&text, &name)
    }

    /// A TOML text; `name` is its file, or empty. Fails when it is not TOML.
    pub(super) fn toml(text: &str, name: &str) -> Result<Self, Problem> {
        let text = Text { text, name };
        let table = DeTable::parse(text.text).map_err(|error| text.syntax_problem(&error))?;
        let mut layer = Self::default();
        layer.walk(&text, table.get_ref(), "");
        Ok(layer)
    }

    /// The variables whose names start with `RELAY__`.
    pub(super) fn environment(variables: &[(String, String)]) -> Self {
        let mut layer = Self::default();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix("RELAY__") else { continue };
            let origin = format!("environment variable {}", plain(name));
            match keys::KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => layer.take(key, value::from_text(key, text), origin),
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
                layer.take(key, text.map(Into::into), format!("command line {flag}"));
            }
        }
        layer
    }

    /// Keeps a value that parsed, with its place; or what is wrong with it.
    fn take(&mut self, key: &'static Key, parsed: Parsed, origin: String) {
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

    /// Takes every key of a table and of the known tables in it, in the order of the text.
    fn walk(&mut self, text: &Text<'_>, table: &DeTable<'_>, prefix: &str) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (leaf, given) in entries {
            let origin = text.origin(leaf.span().start);
            let name = join(prefix, leaf.get_ref());
            match (keys::find(&name), given.get_ref()) {
                (Some(key), given) => self.take(key, value::from_toml(key, given), origin),
                (None, DeValue::Table(inner)) if keys::is_table(&name) => self.walk(text, inner, &name),
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
        format!("{} {}", self.name, self.line(offset)).trim_start().to_owned()
    }

    fn line(&self, offset: usize) -> String {
        format!("line {}", self.before(offset).matches('\n').count() + 1)
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let what = relay_core::excerpt(&error.message(), SYNTAX_BYTES_MAX).replace('\n', " ");
        let message = format!("not TOML: {what}");
        let Some(span) = error.span() else { return problem(None, message, self.name.to_owned()) };
        let before = self.before(span.start);
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        problem(None, message, format!("{}, column {column}", self.origin(span.start)))
    }

    fn before(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }
}

/// Lays the layers over each other, the later ones on top.
pub(super) fn merge(layers: &[Layer]) -> Result<RelayConfig, ConfigError> {
    let builder = layers.iter().fold(Config::builder(), |b, layer| b.add_source(layer.values.clone()));
    builder.build()?.try_deserialize()
}

/// Merges all sources and checks what is then in force.
pub(super) fn resolve(
    base: Layer,
    file: Result<Option<Layer>, Problem>,
    above: Vec<Layer>,
) -> Result<Loaded, ConfigErrors> {
    // What fits together cannot be told while a file's keys are unknown: half of it may stand
    // there.
    let complete = file.is_ok();
    let (file, mut problems) = match file {
        Ok(layer) => (layer, Vec::new()),
        Err(problem) => (None, vec![problem]),
    };
    let mut layers: Vec<Layer> = [base].into_iter().chain(file).chain(above).collect();
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
        let mut fresh = findings.problems;
        fresh.retain(|found| problems.iter().all(|known| known.key != found.key));
        problems.extend(fresh.into_iter().map(|found| with_origin(found, &layers)));
    }
    ConfigErrors::from_problems(problems).map_or(Ok(Loaded { config, warnings: findings.warnings }), Err)
}

/// Adds where the value in force stands: in the topmost layer that has it.
fn with_origin(mut found: Problem, layers: &[Layer]) -> Problem {
    let key = found.key.as_deref().unwrap_or_default();
    found.origin = layers.iter().rev().find_map(|layer| layer.origins.get(key).cloned());
    found
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
        format!("is a table, [{name}], and cannot be set as a whole; it holds: {}", keys::members(&name))
    } else {
        let hint = keys::nearest_key(&name).map(|near| format!("did you mean {}?", keys::variable(near)));
        format!("unknown key; {}", hint.unwrap_or_else(|| known(&name)))
    };
    let spelled = name.split('.').map(plain).collect::<Vec<_>>().join(".");
    problem(Some(relay_core::excerpt(&spelled, NAME_BYTES_MAX)), message, origin)
}

fn known(name: &str) -> String {
    match keys::split(name).0 {
        table if keys::is_table(table) => format!("[{table}] holds: {}", keys::members(table)),
        _ => format!("the file holds: {}", keys::members("")),
    }
}

/// A full name. A leaf that TOML would have to quote is quoted, so that a dot in it is no step into
/// a table.
fn join(prefix: &str, leaf: &str) -> String {
    let leaf = plain(leaf);
    if prefix.is_empty() { leaf } else { format!("{prefix}.{leaf}") }
}

/// A bare word as it is; anything else in quotes, on one line. Of a long one only the begin.
fn plain(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !word.is_empty() && word.chars().all(bare) { value::excerpt(word) } else { value::quoted(word) }
}

fn problem(key: Option<String>, message: String, origin: String) -> Problem {
    Problem { key, message, origin: Some(origin).filter(|origin| !origin.is_empty()) }
}
