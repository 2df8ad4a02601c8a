//! From the mirror to [`Config`]: parse, don't validate, and collect every mistake on the way.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::checked::Config;
use super::control::{self, Control};
use super::forms::absolute;
use super::listen::{self, Listen};
use super::local_kek::{self, LocalKek};
use super::log::Log;
use super::problems::{Checked, Noted, Problem, Problems};
use super::providers::{self, Decrypt, Write};
use super::sandbox::{self, Sandbox};
use super::seal::{self, SealTable};
use super::telemetry::{self, Telemetry};
use super::{needs, sockets};
use crate::api::scrape::Place;
use crate::types::ClusterId;

/// The only version of the file so far.
pub const FILE_VERSION: u16 = 1;
const VERSION: i64 = FILE_VERSION as i64;
/// FHS: variable state of a service.
const STATE_DIR: &str = "/var/lib/nodeseal";

// The file as it is written, with every key that there is and nothing else. Keys that this build does not serve stay
// here, so that the check can say so instead of "unknown field".
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    version: Option<i64>,
    cluster: Option<String>,
    state_dir: Option<String>,
    #[serde(default)]
    listen: Listen,
    #[serde(default)]
    control: Control,
    #[serde(default)]
    seal: SealTable,
    #[serde(default)]
    local_kek: LocalKek,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    sandbox: Sandbox,
    #[serde(default)]
    telemetry: Telemetry,
    watch: Option<bool>,
    // Read by kind, in `providers`.
    #[schemars(with = "Option<Vec<providers::AnyKind>>")]
    provider: Option<Vec<toml::Table>>,
    write: Option<Write>,
    decrypt: Option<Decrypt>,
}

/// `systemd`: the version that this machine has, as far as it is known.
pub(super) fn check(path: &Path, file: File, systemd: Option<u32>) -> Result<Config, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut warnings = Problems::default();
    match tables(&mut problems, &mut warnings, path, file, systemd) {
        Ok(config) if problems.is_empty() => Ok(Config { warnings: warnings.into_list(), ..config }),
        _ => Err(problems.into_list()),
    }
}

/// Each table, and then what fits beside what. A value may be there though something is wrong.
fn tables(
    problems: &mut Problems,
    warnings: &mut Problems,
    path: &Path,
    file: File,
    systemd: Option<u32>,
) -> Checked<Config> {
    check_version(problems, file.version);
    let cluster = check_cluster(problems, file.cluster);
    let state_dir = absolute(problems, "state_dir", file.state_dir, STATE_DIR);
    let listen = listen::check(problems, warnings, file.listen);
    let control = control::check(problems, file.control);
    let of_control = control.as_ref().ok();
    let metrics = telemetry::check(problems, file.telemetry, of_control.map(|control| control.status_socket.as_path()));
    let metrics_socket = match &metrics {
        Ok(Some(Place::Unix(path))) => Some(path.as_path()),
        Ok(Some(Place::Loopback(_)) | None) | Err(Noted) => None,
    };
    let seal = seal::check(problems, warnings, file.seal, systemd);
    let all = [
        ("listen.socket", listen.as_ref().ok().map(|listen| listen.socket.as_path())),
        ("control.socket", of_control.map(|control| control.socket.as_path())),
        ("control.status_socket", of_control.map(|control| control.status_socket.as_path())),
        ("telemetry.metrics", metrics_socket),
        ("seal.socket", seal.as_ref().ok().and_then(|seal| seal.socket.as_deref())),
    ];
    let all: Vec<_> = all.into_iter().filter_map(|(key, path)| Some((key, path?))).collect();
    sockets::check_apart(problems, &all);
    of_control.iter().for_each(|control| control::warn_of_pods(warnings, &control.socket));
    state_dir.iter().for_each(|folder| warn_of_memory(warnings, folder));
    let has_local_kek = file.local_kek.is_enabled();
    let max_age = local_kek::check(problems, file.local_kek);
    let sandbox = sandbox::check(problems, warnings, file.sandbox);
    let providers = providers::check(problems, warnings, file.provider, file.write, file.decrypt, has_local_kek);
    if let (Ok(seal), Ok(listen), Some(control), Ok(Some(providers))) = (&seal, &listen, of_control, &providers) {
        let own = [listen.socket.as_path(), &control.socket, &control.status_socket];
        providers::check_beside(problems, warnings, &providers.list, seal, &own);
    }
    if let (Ok(sandbox), Ok(Some(providers))) = (&sandbox, &providers) {
        needs::warn_of_files(warnings, sandbox, &providers.list, path);
    }
    let control = control?;
    Ok(Config {
        metrics: metrics?,
        path: path.to_owned(),
        warnings: Vec::new(),
        cluster: cluster?,
        state_dir: state_dir?,
        listen: listen?,
        control_socket: control.socket,
        status_socket: control.status_socket,
        status_group: control.status_group,
        seal: seal?,
        max_age: max_age?,
        providers: providers?,
        sandbox: sandbox?,
        watch: file.watch.unwrap_or(false),
        log_format: file.log.format.unwrap_or_default(),
        log_level: file.log.level.unwrap_or_default(),
    })
}

fn check_version(problems: &mut Problems, version: Option<i64>) {
    match version {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            problems.add("version", format!("is {newer}, which needs a later release; this one knows {VERSION}"));
        }
        Some(_) | None => problems.add("version", format!("write version = {VERSION}")),
    }
}

fn check_cluster(problems: &mut Problems, cluster: Option<String>) -> Checked<ClusterId> {
    match cluster {
        Some(name) => problems.keep("cluster", name.parse()),
        None => problems
            .refuse("cluster", "write the cluster's name, the same on all of its nodes; it can never be changed"),
    }
}

/// What is lost with the machine's memory.
fn warn_of_memory(warnings: &mut Problems, state_dir: &Path) {
    if ["/run", "/var/run", "/dev/shm"].iter().any(|memory| state_dir.starts_with(memory)) {
        let text = "is in memory, and is lost at the next boot: use a folder on a disk, such as /var/lib/nodeseal";
        warnings.add("state_dir", text);
    }
}
