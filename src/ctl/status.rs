//! `nodeseal status`: what the running daemon says of itself. Exit code 69 when an Encrypt would be refused.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{Common, StatusArgs};
use super::output::{Done, act_as_owner, ask, control_error, counted, fail, load, print, time, unfit};
use super::schema;
use crate::api::probe::{self, Probe, ProbeError};
use crate::config::Config;
use crate::control::report::ProviderRow;
use crate::control::{self, Answer, Request, Status, say};
use crate::keyring::keeper::CheckReport;
use crate::seal::protocol::DeviceInfo;
use crate::types::{Class, clock};

pub(super) fn run(common: &Common, args: &StatusArgs) -> Done {
    let config = load(common)?;
    let status = match control::ask_status(&config.control_socket, &config.status_socket) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return Err(unfit()),
        Err(error) => return Err(control_error(&error)),
    };
    // Of a node that encrypts nothing it would say less than the status does.
    let is_probed = args.probe && status.key_id.is_some();
    let probe = is_probed.then(|| probe(&config)).transpose();
    let probe = probe.map_err(|error| fail(&error, error.class(), error.hint()))?;
    // The device belongs to the service's user, who may open it by a group.
    if args.device {
        act_as_owner(&config)?;
    }
    let sealed_by = status.seal_backend.as_deref().and_then(|backend| backend.parse().ok());
    let backend = sealed_by.unwrap_or(config.seal.backend);
    let device = args.device.then(|| config.sealer().describe(backend)).transpose();
    let device = device.map_err(|error| fail(&error, error.class(), error.hint()))?;
    let deep = match args.deep.then(|| ask(&config, &Request::StatusDeep {})).transpose()? {
        None => None,
        Some(Answer::Checked(deep)) => Some(deep),
        Some(_) => return Err(unfit()),
    };
    let report = Report { status: &status, probe: probe.as_ref(), device: device.as_ref(), deep: deep.as_ref() };
    let code = print(common, schema::STATUS, &report.json(), || render(&report))?;
    if let Some(deep) = deep.as_ref().filter(|deep| !deep.is_fine()) {
        let why = match &deep.error {
            Some(error) => format!("the keys would not open at the next start: {error}"),
            None if !deep.lacking.is_empty() => format!("these KEKs do not open here: {}", deep.lacking.join(", ")),
            None => format!("damaged, and not repaired: {}", deep.damaged.join(", ")),
        };
        say::warning(super::PROGRAM, &why);
        return Ok(ExitCode::from(Class::Unavailable.exit_code()));
    }
    if status.healthy {
        return Ok(code);
    }
    say::warning(super::PROGRAM, &why_not_ready(&status));
    if let Some(hint) = &status.seal_hint {
        say::hint(super::PROGRAM, hint);
    }
    Ok(ExitCode::from(Class::Unavailable.exit_code()))
}

fn why_not_ready(status: &Status) -> String {
    match (&status.seal_error, status.keys_usable) {
        (Some(error), _) => format!("the keys are not unsealed: {error}"),
        _ if status.awaits_bundle => {
            "this node waits for a bundle: `nodeseal bundle request --out FILE` here, then `nodeseal bundle make FILE` on a node that has the keys".to_owned()
        }
        _ if status.stops_writes => {
            "the providers have been away for longer than write.on_outage allows".to_owned()
        }
        (None, 0) => "the keys are not unsealed yet: the first attempt is under way".to_owned(),
        (None, _) if status.providers.is_empty() => "the active KEK is not in memory: see the log of nodeseald".to_owned(),
        (None, _) => "no provider has wrapped a KEK of this node yet: see what they say above".to_owned(),
    }
}

/// The status, with `--probe` what the round trip gave, and with `--device` what the sealing device says of itself.
struct Report<'a> {
    status: &'a Status,
    probe: Option<&'a Probe>,
    device: Option<&'a DeviceInfo>,
    deep: Option<&'a CheckReport>,
}

