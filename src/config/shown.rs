//! The values in force, each by its key: what the file says, or what holds where it says nothing. Holds no secret: a configuration has none.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::check::FILE_VERSION;
use super::checked::Config;
use super::lines;
use super::problems::Problem;
use crate::api::V2Version;
use crate::keyring::calendar::EpochRule;
use crate::keyring::rooted::OnOutage;
use crate::provider::set::{Role, Strategy};
use crate::sandbox::Mode;
use crate::types::SealPolicy;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Path of the key, such as `seal.tpm2.pcrs`.
    pub key: String,
    /// As it would be written; null where there is nothing in force.
    pub value: Value,
    /// Where it stands in the file, from 1. Absent: it is the default.
    pub line: Option<usize>,
}

/// All keys of this file, whose text is `text`. Those of providers are given as they are written.
pub fn in_force(config: &Config, text: &str) -> Vec<Shown> {
    let mut all = Vec::new();
    let mut add = |key: &str, value: Value| all.push((key.to_owned(), value));
    add("version", json!(FILE_VERSION));
    add("cluster", json!(config.cluster.as_str()));
    add("state_dir", json!(config.state_dir));
    add("watch", json!(config.watch));
    add("listen.socket", json!(config.listen.socket));
    add("listen.mode", json!(format!("{:04o}", config.listen.mode)));
    add("listen.allow_users", json!(config.listen.allow_uids));
    add("listen.apis", json!(config.listen.apis.iter().map(|api| api.label()).collect::<Vec<_>>()));
    add("listen.v2_version", json!(of_v2(config.listen.v2_version)));
    add("control.socket", json!(config.control_socket));
    add("control.status_socket", json!(config.status_socket));
    add("control.status_group", json!(config.status_group));
    add("telemetry.metrics", json!(config.metrics.as_ref().map_or_else(|| "off".to_owned(), ToString::to_string)));
    of_seal(config, &mut add);
    let rules = config.providers.as_ref().map(|providers| &providers.rules);
    add("local_kek.enabled", json!(rules.is_none_or(|rules| rules.local_kek)));
    add("local_kek.max_age", of_time(config.max_age.get()));
    add("log.format", json!(config.log_format));
    add("log.level", json!(config.log_level));
    of_sandbox(config, &mut add);
    of_providers(config, &mut add);
    let mut places: Vec<Problem> = all.iter().map(|(key, _)| Problem::new(key, "")).collect();
    lines::find(text, &mut places);
    all.into_iter().zip(places).map(|((key, value), place)| Shown { key, value, line: place.line }).collect()
}

fn of_seal(config: &Config, add: &mut impl FnMut(&str, Value)) {
    let seal = &config.seal;
    add("seal.backend", json!(seal.backend.label()));
    add("seal.socket", json!(seal.socket));
    add("seal.tpm2.device", json!(seal.tpm2.device.to_string()));
    add("seal.tpm2.parent_handle", json!(seal.tpm2.parent_handle));
    add("seal.tpm2.allow_software_tpm", json!(seal.tpm2.allow_software_tpm));
    let (policy, bank, pcrs) = match &seal.policy {
        SealPolicy::Pcr { bank, pcrs } => ("pcr", json!(bank.to_string()), json!(pcrs.numbers().collect::<Vec<_>>())),
        SealPolicy::None => ("none", Value::Null, Value::Null),
    };
    add("seal.tpm2.policy", json!(policy));
    add("seal.tpm2.pcr_bank", bank);
    add("seal.tpm2.pcrs", pcrs);
    add("seal.tpm2.rollback", json!(if seal.guard.is_some() { "tpm-counter" } else { "none" }));
    add("seal.tpm2.counter_index", json!(seal.guard));
    let token = seal.pkcs11.as_ref();
    add("seal.pkcs11.module", json!(token.map(|token| &token.module)));
    add("seal.pkcs11.token_label", json!(token.map(|token| &token.token_label)));
    add("seal.pkcs11.token_serial", json!(token.and_then(|token| token.token_serial.as_ref())));
    add("seal.pkcs11.pin_file", json!(token.map(|token| &token.pin_file)));
    add("seal.pkcs11.key_label", json!(token.map(|token| &token.key_label)));
    add("seal.pkcs11.key_id", json!(token.and_then(|token| token.key_id.as_ref()).map(crate::types::hex::encode)));
    add("seal.pkcs11.make_key", json!(token.map(|token| token.make_key)));
    add("seal.pkcs11.trust_key", json!(token.map(|token| token.trust_key)));
    let mechanism =
        |mechanism: Option<crate::sealer::settings::Pkcs11Mechanism>| mechanism.map_or("auto", |one| one.label());
    add("seal.pkcs11.mechanism", json!(token.map(|token| mechanism(token.mechanism))));
    add("seal.pkcs11.allow_paths", json!(token.map(|token| &token.allow_paths)));
    add("seal.pkcs11.allow_ports", json!(token.map(|token| &token.allow_ports)));
}

