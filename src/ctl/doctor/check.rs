//! What a check is.

use super::finding::{Finding, Impact, Looked};
use super::scene::Scene;

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
