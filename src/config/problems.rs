//! What is wrong with a file, or worth a warning: where, and what to write instead. A leaf of this folder.

use std::fmt;

/// A mistake or a warning: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Path of the key, such as `seal.tpm2.pcrs`.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
    /// Where the key stands in the file, from 1, if it does.
    pub line: Option<usize>,
}

impl Problem {
    /// Without a line.
    pub fn new(key: &str, text: impl Into<String>) -> Self {
        Self { key: key.to_owned(), text: text.into(), line: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}: {} (line {line})", self.key, self.text),
            None => write!(f, "{}: {}", self.key, self.text),
        }
    }
}

/// There is no value: what is wrong with it is among the problems.
pub(super) struct Noted;

/// A value, or a mistake that is among the problems.
pub(super) type Checked<T> = Result<T, Noted>;

/// Collects problems; every check continues after one.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// The value may be used all the same, or there is none that could be.
    pub(super) fn add(&mut self, key: &str, text: impl Into<String>) {
        self.0.push(Problem::new(key, text));
    }

    /// There is no value.
    pub(super) fn refuse<T>(&mut self, key: &str, text: impl Into<String>) -> Checked<T> {
        self.add(key, text);
        Err(Noted)
    }

    /// What a parser says, in its own words.
    pub(super) fn keep<T, E: fmt::Display>(&mut self, key: &str, result: Result<T, E>) -> Checked<T> {
        result.or_else(|error| self.refuse(key, error.to_string()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_list(self) -> Vec<Problem> {
        self.0
    }
}
