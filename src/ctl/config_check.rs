//! `nodeseal config check`: the same code that the daemons start with, and a look at what the file names on this machine.
//!
//! What is not there is a warning: a configuration may be checked on another machine, and a plugin may start later.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::json;

use super::common::Common;
use super::output::{Done, load, print};
use super::schema;
use crate::config::providers::Settings;
use crate::config::{Config, Problem};
use crate::control::say;

pub(super) fn run(common: &Common) -> Done {
    let config = load(common)?;
    let warnings: Vec<_> = config.warnings.iter().cloned().chain(absent(&config)).collect();
    let value = json!({ "ok": true, "cluster": config.cluster.as_str(), "warnings": warnings });
    print(common, schema::CONFIG_CHECK, &value, || {
        for warning in &warnings {
            say::warning(super::PROGRAM, &warning.to_string());
        }
        format!("{} is fine", config.path.display())
    })
}

/// What providers are made of and this machine does not have.
fn absent(config: &Config) -> Vec<Problem> {
    let providers = config.providers.iter().flat_map(|providers| &providers.list);
    let mut all = Vec::new();
    for (index, provider) in providers.enumerate() {
        let key = format!("provider[{index}]");
        for file in provider.files.iter().chain(&provider.tokens).filter(|file| is_absent(file)) {
            let text = format!("{} does not exist: provider {} fails until it does", file.display(), provider.name);
            all.push(Problem::new(&key, text));
        }
        if let Settings::KmsPlugin(settings) = &provider.settings
            && is_absent(&settings.socket)
        {
            let socket = settings.socket.display();
            let text = format!("no plugin listens on {socket}: provider {} fails until one does", provider.name);
            all.push(Problem::new(&key, text));
        }
    }
    all
}

/// What may not be looked at may be there.
fn is_absent(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