impl Report<'_> {
    /// The daemon's own fields, and what was asked for besides.
    fn json(&self) -> Value {
        let mut value = json!(self.status);
        value["due"] = json!(self.status.due.map(time));
        value["without_kek"] = json!(self.status.without_kek.as_ref().map(|without| json!({
            "decrypts": without.decrypts,
            "kek": without.kek,
            "last": time(without.last),
        })));
        value["device"] = json!(self.device);
        value["probe"] = json!(self.probe.map(|probe| json!({
            "key_id": probe.key_id,
            "ciphertext_bytes": probe.ciphertext_bytes,
            "took_microseconds": u64::try_from(probe.took.as_micros()).unwrap_or(u64::MAX),
        })));
        value["deep"] = json!(self.deep);
        if let Some(deep) = self.deep {
            value["deep"]["at"] = time(deep.at).into();
        }
        value
    }
}

fn probe(config: &Config) -> Result<Probe, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ProbeError::Unreachable { path: config.listen.socket.clone(), source })?;
    runtime.block_on(probe::round_trip(&config.listen.socket))
}

fn recovery(status: &Status) -> String {
    let Some(maker) = &status.recovery_maker else { return UNKNOWN.to_owned() };
    let recipients = counted(status.recovery_recipients.len(), "recipient");
    match status.recovery_recipients.len() {
        0 => "no recovery file".to_owned(),
        _ if status.awaits_bundle => format!("recovery.age is written with the first keys, for {recipients}"),
        _ => format!("recovery.age for {recipients}, made by {maker}"),
    }
}

/// What only open keys tell.
const UNKNOWN: &str = "unknown";

fn keys(status: &Status) -> String {
    match is_open(status) {
        false => UNKNOWN.to_owned(),
        true if status.awaits_bundle => "none yet: they come in a bundle of another node".to_owned(),
        true => format!("{}, {} of them usable", status.keys, status.keys_usable),
    }
}

fn rollback(status: &Status) -> String {
    match (is_open(status), status.guarded) {
        (false, _) => UNKNOWN,
        (true, true) => "guarded by a counter of the TPM",
        (true, false) => "not guarded",
    }
    .to_owned()
}

/// The daemon has said what only open keys tell.
const fn is_open(status: &Status) -> bool {
    status.keys_known && status.seal_policy.is_some()
}

/// Nodes that share a KEK do not replace it on their own.
fn due(status: &Status) -> Option<String> {
    let due = status.due.filter(|_| status.overdue)?;
    let since = match due <= clock::now() {
        true => format!("the active KEK is due since {}", time(due)),
        false => "the active KEK has encrypted so much that it is due".to_owned(),
    };
    Some(format!("{since}: nodeseal keys rotate"))
}

/// What kube-apiserver could not read.
fn refused(status: &Status) -> Option<String> {
    let all: u64 = status.decrypts_refused.values().sum();
    let classes = status.decrypts_refused.iter().map(|(class, count)| format!("{count} {class}"));
    let text = format!("{all} Decrypts since the start: {}", classes.collect::<Vec<_>>().join(", "));
    let without = status.without_kek.as_ref().map(|without| {
        let (at, kek) = (time(without.last), &without.kek);
        format!(
            "; the last one that no key was found for came at {at} and needs KEK {kek}: take it from a node that has it \
             (`nodeseal bundle request`), or from a recovery file (`nodeseal recover`)"
        )
    });
    (all > 0).then(|| text + &without.unwrap_or_default())
}

fn provider(row: &ProviderRow) -> String {
    let said = match (&row.error, row.answered_seconds_ago) {
        (Some(error), _) => format!("{}: {error}", row.class.as_deref().unwrap_or("failed")),
        (None, Some(seconds)) => format!("answered {seconds} s ago"),
        (None, None) => "not asked yet".to_owned(),
    };
    let version = row.version.as_deref().unwrap_or("unknown");
    format!("{} ({}, {}), version {version}, {said}", row.name, row.kind, row.role)
}

