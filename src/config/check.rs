//! From the mirror to [`Config`]: parse, don't validate, and collect every mistake on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pcr_lint::lint;
use super::{Config, Problem, Seal, pkcs11, providers, raw, sandbox, sockets};
use crate::api::{self, V2Version};
use crate::envelope::Api;
use crate::keyring::MaxAge;
use crate::sealer::settings::{
    DEFAULT_COUNTER_INDEX, DEFAULT_PARENT_HANDLE, OWNER_NV_INDICES, OWNER_PERSISTENT_HANDLES, TpmDevice, TpmSettings,
};
use crate::types::{Backend, OVERFLOW_UID, PcrBank, PcrSet, SealPolicy};

/// The only version of the file so far.
pub const FILE_VERSION: u16 = 1;
const VERSION: i64 = FILE_VERSION as i64;
/// FHS: variable state of a service.
const STATE_DIR: &str = "/var/lib/nodeseal";
/// Its directory is mounted into API-server pods.
const KMS_SOCKET: &str = "/run/nodeseal/kms.sock";
/// In-kernel resource manager; /dev/tpm0 has one user at a time.
const TPM_DEVICE: &str = "/dev/tpmrm0";
const TPM_DEVICES: &str = "/dev/tpmrm";
/// Collects problems; every check goes on after one.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &str, text: impl Into<String>) {
        self.0.push(Problem::new(key, text));
    }

    pub(super) fn as_mut(&mut self) -> &mut Vec<Problem> {
        &mut self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keep<T, E: std::fmt::Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(key, error.to_string())).ok()
    }
}

/// `systemd`: the version that this machine has, as far as it is known.
pub(super) fn check(path: &Path, file: raw::File, systemd: Option<u32>) -> Result<Config, Vec<Problem>> {
    let raw::File { version, cluster, state_dir, listen, control, seal, local_kek, log, sandbox, watch, .. } = file;
    let (provider, write, decrypt) = (file.provider, file.write, file.decrypt);
    let mut problems = Problems::default();
    let mut warnings = Problems::default();
    match version {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            problems.add("version", format!("is {newer}, which needs a later release; this one knows {VERSION}"))
        }
        Some(_) | None => problems.add("version", format!("write version = {VERSION}")),
    }
    let cluster = match cluster {
        Some(name) => problems.keep("cluster", name.parse()),
        None => {
            problems.add("cluster", "write the cluster's name, the same on all of its nodes; it can never be changed");
            None
        }
    };
    let state_dir = absolute(&mut problems, "state_dir", state_dir, STATE_DIR);
    let listen = check_listen(&mut problems, &mut warnings, listen);
    let control = sockets::control(&mut problems, control);
    let control_socket = control.as_ref().map(|control| control.socket.as_path());
    let status_socket = control.as_ref().map(|control| control.status_socket.as_path());
    let seal = check_seal(&mut problems, &mut warnings, seal, systemd);
    let sealers = seal.as_ref().and_then(|seal| seal.socket.as_deref());
    let all = [
        ("listen.socket", listen.as_ref().map(|listen| listen.socket.as_path())),
        ("control.socket", control_socket),
        ("control.status_socket", status_socket),
        ("seal.socket", sealers),
    ];
    let all: Vec<_> = all.into_iter().filter_map(|(key, path)| Some((key, path?))).collect();
    sockets::check_apart(&mut problems, &all);
    control_socket.iter().for_each(|socket| sockets::warn_of_pods(warnings.as_mut(), socket));
    state_dir.iter().for_each(|folder| sockets::warn_of_memory(warnings.as_mut(), folder));
    let has_local_kek = local_kek.enabled.unwrap_or(true);
    let max_age = check_local_kek(&mut problems, local_kek);
    let sandbox = sandbox::check(&mut problems, &mut warnings, sandbox);
    let providers = providers::check(&mut problems, &mut warnings, provider, write, decrypt, has_local_kek);
    if let (Some(seal), Some(listen), Some(control), Some(Some(providers))) = (&seal, &listen, &control, &providers) {
        let own = [listen.socket.as_path(), &control.socket, &control.status_socket];
        providers::check_beside(&mut problems, &mut warnings, &providers.list, seal, &own);
    }
    if let (Some(sandbox), Some(Some(providers))) = (&sandbox, &providers) {
        sandbox::warn_of_files(&mut warnings, sandbox, &providers.list, path);
    }
    match (cluster, state_dir, listen, control, seal, max_age, providers, sandbox) {
        (
            Some(cluster),
            Some(state_dir),
            Some(listen),
            Some(control),
            Some(seal),
            Some(max_age),
            Some(providers),
            Some(sandbox),
        ) if problems.0.is_empty() => Ok(Config {
            path: path.to_owned(),
            warnings: warnings.0,
            cluster,
            state_dir,
            listen,
            control_socket: control.socket,
            status_socket: control.status_socket,
            status_group: control.status_group,
            seal,
            max_age,
            providers,
            sandbox,
            watch: watch.unwrap_or(false),
            log_format: log.format.unwrap_or_default(),
            log_level: log.level.unwrap_or_default(),
        }),
        _ => Err(problems.0),
    }
}

