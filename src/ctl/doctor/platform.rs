//! The machine: its TPM, its clock, its kernel, and its room.
//!
//! What a daemon has got is taken from it (`status`, `/proc/PID/limits`). What only the device tells is asked once, last of all.

use std::path::Path;

use super::check::Check;
use super::finding::{Finding, Impact, Looked};
use super::scene::{Scene, Told};
use crate::ctl::output::counted;
use crate::sandbox::{Mode, Protection};
use crate::sealer::settings::TpmDevice;
use crate::types::Backend;

const fn check(
    id: &'static str,
    title: &'static str,
    impact: Impact,
    page: &'static str,
    look: fn(&Scene) -> Looked,
) -> Check {
    Check { id, title, impact, page, look }
}

const HARDENING: &str = "operations/hardening.md";
const FAULTS: &str = "operations/faults.md";

pub(super) const CHECKS: &[Check] = &[
    check("ND-101", "the TPM is there", Impact::Boot, "operations/install.md", tpm_there),
    check("ND-105", "the clock is right", Impact::Evidence, FAULTS, clock),
    check("ND-106", "the kernel can confine the daemons", Impact::Confidentiality, HARDENING, kernel),
    check("ND-107", "keys are kept out of swap", Impact::Confidentiality, HARDENING, memory),
    check("ND-108", "the machine does not hibernate", Impact::Confidentiality, HARDENING, hibernation),
    check("ND-109", "nothing of Kubernetes reaches a swap file", Impact::Confidentiality, HARDENING, swap),
    check("ND-110", "the state directory has room", Impact::Serving, FAULTS, room),
    check("ND-111", "there are enough descriptors", Impact::Serving, HARDENING, descriptors),
];

/// Those that ask the device.
pub(super) const DEVICE_CHECKS: &[Check] = &[
    check("ND-102", "the TPM answers", Impact::Boot, FAULTS, answers),
    check("ND-103", "the TPM is no software", Impact::Confidentiality, "threat-model.md", no_software),
    check("ND-104", "the TPM is not about to lock itself", Impact::Boot, FAULTS, lockout),
];

fn tpm_there(scene: &Scene) -> Looked {
    let seal = &scene.config()?.seal;
    if seal.backend == Backend::Pkcs11 {
        return Ok(Finding::skip("the node is sealed by a token"));
    }
    let device = match &seal.tpm2.device {
        TpmDevice::Path(path) => path,
        TpmDevice::Swtpm { .. } => return Ok(Finding::skip("the configuration names a software TPM (ND-103)")),
    };
    Ok(match scene.meta(device) {
        Ok(_) => Finding::pass(format!("{} is there", device.display())),
        Err(unread) => Finding::fail(
            unread.text(device),
            "turn the TPM on in the firmware, or give the machine a virtual one; docs/operations/faults.md, E-TPM-NODEV",
        ),
    })
}

fn answers(scene: &Scene) -> Looked {
    let device = scene.device()?;
    Ok(Finding::pass(format!("maker {}, firmware {}", device.manufacturer, device.firmware)))
}

fn no_software(scene: &Scene) -> Looked {
    let device = scene.device()?;
    Ok(match device.software {
        false => Finding::pass(format!("maker {}", device.manufacturer)),
        true => Finding::warn(
            format!("its maker is {}: a software TPM protects only as well as whoever runs it", device.manufacturer),
            "in a virtual machine the host must keep it; anywhere else move the seal to a TPM of hardware (nodeseal reseal), and only then set seal.tpm2.allow_software_tpm = false",
        ),
    })
}

fn lockout(scene: &Scene) -> Looked {
    let device = scene.device()?;
    let counter = format!("{} of {} failures", device.lockout_counter, device.lockout_max);
    Ok(match (device.in_lockout, device.lockout_counter) {
        (true, _) => Finding::fail(
            format!("it is in lockout now: {counter}"),
            "wait, or tpm2_dictionarylockout --clear-lockout; then find out who has used wrong authorisations",
        ),
        (false, 0) => Finding::pass("no failed authorisation is counted"),
        (false, _) => Finding::warn(counter, "find out who uses wrong authorisations; the counter falls by itself"),
    })
}

