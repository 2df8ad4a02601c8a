//! What a check is, and the table of all. A number is never given twice: what is removed leaves a gap.

use serde::Serialize;

use super::scene::Scene;
use super::{general, node, platform};

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

pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) impact: Impact,
    /// Below `docs/`.
    pub(super) page: &'static str,
    pub(super) look: fn(&Scene) -> Looked,
}

impl Check {
    pub(super) fn run(&self, scene: &Scene) -> Finding {
        (self.look)(scene).unwrap_or_else(|early| early)
    }
}

/// In the order in which they run and are shown. Those that ask the device are the last: for them root may become another user.
pub(super) fn all() -> Vec<&'static Check> {
    let groups: &[&'static [Check]] = &[
        general::CHECKS,
        platform::CHECKS,
        node::CHECKS,
        #[cfg(feature = "etcd")]
        super::kubernetes::CHECKS,
        platform::DEVICE_CHECKS,
    ];
    groups.iter().copied().flatten().collect()
}
