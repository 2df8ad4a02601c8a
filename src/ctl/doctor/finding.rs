//! What one look of a check gives, and what suffers if it fails.

use serde::Serialize;

/// What suffers if a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Impact {
    Boot,
    Serving,
    Confidentiality,
    Evidence,
}

impl Impact {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Boot => "opens at boot",
            Self::Serving => "serves now",
            Self::Confidentiality => "confidentiality",
            Self::Evidence => "evidence",
        }
    }
}

impl Serialize for Impact {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Pass,
    Warn,
    Fail,
    /// Nothing is known, or there is nothing to look at.
    Skip,
}

/// What one look has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// One line.
    pub(super) why: String,
    /// One line: what the operator does.
    pub(super) todo: Option<String>,
}

impl Finding {
    pub(super) fn pass(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Pass, why: why.into(), todo: None }
    }

    pub(super) fn skip(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skip, why: why.into(), todo: None }
    }

    pub(super) fn warn(why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, why: why.into(), todo: Some(todo.into()) }
    }

    pub(super) fn fail(why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, why: why.into(), todo: Some(todo.into()) }
    }
}

/// The finding, or the one that ends the look early: by `?` in what a check needs first.
pub(super) type Looked = Result<Finding, Finding>;
