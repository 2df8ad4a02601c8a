//! `nodeseal status`: what the running daemon says of itself. Exit code 69 when an Encrypt would be refused.

use std::process::ExitCode;

use serde::Serialize;

use super::args::{Common, StatusArgs};
use super::output::{ask, become_owner, fail, load, print, unfit};
use crate::api::probe::{self, Probe, ProbeError};
use crate::config::Config;
use crate::control::report::ProviderRow;
use crate::control::{Answer, Request, Status, say};
use crate::seal::protocol::DeviceInfo;
use crate::types::Class;

pub(super) fn run(common: &Common, args: &StatusArgs) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let status = match ask(&config, &Request::Status {}) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return unfit(),
        Err(code) => return code,
    };
    let probe = match args.probe.then(|| probe(&config)).transpose() {
        Ok(probe) => probe,
        Err(error) => return fail(&error, error.class(), error.hint()),
    };
    // The device belongs to the service's user, who may open it by a group.
    if let Some(code) = args.device.then(|| become_owner(&config)).and_then(Result::err) {
        return code;
    }
    let sealed_by = status.seal_backend.as_deref().and_then(|backend| backend.parse().ok());
    let backend = sealed_by.unwrap_or(config.seal.backend);
    let device = match args.device.then(|| config.sealer().describe(backend)).transpose() {
        Ok(device) => device,
        Err(error) => return fail(&error, error.class(), error.hint()),
    };
    let report = Report { status: &status, probe: probe.as_ref(), device: device.as_ref() };
    let code = print(common, &report, || render(&report));
    if status.healthy {
        return code;
    }
    let why = match (status.stops_writes, status.keys_usable) {
        (true, _) => "the providers have been away for longer than write.on_outage allows",
        (false, 0) => "the keys are not unsealed: see the log of nodeseald for the reason and its remedy",
        (false, _) => "no provider has wrapped a KEK of this node yet: see what they say above",
    };
    say::warning(super::PROGRAM, why);
    ExitCode::from(Class::Unavailable.exit_code())
}

/// The status, with `--probe` what the round trip gave, and with `--device` what the sealing device says of itself.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a DeviceInfo>,
}

fn probe(config: &Config) -> Result<Probe, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ProbeError::Unreachable { path: config.listen.socket.clone(), source })?;
    runtime.block_on(probe::round_trip(&config.listen.socket))
}

fn recovery(recipients: &[String]) -> String {
    match recipients.len() {
        0 => "no recovery file".to_owned(),
        1 => "recovery.age for 1 recipient".to_owned(),
        count => format!("recovery.age for {count} recipients"),
    }
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
    let Report { status, probe, device } = report;
    let none = || "none".to_owned();
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
        ("keys", format!("{}, {} of them usable", status.keys, status.keys_usable)),
        ("sealed by", status.seal_backend.clone().unwrap_or_else(none)),
        ("seal policy", status.seal_policy.clone().unwrap_or_else(none)),
        (
            "rollback",
            if status.guarded { "guarded by a counter of the TPM".to_owned() } else { "not guarded".to_owned() },
        ),
        ("recovery", recovery(&status.recovery_recipients)),
        ("mode", status.mode.clone()),
    ];
    lines.extend(status.providers.iter().map(|row| ("provider", provider(row))));
    if !status.providers.is_empty() {
        let owed =
            format!("{} copies of KEKs, {} texts short of copies", status.wraps_owed, status.texts_short_of_wraps);
        lines.push(("owed", owed));
    }
    lines.extend(status.waits.iter().map(|why| ("waits", why.clone())));
    lines.extend(status.sandbox.iter().map(|sandbox| ("sandbox", sandbox.to_string())));
    if status.outage_seconds > 0 {
        lines.push(("outage", format!("{} s", status.outage_seconds)));
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
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}