/// Made by systemd-timesyncd when it has set the clock (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";
/// `/proc/PID/comm` of others that do.
const TIME_DAEMONS: [&str; 6] = ["chronyd", "ntpd", "ntpsec", "openntpd", "phc2sys", "ptp4l"];

fn clock(scene: &Scene) -> Looked {
    if scene.status().is_ok_and(|status| status.clock_doubted) {
        return Ok(Finding::fail("it is behind a KEK that is in use, or behind this release", "set the clock"));
    }
    if scene.meta(TIMESYNCD).is_ok() {
        return Ok(Finding::pass("systemd-timesyncd has set it"));
    }
    let name = |pid: String| scene.read(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned());
    let mut running = scene.processes().into_iter().filter_map(name);
    Ok(match running.find(|name| TIME_DAEMONS.contains(&name.as_str())) {
        Some(name) => Finding::pass(format!("{name} keeps it; whether it has a source, only {name} tells")),
        None => Finding::warn(
            "nothing that sets it was found",
            "run chrony or systemd-timesyncd: certificates, logins and ages of keys go by the clock",
        ),
    })
}

/// Linux, first and second number.
fn release(scene: &Scene) -> Option<(u32, u32)> {
    let text = scene.read("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = text.split(|sign: char| !sign.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// docs/operations/hardening.md: files from 5.13 on, ports from 6.7, all of it from 6.12.
const LANDLOCK_WHOLE: (u32, u32) = (6, 12);

fn kernel(scene: &Scene) -> Looked {
    let requires = scene.config.as_ref().is_ok_and(|config| config.sandbox.mode == Mode::Require);
    let bad = |why: String, todo: &str| if requires { Finding::fail(why, todo) } else { Finding::warn(why, todo) };
    if scene.read("/proc/sys/kernel/seccomp/actions_avail").is_err() {
        return Ok(bad("this kernel has no seccomp filters".to_owned(), "use a kernel with CONFIG_SECCOMP_FILTER"));
    }
    // Mounted for all to read, but not in each container.
    let Ok(modules) = scene.read("/sys/kernel/security/lsm") else {
        return Ok(Finding::skip("/sys/kernel/security/lsm cannot be read; nodeseal status says what is in force"));
    };
    if !modules.trim().split(',').any(|module| module == "landlock") {
        let why = format!("landlock is not among the security modules: {}", modules.trim());
        return Ok(bad(why, "add landlock to lsm= on the kernel command line"));
    }
    Ok(match release(scene) {
        Some(release) if release < LANDLOCK_WHOLE => {
            let why = format!("Linux {}.{} has landlock, but not all that is used", release.0, release.1);
            bad(why, "from Linux 6.12 on all of it is in force")
        }
        Some((major, minor)) => Finding::pass(format!("Linux {major}.{minor} with landlock and seccomp")),
        None => Finding::skip("the kernel's release cannot be read"),
    })
}

fn memory(scene: &Scene) -> Looked {
    let Some(memory) = scene.status()?.sandbox.as_ref().and_then(|sandbox| sandbox.memory) else {
        return Ok(Finding::skip("nodeseald keeps no key in memory now, or does not tell"));
    };
    Ok(match memory {
        Protection::Secret => Finding::pass("they are in secret memory"),
        Protection::Locked => {
            Finding::pass("they are in locked memory; Linux 6.5 has secret memory, which root cannot read")
        }
        Protection::Unlocked => Finding::fail(
            "they are in memory that can reach swap: the limit of locked memory is too low",
            "set LimitMEMLOCK=32M for nodeseal.service, and restart it",
        ),
    })
}

/// Files and partitions of swap. What is compressed in memory is none.
fn swaps(scene: &Scene) -> Result<Vec<String>, Finding> {
    let text = scene.read("/proc/swaps").map_err(|unread| unread.skipped("/proc/swaps"))?;
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| !name.starts_with("/dev/zram")).map(str::to_owned).collect())
}

