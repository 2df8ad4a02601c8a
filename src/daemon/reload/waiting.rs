//! What a new file says and no reload puts in force.

use std::path::Path;

use crate::config::Config;
use crate::keyring::keeper::Overview;
use crate::types::{Backend, SealTo};

/// Keys whose new value is that of the node root's next seal.
pub(super) fn needs_reseal(sealed: &Overview, to: SealTo, guard: Option<u32>) -> Vec<&'static str> {
    let is_other_device = sealed.backend.is_some_and(|backend| backend != to.backend());
    // The counter is the TPM's.
    let is_guarded = guard.is_some() && to.backend() == Backend::Tpm2;
    [
        ("seal.backend", is_other_device),
        ("seal.tpm2.policy", !is_other_device && sealed.policy != to.policy()),
        ("seal.tpm2.rollback", sealed.guarded != is_guarded),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn control_of(config: &Config) -> (&Path, &Path, Option<u32>) {
    (&config.control_socket, &config.status_socket, config.status_group)
}

/// Keys whose new value nothing takes up. The sealer reads its own keys itself.
pub(super) fn needs_restart(runs: &Config, next: &Config) -> Vec<&'static str> {
    [
        ("state_dir", runs.state_dir != next.state_dir),
        ("listen", runs.listen != next.listen),
        ("control", control_of(runs) != control_of(next)),
        ("telemetry", runs.metrics != next.metrics),
        ("seal.socket", runs.seal.socket != next.seal.socket),
        ("seal.tpm2.rollback", runs.seal.guard != next.seal.guard),
        ("seal.pkcs11.pin_file", runs.seal.own_pin_file() != next.seal.own_pin_file()),
        ("local_kek.max_age", runs.max_age != next.max_age),
        ("sandbox", runs.sandbox != next.sandbox),
        ("log", (runs.log_format, runs.log_level) != (next.log_format, next.log_level)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}
