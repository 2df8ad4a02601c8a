//! `nodeseal status`: what the running daemon says of itself, once or again and again. Exit code 69 when an Encrypt would be refused.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::args::{Common, StatusArgs};
use super::asked::Asked;
use super::failed::{self, Failed, code_in};
use super::output::{Done, act_as_owner, counted, print, time, unfit};
use super::rows::Kek;
use super::schema;
use crate::api::probe::{self, Probe, ProbeError};
use crate::control::needs::{closed, needs};
use crate::control::report::ProviderRow;
use crate::control::{Answer, Request, Status, say};
use crate::keyring::keeper::CheckReport;
use crate::seal::protocol::DeviceInfo;
use crate::types::Class;
use crate::types::clock::UnixSeconds;

/// Between two looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

pub(super) fn run(common: &Common, args: &StatusArgs) -> Done {
    if args.watch { watch(common, args) } else { show(common, &look(common, args)?) }
}

/// Until it is interrupted, or nobody reads any more. A daemon that is away is what one watches for.
fn watch(common: &Common, args: &StatusArgs) -> Done {
    let is_terminal = io::stdout().is_terminal();
    let mut is_first = true;
    loop {
        let looked = look(common, args);
        match (is_terminal, common.json) {
            (true, false) => say::clear(),
            (false, false) if !is_first => say::result(""),
            _ => {}
        }
        is_first = false;
        match looked {
            Ok(report) => drop(show(common, &report)?),
            Err(failed) => drop(failed::tell(&failed, common.json)),
        }
        if !waits_for_a_reader(WATCH_EVERY) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Waits for this long; `false` as soon as standard output is closed on its other side.
fn waits_for_a_reader(pause: Duration) -> bool {
    let stdout = io::stdout();
    // What is not asked for is told all the same: POLLERR of a pipe, POLLHUP of a terminal (poll(2)).
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
    !matches!(poll(&mut watched, timeout), Ok(1..))
}

/// One look.
fn look(common: &Common, args: &StatusArgs) -> Result<Report, Failed> {
    let asked = Asked::load(common)?;
    let mut status = match asked.status() {
        Ok(status) => status,
        Err(why) => return Err(why.failed(asked)),
    };
    // Of a node that encrypts nothing it would say less than the status does.
    let is_probed = args.probe && status.key_id.is_some();
    let socket = PathBuf::from(&status.socket);
    let probe = is_probed.then(|| probe(&socket).map_err(Failed::from));
    let sealed_by = status.seal_backend.as_deref().and_then(|backend| backend.parse().ok());
    let is_broken = asked.config.is_err();
    let deep = match args.deep.then(|| asked.ask_too(&Request::StatusDeep {})).transpose()? {
        None => None,
        Some(Answer::Checked(deep)) => {
            // What the check has found stands in what the daemon says from then on.
            status = asked.status_after()?;
            Some(deep)
        }
        Some(_) => return Err(unfit()),
    };
    // The device belongs to the service's user, who may open it by a group.
    let ask_device = || {
        let config = asked.config?;
        act_as_owner(&config)?;
        let device = config.sealer().describe(sealed_by.unwrap_or(config.seal.backend));
        device.map_err(Failed::from)
    };
    let (probe, probe_failed) = parted(probe);
    let (device, device_failed) = parted(args.device.then(ask_device));
    Ok(Report { status, is_broken, probe, probe_failed, device, device_failed, deep })
}

fn show(common: &Common, report: &Report) -> Done {
    let code = print(common, schema::STATUS, &report.json(), || render(report))?;
    let Report { status, probe_failed, device_failed, deep, .. } = report;
    if let Some(deep) = deep.as_ref().filter(|deep| !deep.is_fine()) {
        let why = match &deep.error {
            Some(error) => format!("the keys would not open at the next start: {error}"),
            None if !deep.lacking.is_empty() => format!("these KEKs do not open here: {}", deep.lacking.join(", ")),
            None => format!("damaged, and not repaired: {}", deep.damaged.join(", ")),
        };
        say::warning(super::PROGRAM, &why);
        return Ok(ExitCode::from(Class::Unavailable.exit_code()));
    }
    if let Some(failed) = probe_failed.as_ref().or(device_failed.as_ref()) {
        return Ok(failed.tell(super::PROGRAM));
    }
    if status.healthy {
        return Ok(code);
    }
    say::warning(super::PROGRAM, &why_not_ready(status));
    if let Some(hint) = &status.seal_hint {
        say::hint(super::PROGRAM, hint);
    }
    Ok(ExitCode::from(Class::Unavailable.exit_code()))
}

fn parted<T>(asked: Option<Result<T, Failed>>) -> (Option<T>, Option<Failed>) {
    match asked {
        None => (None, None),
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(failed)) => (None, Some(failed)),
    }
}

fn why_not_ready(status: &Status) -> String {
    match (&status.seal_error, status.keys_usable) {
        (Some(error), _) => format!("{}: {error}", closed(status).unwrap_or_default()),
        _ if status.awaits_bundle => {
            "this node waits for a bundle: `nodeseal bundle request --out FILE` here, then `nodeseal bundle make FILE --fingerprint GROUPS --out FILE` on a node that has the keys".to_owned()
        }
        _ if status.stops_writes => {
            "the providers have been unreachable for longer than write.on_outage allows".to_owned()
        }
        (None, 0) => "the keys are still sealed: the first attempt is running".to_owned(),
        (None, _) if status.providers.is_empty() => "the active KEK is not in memory: see the log of nodeseald".to_owned(),
        (None, _) => "no provider has wrapped a KEK of this node yet: see what they say above".to_owned(),
    }
}

/// The status, with `--probe` what the round trip gave, and with `--device` what the sealing device says of itself.
struct Report {
    status: Box<Status>,
    /// The configuration cannot be used any more.
    is_broken: bool,
    probe: Option<Probe>,
    /// What was asked for besides can fail, and takes nothing from what the daemon says.
    probe_failed: Option<Failed>,
    device: Option<DeviceInfo>,
    device_failed: Option<Failed>,
    deep: Option<CheckReport>,
}

impl Report {
    /// The daemon's own fields, and what was asked for besides.
    fn json(&self) -> Value {
        let mut value = json!(self.status);
        value["due"] = json!(self.status.due.map(time));
        value["without_kek"] = json!(self.status.without_kek.as_ref().map(|without| json!({
            "decrypts": without.decrypts,
            "kek": without.kek,
            "last": time(without.last),
        })));
        value["recovery_written"] = json!(self.status.recovery_written.map(time));
        value["epoch_turns"] = json!(self.status.epoch_turns.map(time));
        value["recovery_rehearsed"] = json!(self.status.recovery_rehearsed.map(time));
        value["etcd_scanned"] = json!(self.status.etcd_scanned.map(time));
        value["pending_kek"] = json!(self.status.pending_kek.as_ref().map(Kek::new));
        value["seal_code"] = json!(self.status.seal_error.as_deref().and_then(code_in));
        value["needs"] = json!(needs(&self.status, self.is_broken));
        value["device"] = json!(self.device);
        value["probe"] = json!(self.probe.as_ref().map(|probe| json!({
            "key_id": probe.key_id,
            "ciphertext_bytes": probe.ciphertext_bytes,
            "took_microseconds": u64::try_from(probe.took.as_micros()).unwrap_or(u64::MAX),
        })));
        value["probe_error"] = json!(self.probe_failed.as_ref().map(Failed::text));
        value["device_error"] = json!(self.device_failed.as_ref().map(Failed::text));
        value["deep"] = json!(self.deep);
        if let Some(deep) = &self.deep {
            value["deep"]["at"] = time(deep.at).into();
        }
        value
    }
}

fn probe(socket: &Path) -> Result<Probe, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ProbeError::Unreachable { path: socket.to_owned(), source })?;
    runtime.block_on(probe::round_trip(socket))
}