fn of_sandbox(config: &Config, add: &mut impl FnMut(&str, Value)) {
    let sandbox = &config.sandbox;
    let mode = match sandbox.mode {
        Mode::BestEffort => "best-effort",
        Mode::Require => "require",
        Mode::Off => "off",
    };
    add("sandbox.mode", json!(mode));
    add("sandbox.user", json!(sandbox.user.as_ref().map(|user| user.name.clone())));
    add("sandbox.providers", json!(if sandbox.any_provider { "any" } else { "configured" }));
    add("sandbox.allow_paths", json!(sandbox.allow_paths));
    add("sandbox.allow_ports", json!(sandbox.allow_ports));
}

fn of_providers(config: &Config, add: &mut impl FnMut(&str, Value)) {
    let Some(providers) = &config.providers else { return };
    let rules = &providers.rules;
    add("write.min_wraps", json!(rules.min_wraps));
    add(
        "write.epoch",
        match rules.epoch {
            EpochRule::Number(number) => json!(number),
            EpochRule::Every(_) => json!(rules.epoch.to_string()),
        },
    );
    let outage = match rules.on_outage {
        OnOutage::Coast => "coast".to_owned(),
        OnOutage::StopWritesAfter(time) => format!("stop-writes-after {}", humantime::format_duration(time)),
    };
    add("write.on_outage", json!(outage));
    add("write.activation_delay", of_time(rules.activation_delay));
    add("write.probe_every", of_time(rules.probe_every));
    let strategy = match providers.strategy {
        Strategy::Ordered => "ordered",
        Strategy::RoundRobin => "round-robin",
        Strategy::Fastest => "fastest",
    };
    add("decrypt.strategy", json!(strategy));
    for (index, provider) in providers.list.iter().enumerate() {
        let at = |key: &str| format!("provider[{index}].{key}");
        add(&at("name"), json!(provider.name));
        add(&at("required"), json!(provider.role == Role::Required));
        add(&at("write"), json!(provider.role != Role::DecryptOnly));
        let table: toml::Table = provider.written.parse().unwrap_or_default();
        flat(&at(""), &table, add);
    }
}

/// Tables within tables, as paths. `path` ends with a dot.
fn flat(path: &str, table: &toml::Table, add: &mut impl FnMut(&str, Value)) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flat(&format!("{path}{key}."), inner, add),
            other => add(&format!("{path}{key}"), json!(other)),
        }
    }
}

fn of_time(time: Duration) -> Value {
    json!(humantime::format_duration(time).to_string())
}

const fn of_v2(version: V2Version) -> &'static str {
    match version {
        V2Version::V2 => "v2",
        V2Version::V2beta1 => "v2beta1",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn shown(text: &str) -> Vec<Shown> {
        in_force(&super::super::parse(Path::new("/x.toml"), text).unwrap(), text)
    }

    /// Of the schema, without those of providers.
    fn keys(schema: &Value, of: &Value, path: &str, into: &mut BTreeSet<String>) {
        for (key, value) in of["properties"].as_object().unwrap() {
            let within = value.get("$ref").or_else(|| value["anyOf"][0].get("$ref")).and_then(Value::as_str);
            match within.and_then(|name| name.strip_prefix("#/$defs/")) {
                Some(name) if schema["$defs"][name]["properties"].is_object() => {
                    keys(schema, &schema["$defs"][name], &format!("{path}{key}."), into);
                }
                _ => drop(into.insert(format!("{path}{key}"))),
            }
        }
    }

    const PLUGIN: &str = "[[provider]]\nname = \"a\"\nkind = \"kms-plugin\"\nsocket = \"/run/p.sock\"\nkey = \"k\"\n";

    #[test]
    fn every_key_of_the_schema_is_shown() {
        let schema = super::super::schema();
        let mut known = BTreeSet::new();
        keys(&schema, &schema, "", &mut known);
        known.remove("provider");
        let shown: BTreeSet<String> =
            shown(&format!("version = 1\ncluster = \"c\"\n{PLUGIN}")).into_iter().map(|row| row.key).collect();
        let of_provider = |key: &&String| key.starts_with("provider[0].");
        assert_eq!(shown.iter().filter(of_provider).count(), 6, "{shown:?}");
        assert_eq!(known, shown.into_iter().filter(|key| !of_provider(&key)).collect());
    }

    #[test]
    fn what_the_file_says_has_its_line_and_a_default_has_none() {
        let text = format!("version = 1\ncluster = \"c\"\nlocal_kek.max_age = \"30days\"\n{PLUGIN}");
        let all = shown(&text);
        let row = |key: &str| all.iter().find(|row| row.key == key).unwrap();
        assert_eq!((&row("cluster").value, row("cluster").line), (&json!("c"), Some(2)));
        assert_eq!((&row("local_kek.max_age").value, row("local_kek.max_age").line), (&json!("30days"), Some(3)));
        assert_eq!((&row("listen.mode").value, row("listen.mode").line), (&json!("0660"), None));
        assert_eq!(
            (&row("provider[0].socket").value, row("provider[0].socket").line),
            (&json!("/run/p.sock"), Some(7))
        );
        assert_eq!((&row("provider[0].write").value, row("provider[0].write").line), (&json!(true), None));
        assert_eq!((&row("seal.pkcs11.module").value, row("seal.pkcs11.module").line), (&Value::Null, None));
    }
}