fn hibernation(scene: &Scene) -> Looked {
    let state = scene.read("/sys/power/state").map(|text| text.trim().to_owned()).unwrap_or_default();
    let how = scene.read("/sys/power/disk").map(|text| text.trim().to_owned()).unwrap_or_default();
    // Linux, Documentation/admin-guide/pm/sleep-states.rst.
    if !state.split_whitespace().any(|word| word == "disk") || how.contains("[disabled]") {
        return Ok(Finding::pass("the kernel does not offer it"));
    }
    if swaps(scene)?.is_empty() {
        return Ok(Finding::pass("there is no swap to hibernate to"));
    }
    let memory = scene.status().ok().and_then(|status| status.sandbox.as_ref()?.memory);
    Ok(match memory {
        Some(Protection::Secret) => Finding::pass("while nodeseald has secret memory, the kernel refuses to"),
        _ => Finding::warn(
            "it can, and what is in memory is then on the disk, keys among it",
            "systemctl mask hibernate.target hybrid-sleep.target suspend-then-hibernate.target",
        ),
    })
}

fn swap(scene: &Scene) -> Looked {
    let swaps = swaps(scene)?;
    Ok(match swaps.is_empty() {
        true => Finding::pass("there is none on a disk"),
        false => Finding::warn(
            format!("{}: Secrets in the memory of kube-apiserver and etcd can reach it", swaps.join(", ")),
            "turn it off, or encrypt it with a key that is new at each boot (crypttab: /dev/urandom, swap)",
        ),
    })
}

/// A change of keys of a full node writes some megabytes, and the previous generation stays beside it. Bytes, and files.
const ROOM_ENOUGH: (u64, u64) = (64 << 20, 1024);
const ROOM_LEAST: (u64, u64) = (4 << 20, 64);

fn room(scene: &Scene) -> Looked {
    let folder = &scene.config()?.state_dir;
    // Before init the file system of the folder above.
    let there = folder.ancestors().find(|path| scene.meta(path).is_ok()).unwrap_or(Path::new("/"));
    let room = (scene.asks.room)(&scene.at(there))
        .map_err(|error| Finding::skip(format!("{} cannot be asked: {error}", there.display())))?;
    let lacks = |(bytes, files): (u64, u64)| room.bytes < bytes || (room.counts_files && room.files < files);
    let files = if room.counts_files { format!(", {} files", room.files) } else { String::new() };
    let why = format!("{} MiB{files} are free for {}", room.bytes >> 20, folder.display());
    let todo = "make room on its file system: KEKs cannot be replaced, and uses cannot be counted, on a full one";
    Ok(match (lacks(ROOM_LEAST), lacks(ROOM_ENOUGH)) {
        (true, _) => Finding::fail(why, todo),
        (false, true) => Finding::warn(why, todo),
        (false, false) => Finding::pass(why),
    })
}

/// 1,024 connections, and 80 for the rest (`api::limits`).
const DESCRIPTORS: u64 = 1024 + 80;

fn descriptors(scene: &Scene) -> Looked {
    let pid = match scene.told() {
        Told::Status(status) => status.pid,
        Told::Away(_) | Told::Silent { .. } => return Err(Finding::skip("nodeseald does not run, or does not tell")),
    };
    let path = format!("/proc/{pid}/limits");
    let limits = scene.read(&path).map_err(|unread| unread.skipped(&path))?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    Ok(match soft.parse::<u64>() {
        Ok(limit) if limit < DESCRIPTORS => Finding::warn(
            format!("nodeseald may have {limit}, and serves fewer connections at once for it"),
            format!("set LimitNOFILE=8192 for nodeseal.service; {DESCRIPTORS} are used at most"),
        ),
        Ok(limit) => Finding::pass(counted(usize::try_from(limit).unwrap_or(usize::MAX), "descriptor")),
        Err(_) if soft == "unlimited" => Finding::pass("no limit"),
        Err(_) => Finding::skip(format!("{path} does not say")),
    })
}