fn check_listen(problems: &mut Problems, warnings: &mut Problems, listen: raw::Listen) -> Option<api::Settings> {
    let raw::Listen { socket, mode, allow_users, apis, v2_version } = listen;
    let socket = sockets::own(problems, "listen.socket", socket, KMS_SOCKET);
    let mode = check_mode(problems, mode);
    let users = allow_users.unwrap_or_else(|| vec![toml::Value::String("root".into())]);
    if users.is_empty() {
        problems.add("listen.allow_users", "is empty: write the user that kube-apiserver runs as, usually [\"root\"]");
    }
    let uids: Vec<u32> =
        users.iter().enumerate().filter_map(|(index, user)| check_user(problems, index, user)).collect();
    let apis = check_apis(problems, apis);
    if apis.as_ref().is_some_and(|apis| apis.as_slice() == [Api::V1]) {
        warnings.add("listen.apis", "only v1beta1, which Kubernetes has deprecated since 1.28");
    }
    let v2_version = match v2_version.as_deref() {
        None | Some("v2") => Some(V2Version::V2),
        Some("v2beta1") => Some(V2Version::V2beta1),
        Some(other) => {
            problems.add("listen.v2_version", format!("{other:?} is neither \"v2\" nor \"v2beta1\""));
            None
        }
    };
    Some(api::Settings { socket: socket?, mode: mode?, allow_uids: uids, apis: apis?, v2_version: v2_version? })
}

fn check_mode(problems: &mut Problems, mode: Option<String>) -> Option<u32> {
    let Some(text) = mode else { return Some(api::Settings::DEFAULT_MODE) };
    match u32::from_str_radix(&text, 8) {
        Ok(mode @ (0o600 | 0o660)) => Some(mode),
        _ => {
            problems.add("listen.mode", "must be \"0600\" or \"0660\": only owner and group may connect");
            None
        }
    }
}

fn check_user(problems: &mut Problems, index: usize, user: &toml::Value) -> Option<u32> {
    problems.keep(&format!("listen.allow_users[{index}]"), uid_of(user))
}

/// The name or number of a user who is let in.
pub(super) fn uid_of(user: &toml::Value) -> Result<u32, String> {
    let uid = match user {
        // The last one is no user: (uid_t) -1 means "none" to the kernel.
        toml::Value::Integer(uid) => {
            u32::try_from(*uid).ok().filter(|uid| *uid != u32::MAX).ok_or_else(|| "is no uid".to_owned())
        }
        toml::Value::String(name) => match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) | Err(_) => Err(format!("there is no user {name:?} on this machine")),
        },
        _ => Err("is a user's name or a uid".to_owned()),
    }?;
    if uid == OVERFLOW_UID {
        let text = "is uid 65534, which stands for every user whom nodeseald's user namespace does not show: name the user \
                    that it really is, and write PrivateUsers=identity (systemd 257) or =no by a drop-in";
        return Err(text.to_owned());
    }
    Ok(uid)
}

fn check_apis(problems: &mut Problems, apis: Option<Vec<String>>) -> Option<Vec<Api>> {
    let Some(names) = apis else { return Some(vec![Api::V1, Api::V2]) };
    let mut found = Vec::new();
    for name in &names {
        match name.as_str() {
            "v1beta1" => found.push(Api::V1),
            "v2" => found.push(Api::V2),
            other => problems.add("listen.apis", format!("{other:?} is neither \"v2\" nor \"v1beta1\"")),
        }
    }
    if names.is_empty() {
        problems.add("listen.apis", "names no API: write [\"v2\"] or [\"v2\", \"v1beta1\"]");
    }
    Some(found)
}

fn check_seal(problems: &mut Problems, warnings: &mut Problems, seal: raw::Seal, systemd: Option<u32>) -> Option<Seal> {
    let raw::Seal { backend, socket, tpm2, pkcs11 } = seal;
    let backend = match backend {
        None => Some(Backend::Tpm2),
        Some(name) => problems.keep("seal.backend", name.parse().map_err(|error| format!("{name:?}: {error}"))),
    };
    let pkcs11 = pkcs11::check(problems, warnings, pkcs11, backend, socket.is_some());
    let socket = match socket {
        Some(path) => Some(sockets::own(problems, "seal.socket", Some(path), "")?),
        None => None,
    };
    let policy = check_policy(problems, warnings, &tpm2, systemd);
    if tpm2.device.as_deref().is_some_and(|device| device.starts_with("/dev/tpm") && !device.starts_with(TPM_DEVICES)) {
        warnings.add("seal.tpm2.device", "can be used by one program at a time: write \"/dev/tpmrm0\"");
    }
    let device = problems.keep("seal.tpm2.device", tpm2.device.as_deref().unwrap_or(TPM_DEVICE).parse::<TpmDevice>());
    let parent_handle = match tpm2.parent_handle {
        None => Some(DEFAULT_PARENT_HANDLE),
        Some(handle) => {
            let owned = u32::try_from(handle).ok().filter(|handle| OWNER_PERSISTENT_HANDLES.contains(handle));
            problems.keep(
                "seal.tpm2.parent_handle",
                owned.ok_or("is a persistent handle of the owner, from 0x81000000 to 0x817fffff"),
            )
        }
    };
    let guard = check_rollback(problems, &tpm2);
    let allow_software_tpm = tpm2.allow_software_tpm.unwrap_or(false);
    if allow_software_tpm && backend != Some(Backend::Pkcs11) {
        warnings.add("seal.tpm2.allow_software_tpm", "a software TPM protects nothing: for tests only");
    }
    Some(Seal {
        socket,
        backend: backend?,
        tpm2: TpmSettings { device: device?, parent_handle: parent_handle?, allow_software_tpm },
        pkcs11: pkcs11?,
        policy: policy?,
        guard: guard?,
    })
}

