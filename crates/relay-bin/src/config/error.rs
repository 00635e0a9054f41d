//! Mistakes in a configuration, with messages for operators.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's full name, such as `relay.max_message_bytes`; `None` for a problem of a whole
    /// file.
    pub key: Option<String>,
    /// What is wrong and what is allowed.
    pub message: String,
    /// The location of the value: a file and line, an environment variable, or an option. `None` if
    /// the value is missing, or the configuration was built by hand.
    pub origin: Option<String>,
}

/// All mistakes of a configuration, at least one. Displays as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn from_problems(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// The mistakes of the file, then of the environment, of the command line, and of the resulting
    /// configuration.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            (Some(key), Some(origin)) => write!(f, "{key}: {} ({origin})", self.message),
            (Some(subject), None) | (None, Some(subject)) => write!(f, "{subject}: {}", self.message),
            (None, None) => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
