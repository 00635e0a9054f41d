//! Configuration mistakes, as lines for a person who was woken up. Never stops at the first one.

use std::fmt;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's full name, such as `relay.max_message_bytes`; none when a whole file is at fault.
    pub key: Option<String>,
    /// What is wrong and what is allowed.
    pub message: String,
    /// Where it stands: a file and line, an environment variable, a flag. None when nobody gave a
    /// value, or when the configuration was built by hand.
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

    /// The mistakes: the file's first, then the environment's, the command line's, and what does
    /// not fit together.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.origin) {
            (Some(key), Some(origin)) => write!(f, "{key}: {} ({origin})", self.message),
            (Some(place), None) | (None, Some(place)) => write!(f, "{place}: {}", self.message),
            (None, None) => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
