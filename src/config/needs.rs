//! What the configured components need of the machine, and what a reload could not give them.

use std::collections::BTreeSet;
use std::path::Path;

use super::checked::Config;
use super::problems::Problems;
use super::providers::{Provider, any_provider};
use crate::sandbox::{Access, Mode, Needs, Policy, Settings};

/// With `providers = "any"` nobody expects a reload to be refused for want of a file. What lies elsewhere is granted at
/// a start alone.
pub(super) fn warn_of_files(warnings: &mut Problems, settings: &Settings, providers: &[Provider], config: &Path) {
    if !settings.any_provider || settings.mode == Mode::Off {
        return;
    }
    let given = any_provider().replaced_file(config, "the configuration");
    let folders: Vec<_> = given.paths.iter().map(|need| &need.path).chain(&settings.allow_paths).collect();
    let needed: BTreeSet<_> =
        providers.iter().flat_map(|provider| provider.needs().paths).map(|need| need.path).collect();
    for path in needed.iter().filter(|path| !folders.iter().any(|folder| path.starts_with(folder))) {
        let path = path.display();
        let text = format!(
            "{path} is read for a provider, but `providers = \"any\"` does not cover it, so a reload cannot allow it: add it here"
        );
        warnings.add("sandbox.allow_paths", text);
    }
}

impl Config {
    /// To read this file again.
    pub fn own_needs(&self) -> Needs {
        let file = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        Needs::default().users().replaced_file(&file, "the configuration")
    }

    /// What `nodeseald` needs once its sockets are open.
    pub fn daemon_needs(&self) -> Needs {
        let needs = self.own_needs().path(&self.state_dir, Access::Keep, "the state directory");
        let needs = self.seal.socket.iter().fold(needs, |needs, socket| needs.socket(socket));
        let needs = self
            .sandbox
            .allow_paths
            .iter()
            .fold(needs, |needs, path| needs.path(path, Access::Read, "sandbox.allow_paths"));
        let needs = self.sandbox.allow_ports.iter().fold(needs, |needs, port| needs.port(*port));
        let needs = if self.sandbox.any_provider { needs.and(any_provider()) } else { needs };
        let providers = self.providers.iter().flat_map(|providers| &providers.list);
        providers.fold(needs, |needs, provider| needs.and(provider.needs()))
    }

    /// What `nodeseal-sealer` needs once its socket is open, and the policy of its calls.
    pub fn sealer_needs(&self) -> (Needs, Policy) {
        let needs = self.seal.tpm2.needs();
        match &self.seal.pkcs11 {
            #[cfg(feature = "pkcs11")]
            Some(module) => (needs.and(module.needs()), Policy::ModuleSealer),
            _ => (needs, Policy::TpmSealer),
        }
    }
}
