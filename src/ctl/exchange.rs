//! What the verbs share that give something to other nodes: a warning, and what a file is.

use serde_json::{Value, json};

use super::output::{ask, time};
use crate::config::Config;
use crate::control::report::HARDWARE_ONLY;
use crate::control::{Answer, Request, say};
use crate::types::clock::UnixSeconds;

/// Such a node replaces its KEK without asking anybody.
pub(super) fn warn_of_providers(config: &Config) {
    let Ok(Answer::Status(status)) = ask(config, &Request::Status {}) else { return };
    if status.mode != HARDWARE_ONLY {
        say::warning(
            super::PROGRAM,
            "this node has providers, and replaces its KEK automatically: a node without the same providers cannot read what it writes then. Configure them there too",
        );
    }
}

/// What a file is, by its own head.
pub(super) struct Shown<'a> {
    pub(super) kind: &'a str,
    pub(super) cluster: &'a str,
    pub(super) node: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) expires: Option<UnixSeconds>,
    pub(super) fingerprint: Option<&'a str>,
}

impl<'a> Shown<'a> {
    pub(super) const fn of(kind: &'a str, cluster: &'a str) -> Self {
        Self { kind, cluster, node: None, from: None, expires: None, fingerprint: None }
    }

    pub(super) fn value(&self) -> Value {
        let Self { kind, cluster, node, from, expires, fingerprint } = self;
        let expires = expires.map(time);
        json!({
            "kind": kind, "cluster": cluster, "node": node, "from": from, "expires": expires, "fingerprint": fingerprint,
        })
    }
}