fn recovery(status: &Status) -> String {
    let Some(maker) = &status.recovery_maker else { return UNKNOWN.to_owned() };
    let recipients = counted(status.recovery_recipients.len(), "recipient");
    match status.recovery_recipients.len() {
        0 => "no recovery file".to_owned(),
        _ if status.awaits_bundle => format!("recovery.age is written with the first keys, for {recipients}"),
        _ => {
            let written = status
                .recovery_written
                .map_or_else(String::new, |written| format!(", written {}: older copies differ", time(written)));
            let rehearsed = match status.recovery_rehearsed {
                Some(at) if status.rehearsal_lacks_kek => {
                    format!("; last rehearsed {}, before the newest KEK was made", time(at))
                }
                Some(at) => format!("; last rehearsed {}", time(at)),
                None => "; never rehearsed: `nodeseal recover --rehearse`".to_owned(),
            };
            format!("recovery.age for {recipients}, made by {maker}{written}{rehearsed}")
        }
    }
}

/// What only open keys tell.
const UNKNOWN: &str = "unknown";

fn keys(status: &Status) -> String {
    match is_open(status) {
        false => UNKNOWN.to_owned(),
        true if status.awaits_bundle => "none yet: they come in a bundle from another node".to_owned(),
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

/// The day, and who acts then.
fn due_text(status: &Status, due: UnixSeconds) -> String {
    let by = match status.rotates_by_itself {
        Some(true) => ", and is replaced automatically",
        Some(false) => ", and is only replaced by `nodeseal keys rotate`",
        None => "",
    };
    format!("the active KEK, at {}{by}", time(due))
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
        (None, None) => "not used yet".to_owned(),
    };
    let version = row.version.as_deref().unwrap_or("unknown");
    let foreign = if row.opens_foreign { ", opens foreign ciphertexts" } else { "" };
    format!("{} ({}, {}{foreign}), version {version}, {said}", row.name, row.kind, row.role)
}

fn render(report: &Report) -> String {
    let Report { status, probe, device, deep, .. } = report;
    let none = || if is_open(status) { "none" } else { UNKNOWN }.to_owned();
    let mut lines = vec![("health", if status.healthy { "ok".to_owned() } else { "not ready".to_owned() })];
    match needs(status, report.is_broken).as_slice() {
        [] => lines.push(("needs you", if status.keys_known { "no" } else { UNKNOWN }.to_owned())),
        all => lines.extend(all.iter().map(|need| ("needs you", need.to_string()))),
    }
    lines.extend([
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
    ]);
    lines.extend(status.due.map(|due| ("due", due_text(status, due))));
    lines.extend(status.providers.iter().map(|row| ("provider", provider(row))));
    if !status.providers.is_empty() {
        let owed = format!(
            "{} copies of KEKs, {} ciphertexts short of copies",
            status.wraps_owed, status.texts_short_of_wraps
        );
        lines.push(("owed", if is_open(status) { owed } else { UNKNOWN.to_owned() }));
    }
    lines.extend(status.epoch.map(|epoch| {
        let turns = status.epoch_turns.map(|turns| format!(", until {}", time(turns))).unwrap_or_default();
        ("epoch", format!("{epoch}{turns}"))
    }));
    lines.extend(status.waits.iter().map(|why| ("waits", why.clone())));
    lines.extend(status.sandbox.iter().map(|sandbox| ("sandbox", sandbox.to_string())));
    if status.outage_seconds > 0 {
        lines.push(("outage", format!("{} s", status.outage_seconds)));
    }
    lines.extend(refused(status).map(|text| ("refused", text)));
    if status.log_lines_dropped > 0 {
        let text = format!("{} log lines were dropped: they were not read in time", status.log_lines_dropped);
        lines.push(("log", text));
    }
    if let Some(probe) = probe {
        let text = format!("ok, in {} µs", probe.took.as_micros());
        lines.push(("round trip", text));
    }
    if let Some(device) = device {
        lines.push(("device", format!("{} {} {}", device.backend, device.manufacturer, device.firmware)));
        lines.push(("root key", device.root_key_name.clone()));
        let lockout = if device.in_lockout { ", in lockout now" } else { "" };
        lines.push(("lockout", format!("{} of {} failures{lockout}", device.lockout_counter, device.lockout_max)));
    }
    lines.extend(report.probe_failed.as_ref().map(|failed| ("round trip", format!("FAILED: {}", failed.text()))));
    lines.extend(report.device_failed.as_ref().map(|failed| ("device", format!("FAILED: {}", failed.text()))));
    if let Some(deep) = deep {
        let opens = if deep.opens { "yes, proved just now".to_owned() } else { "NO".to_owned() };
        lines.push(("opens", opens));
        lines.extend(deep.hint.iter().map(|hint| ("hint", hint.clone())));
        lines.extend(deep.repaired.iter().map(|file| ("repaired", file.clone())));
        lines.extend(deep.damaged.iter().map(|file| ("damaged", file.clone())));
        lines.extend(deep.lacking.iter().map(|kek| ("lacking", format!("KEK {kek}, whose file does not open"))));
    }
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}