fn render(report: &Report<'_>) -> String {
    let Report { status, probe, device, deep } = report;
    let none = || if is_open(status) { "none" } else { UNKNOWN }.to_owned();
    let mut lines = vec![
        ("health", if status.healthy { "ok".to_owned() } else { "not ready".to_owned() }),
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("uptime", format!("{} s", status.uptime_seconds)),
        ("cluster", status.cluster.clone()),
        ("socket", status.socket.clone()),
        ("key_id", status.key_id.clone().unwrap_or_else(none)),
        ("key_id hash", status.key_id_hash.clone().unwrap_or_else(none)),
        ("uses", status.uses.map_or_else(none, |uses| uses.to_string())),
        ("keys", keys(status)),
        ("sealed by", status.seal_backend.clone().unwrap_or_else(none)),
        ("seal policy", status.seal_policy.clone().unwrap_or_else(none)),
        ("rollback", rollback(status)),
        ("recovery", recovery(status)),
        ("mode", status.mode.clone()),
    ];
    lines.extend(due(status).map(|due| ("due", due)));
    lines.extend(status.providers.iter().map(|row| ("provider", provider(row))));
    if !status.providers.is_empty() {
        let owed =
            format!("{} copies of KEKs, {} texts short of copies", status.wraps_owed, status.texts_short_of_wraps);
        lines.push(("owed", if is_open(status) { owed } else { UNKNOWN.to_owned() }));
    }
    lines.extend(status.waits.iter().map(|why| ("waits", why.clone())));
    lines.extend(status.sandbox.iter().map(|sandbox| ("sandbox", sandbox.to_string())));
    if status.outage_seconds > 0 {
        lines.push(("outage", format!("{} s", status.outage_seconds)));
    }
    lines.extend(refused(status).map(|text| ("refused", text)));
    if status.log_lines_dropped > 0 {
        let text = format!("{} log lines were dropped: nobody read them in time", status.log_lines_dropped);
        lines.push(("log", text));
    }
    if let Some(probe) = probe {
        let text =
            format!("32 bytes became {} and came back, in {} µs", probe.ciphertext_bytes, probe.took.as_micros());
        lines.push(("round trip", text));
    }
    if let Some(device) = device {
        lines.push(("device", format!("{} {} {}", device.backend, device.manufacturer, device.firmware)));
        lines.push(("root key", device.root_key_name.clone()));
        let lockout = if device.in_lockout { ", in lockout now" } else { "" };
        lines.push(("lockout", format!("{} of {} failures{lockout}", device.lockout_counter, device.lockout_max)));
    }
    if status.would_open == Some(false) {
        lines.push(("opens", "NO: see what `nodeseal status --deep` says".to_owned()));
    }
    if let Some(deep) = deep {
        let opens = if deep.opens { "yes, proved just now".to_owned() } else { "NO".to_owned() };
        lines.push(("opens", opens));
        lines.extend(deep.hint.iter().map(|hint| ("hint", hint.clone())));
        lines.extend(deep.repaired.iter().map(|file| ("repaired", file.clone())));
        lines.extend(deep.damaged.iter().map(|file| ("damaged", file.clone())));
        lines.extend(deep.lacking.iter().map(|kek| ("lacking", format!("KEK {kek}, whose file does not open"))));
    }
    lines.extend(status.pending.iter().map(|pending| ("pending", pending.to_string())));
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kek_that_is_due_is_shown_with_the_day_since_when_and_any_other_is_not() {
        let mut status: Status = serde_json::from_value(serde_json::json!({
            "healthy": true, "version": "", "pid": 1, "uptime_seconds": 1, "cluster": "", "socket": "", "key_id": null,
            "key_id_hash": null, "uses": null, "keys": 1, "keys_usable": 1, "seal_policy": "none", "warnings": [],
        }))
        .unwrap();
        let shown = |status: &Status| {
            let text = render(&Report { status, probe: None, device: None, deep: None });
            text.lines().find_map(|line| line.strip_prefix("due ")).map(|line| line.trim().to_owned())
        };
        status.due = Some(0);
        assert_eq!(shown(&status), None);
        status.overdue = true;
        let since = "the active KEK is due since 1970-01-01T00:00:00Z: nodeseal keys rotate";
        assert_eq!(shown(&status).as_deref(), Some(since));
        // By its uses, before its age.
        status.due = Some(u64::MAX);
        assert!(shown(&status).is_some_and(|text| text.contains("encrypted so much")));
    }
}