/// The NV index of the counter that the state directory is bound to, if any.
fn check_rollback(problems: &mut Problems, tpm2: &raw::Tpm2) -> Option<Option<u32>> {
    let index = match tpm2.counter_index {
        None => Some(DEFAULT_COUNTER_INDEX),
        Some(index) => {
            let owned = u32::try_from(index).ok().filter(|index| OWNER_NV_INDICES.contains(index));
            problems.keep(
                "seal.tpm2.counter_index",
                owned.ok_or("is an NV index of the owner, from 0x01800000 to 0x01bfffff"),
            )
        }
    };
    match tpm2.rollback.as_deref() {
        None | Some("none") if tpm2.counter_index.is_none() => Some(None),
        None | Some("none") => {
            problems.add("seal.tpm2.counter_index", "has no effect without rollback = \"tpm-counter\"");
            None
        }
        Some("tpm-counter") => index.map(Some),
        Some(other) => {
            problems.add("seal.tpm2.rollback", format!("{other:?} is neither \"none\" nor \"tpm-counter\""));
            None
        }
    }
}

fn check_policy(
    problems: &mut Problems,
    warnings: &mut Problems,
    tpm2: &raw::Tpm2,
    systemd: Option<u32>,
) -> Option<SealPolicy> {
    match (tpm2.policy.as_deref().unwrap_or("none"), &tpm2.pcrs) {
        ("none", None) if tpm2.pcr_bank.is_none() => Some(SealPolicy::None),
        ("none", _) => {
            problems.add("seal.tpm2.pcrs", "has no effect without policy = \"pcr\"");
            None
        }
        ("pcr", None) => {
            problems.add("seal.tpm2.pcrs", "write the PCRs to bind to, such as pcrs = [0, 2, 4]");
            None
        }
        ("pcr", Some(numbers)) => {
            let bank = match tpm2.pcr_bank.as_deref() {
                None | Some("sha256") => PcrBank::Sha256,
                Some("sha384") => PcrBank::Sha384,
                Some(other) => {
                    problems.add("seal.tpm2.pcr_bank", format!("{other:?} is neither \"sha256\" nor \"sha384\""));
                    return None;
                }
            };
            let numbers: Vec<u8> = numbers.iter().map(|number| u8::try_from(*number).unwrap_or(u8::MAX)).collect();
            let pcrs = problems.keep("seal.tpm2.pcrs", PcrSet::from_numbers(&numbers))?;
            let lint = lint(pcrs, systemd);
            for number in &lint.refused {
                problems.add(
                    "seal.tpm2.pcrs",
                    format!("PCR {number} can be reset by software or is not measured at boot: remove it"),
                );
            }
            lint.warnings.iter().for_each(|why| warnings.add("seal.tpm2.pcrs", why.as_str()));
            lint.refused.is_empty().then_some(SealPolicy::Pcr { bank, pcrs })
        }
        ("signed-pcr", _) => {
            problems.add("seal.tpm2.policy", "\"signed-pcr\" is not in this release: write \"none\" or \"pcr\"");
            None
        }
        (other, _) => {
            problems.add("seal.tpm2.policy", format!("{other:?} is neither \"none\" nor \"pcr\""));
            None
        }
    }
}

fn check_local_kek(problems: &mut Problems, local_kek: raw::LocalKek) -> Option<MaxAge> {
    let Some(text) = local_kek.max_age else { return Some(MaxAge::DEFAULT) };
    let bounds =
        || format!("{text:?} is not a time from {} to {}, such as \"90d\"", days(MaxAge::MIN), days(MaxAge::MAX));
    match humantime::parse_duration(&text).ok().and_then(MaxAge::new) {
        Some(age) => Some(age),
        None => {
            problems.add("local_kek.max_age", bounds());
            None
        }
    }
}

fn days(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

pub(super) fn absolute(problems: &mut Problems, key: &str, path: Option<String>, default: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path.unwrap_or_else(|| default.to_owned()));
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        problems
            .add(key, format!("{:?} has a zero byte in it, where the kernel would end it", path.display().to_string()));
        return None;
    }
    if path.is_absolute() && path.file_name().is_some() {
        Some(path)
    } else {
        problems.add(key, format!("{:?} is not an absolute path", path.display().to_string()));
        None
    }
}
