//! What every error for the operator has besides its text.

use std::error::Error;

use super::Class;

/// An error that says what kind it is and what to do next. A new enum of errors implements this, and every place that shows errors
/// (the programs' voice, the control protocol, `--json`) takes it as it is.
pub trait Explained: Error {
    /// Decides gRPC code, exit code, retry and health.
    fn class(&self) -> Class;

    /// What the operator does next: a fixed text or one that holds nothing secret, without a final period.
    fn hint(&self) -> &str;
}

/// Gives an error that has one cause its explanation, where it is met.
#[derive(Clone, Copy, Debug)]
pub struct Explain<'a> {
    error: &'a (dyn Error + 'a),
    class: Class,
    hint: &'a str,
}

impl<'a> Explain<'a> {
    /// This error here.
    pub const fn new(error: &'a (dyn Error + 'a), class: Class, hint: &'a str) -> Self {
        Self { error, class, hint }
    }
}

impl std::fmt::Display for Explain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self.error, f)
    }
}

impl Error for Explain<'_> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Explained for Explain<'_> {
    fn class(&self) -> Class {
        self.class
    }

    fn hint(&self) -> &str {
        self.hint
    }
}
