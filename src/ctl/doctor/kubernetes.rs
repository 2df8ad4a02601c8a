//! What kube-apiserver is told: the EncryptionConfiguration that it really uses, by the rules of `k8s.io/apiserver`
//! (`etcd::wanted`), and by those of auditors, evaluated to the letter.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::apiserver::{Apiserver, Encryption, FLAG};
use super::check::Check;
use super::finding::{Finding, Impact, Looked};
use super::scene::Scene;
use crate::ctl::apiserver::processes;
use crate::ctl::output::{counted, time};
use crate::envelope::Api;
use crate::etcd::wanted::{Wanted, Writer, socket};
use crate::types::{Chain, Explained};

const PAGE: &str = "operations/encryption.md";

const fn check(id: &'static str, title: &'static str, impact: Impact, look: fn(&Scene) -> Looked) -> Check {
    Check { id, title, impact, page: PAGE, look }
}

pub(super) const CHECKS: &[Check] = &[
    check("ND-301", "kube-apiserver is told to encrypt (CIS 1.2.27)", Impact::Confidentiality, is_told),
    check("ND-302", "the EncryptionConfiguration can be used", Impact::Boot, is_usable),
    check("ND-303", "no resource is written in clear (STIG V-274882)", Impact::Confidentiality, nothing_in_clear),
    check("ND-304", "a KMS writes each resource", Impact::Confidentiality, kms_first),
    check("ND-305", "Secrets are encrypted (STIG V-274882)", Impact::Confidentiality, secrets),
    check("ND-306", "every resource is encrypted", Impact::Confidentiality, every_resource),
    check("ND-307", "nothing in clear is read", Impact::Confidentiality, identity_last),
    check("ND-308", "KMS v2 is used", Impact::Serving, version_two),
    check("ND-309", "the endpoint is this node's", Impact::Serving, endpoint),
    check("ND-310", "the timeout suits", Impact::Serving, timeout),
    check("ND-311", "no former provider is left", Impact::Confidentiality, former),
    check("ND-312", "the EncryptionConfiguration is closed to others", Impact::Confidentiality, closed),
    Check {
        page: "operations/kubeadm.md",
        ..check("ND-313", "kube-apiserver has the folder of the socket", Impact::Serving, same_folder)
    },
    check("ND-314", "an auditor's tool sees the provider (CIS 1.2.28)", Impact::Evidence, cis_provider),
    check("ND-315", "kube-apiserver uses strong ciphers alone (CIS 1.2.29)", Impact::Evidence, cis_ciphers),
];

fn encryption(scene: &Scene) -> Result<(Apiserver, Encryption), Finding> {
    let apiserver = Apiserver::find(scene)?;
    let encryption = apiserver.encryption(scene)?;
    Ok((apiserver, encryption))
}

const TELL: &str =
    "write the file (nodeseal encryption-config), and name it in --encryption-provider-config of kube-apiserver";

fn is_told(scene: &Scene) -> Looked {
    let apiserver = Apiserver::find(scene)?;
    let all: Vec<&str> = apiserver.flags.all(FLAG).collect();
    Ok(match all.as_slice() {
        [] | [.., ""] => Finding::fail(format!("{} does not name an EncryptionConfiguration", apiserver.said_in), TELL),
        [path] => Finding::pass(format!("{path}, by {}", apiserver.said_in)),
        [.., last] => Finding::warn(
            format!("--{FLAG} stands {} times in {}, and the last one counts: {last}", all.len(), apiserver.said_in),
            "leave only one",
        ),
    })
}

fn is_usable(scene: &Scene) -> Looked {
    let apiserver = Apiserver::find(scene)?;
    let path = apiserver.encryption_path()?;
    let text = match scene.read(&path) {
        Ok(text) => text,
        Err(super::scene::Unread::Denied) => return Err(super::scene::Unread::Denied.skipped(&path)),
        Err(unread) => {
            return Ok(Finding::fail(unread.text(&path), format!("kube-apiserver does not start without it: {TELL}")));
        }
    };
    Ok(match Wanted::parse(&text) {
        Ok(_) => Finding::pass(format!("{} is understood", path.display())),
        Err(error) => Finding::fail(
            format!("{}: {}", path.display(), Chain(&error)),
            format!("kube-apiserver does not start with it; {}", error.hint()),
        ),
    })
}

/// Names whose first provider is of this kind.
fn written_by(wanted: &Wanted, is: fn(&Writer) -> bool) -> Vec<&str> {
    wanted.names().into_iter().filter(|name| wanted.named(name).first().is_some_and(|writer| is(writer))).collect()
}

fn nothing_in_clear(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, path, .. }) = encryption(scene)?;
    let clear = written_by(&wanted, |writer| *writer == Writer::Identity);
    // Kubernetes' own pages leave out events by a rule of their own beside a wildcard.
    let is_exception = |name: &&str| !name.starts_with('*') && *name != "secrets";
    let named = clear.join(", ");
    Ok(match clear.as_slice() {
        [] => Finding::pass("identity is the first provider of no resource"),
        all if all.iter().all(is_exception) => {
            let why = format!("identity is the first provider of {named}, which is stored in clear");
            Finding::warn(why, "leave it so only if nothing in these resources is secret")
        }
        _ => Finding::fail(
            format!("identity is the first provider of {named} in {}, so it is stored in clear", path.display()),
            "put the provider kms first, then rewrite what is stored (docs/operations/encryption.md)",
        ),
    })
}

fn kms_first(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, .. }) = encryption(scene)?;
    let local = written_by(&wanted, |writer| matches!(writer, Writer::Local { .. }));
    Ok(match local.is_empty() {
        true => Finding::pass("no key in a file writes anything"),
        false => Finding::warn(
            format!("a key in the file itself writes {}: whoever reads the file reads them", local.join(", ")),
            "put the provider kms first on all servers, as soon as all of them can read with it",
        ),
    })
}

fn secrets(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, path, .. }) = encryption(scene)?;
    Ok(match wanted.of("secrets").first() {
        Some(Writer::Kms { name, .. }) => Finding::pass(format!("the provider {name} writes them")),
        Some(Writer::Local { key, .. }) => Finding::pass(format!("the local key {key} writes them (ND-304)")),
        Some(Writer::Identity) => Finding::fail("they are written in clear", "see ND-303"),
        None => Finding::fail(
            format!("no rule of {} is for secrets", path.display()),
            "add secrets to its resources, then rewrite all Secrets",
        ),
    })
}

fn every_resource(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, .. }) = encryption(scene)?;
    Ok(match wanted.named("*.*").is_empty() {
        false => Finding::pass("there is a rule for *.*"),
        true => Finding::warn(
            format!(
                "what these rules do not name is stored in clear: {}",
                wanted.names().into_iter().collect::<Vec<_>>().join(", ")
            ),
            "name what else is secret, such as configmaps and custom resources: nodeseal encryption-config --resources",
        ),
    })
}

fn identity_last(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, .. }) = encryption(scene)?;
    let reads = |name: &&str| wanted.named(name).iter().skip(1).any(|writer| **writer == Writer::Identity);
    let names: Vec<&str> = wanted.names().into_iter().filter(reads).collect();
    if names.is_empty() {
        return Ok(Finding::pass("identity is behind no other provider"));
    }
    let scanned = match scene.status().ok().and_then(|status| status.etcd_scanned) {
        Some(at) => format!("etcd was last scanned at {}", time(at)),
        None => "no scan of etcd is on record".to_owned(),
    };
    Ok(Finding::warn(
        format!(
            "identity still reads {}: whoever writes to etcd can put objects in clear there; {scanned}",
            names.join(", ")
        ),
        "when `nodeseal etcd scan` finds nothing in clear, remove it (nodeseal encryption-config --no-identity)",
    ))
}

/// The providers with a socket, each once.
fn plugins(wanted: &Wanted) -> Vec<&Writer> {
    let mut found: Vec<&Writer> = Vec::new();
    for writer in wanted.names().into_iter().flat_map(|name| wanted.named(name)) {
        if matches!(writer, Writer::Kms { .. }) && !found.contains(&writer) {
            found.push(writer);
        }
    }
    found
}

fn version_two(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, .. }) = encryption(scene)?;
    let old: Vec<&str> = plugins(&wanted)
        .into_iter()
        .filter_map(|writer| match writer {
            Writer::Kms { api: Api::V1, name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    Ok(match (old.is_empty(), plugins(&wanted).is_empty()) {
        (_, true) => Finding::skip("there is no provider kms"),
        (true, _) => Finding::pass("every provider kms says apiVersion: v2"),
        (false, _) => Finding::warn(
            format!("these providers say apiVersion: v1, or nothing: {}", old.join(", ")),
            "write apiVersion: v2; KMS v1 is slow, and off since Kubernetes 1.29 unless a feature gate turns it on",
        ),
    })
}

/// This node's socket, in one way of writing.
fn own_socket(scene: &Scene) -> Result<String, Finding> {
    Ok(socket(&scene.config()?.listen.socket.display().to_string()))
}

fn endpoint(scene: &Scene) -> Looked {
    let (apiserver, Encryption { wanted, .. }) = encryption(scene)?;
    let own = own_socket(scene)?;
    // A link may stand between both, as where Nodeseal has taken another plugin's place.
    let leads_to = |path: &str| {
        std::fs::canonicalize(path).map_or_else(|_| path.to_owned(), |to| socket(&to.display().to_string()))
    };
    let is_ours = |endpoint: &str| apiserver.socket_of(endpoint).is_some_and(|path| leads_to(&path) == leads_to(&own));
    let plugins = plugins(&wanted);
    let ours = plugins.iter().any(|writer| matches!(writer, Writer::Kms { endpoint, .. } if is_ours(endpoint)));
    let todo = "change `endpoint:` alone, and keep name, resources and all other providers, or what is stored cannot be read; in a pod the folder of the socket must be mounted";
    Ok(match (wanted.of("secrets").first(), ours) {
        (_, false) => Finding::fail(format!("no provider kms has the endpoint unix://{own} of this node"), todo),
        (Some(Writer::Kms { endpoint, name, .. }), true) if !is_ours(endpoint) => {
            let why = format!("{name} writes Secrets, at {endpoint}: that is another plugin, and Nodeseal only reads");
            Finding::warn(why, "put Nodeseal's provider first on all servers, as soon as all of them can read with it")
        }
        (_, true) => Finding::pass(format!("unix://{own}")),
    })
}

/// Nodeseal answers within its own 2.5 s. Above 10 s a start of kube-apiserver, which asks one after the other, looks like a hang.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(10);

fn timeout(scene: &Scene) -> Looked {
    let (_, Encryption { wanted, .. }) = encryption(scene)?;
    let plugins = plugins(&wanted);
    let suits = |text: &str| duration(text).is_some_and(|timeout| TIMEOUTS.contains(&timeout));
    let unfit = plugins.iter().find_map(|writer| match writer {
        Writer::Kms { name, timeout: Some(timeout), .. } if !suits(timeout) => Some((name, timeout)),
        _ => None,
    });
    Ok(match unfit {
        _ if plugins.is_empty() => Finding::skip("there is no provider kms"),
        None => Finding::pass("between 3 s and 10 s, or kube-apiserver's own of 3 s"),
        Some((name, timeout)) => Finding::warn(
            format!("the timeout of {name} is {timeout:?}, and should be from 3s to 10s"),
            "write timeout: 3s",
        ),
    })
}

/// Go's `time.ParseDuration`, without its signs and fractions of nanoseconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|sign: char| sign.is_ascii_digit() || sign == '.').map_or(rest.len(), |at| end + at);
        let seconds = match &rest[end..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number * seconds;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok()).flatten()
}

fn former(scene: &Scene) -> Looked {
    let (apiserver, Encryption { wanted, .. }) = encryption(scene)?;
    let own = own_socket(scene)?;
    let mut left: Vec<String> = Vec::new();
    for writer in wanted.names().into_iter().flat_map(|name| wanted.named(name).into_iter().skip(1)) {
        let name = match writer {
            Writer::Local { key, .. } => format!("the local key {key}"),
            Writer::Kms { endpoint, name, .. } if apiserver.socket_of(endpoint).as_ref() != Some(&own) => {
                format!("the plugin {name}")
            }
            Writer::Kms { .. } | Writer::Identity => continue,
        };
        if !left.contains(&name) {
            left.push(name);
        }
    }
    Ok(match left.is_empty() {
        true => Finding::pass("behind Nodeseal there is none"),
        false => Finding::warn(
            format!("{} still there: {}", counted(left.len(), "former provider"), left.join(", ")),
            "when `nodeseal etcd scan` finds nothing under it, remove it; an old key in a file opens old backups",
        ),
    })
}

fn closed(scene: &Scene) -> Looked {
    let path = Apiserver::find(scene)?.encryption_path()?;
    let meta = scene.meta(&path).map_err(|unread| unread.skipped(&path))?;
    let (mode, name) = (meta.mode() & 0o7777, path.display());
    let close = format!("chown root {name} && chmod 0600 {name}");
    Ok(if meta.uid() != scene.machine.root_uid {
        Finding::fail(format!("{name} belongs to user {}, who can turn encryption off", meta.uid()), close)
    } else if mode & 0o022 != 0 {
        Finding::fail(format!("{name} has mode {mode:04o}: others can turn encryption off"), close)
    } else if mode & 0o077 != 0 {
        Finding::warn(format!("{name} has mode {mode:04o}: others can read it, with the keys that it may hold"), close)
    } else {
        Finding::pass(format!("{name} has mode {mode:04o}"))
    })
}

/// By the manifest, and by what the running process sees, as root may look.
fn same_folder(scene: &Scene) -> Looked {
    let (apiserver, Encryption { wanted, .. }) = encryption(scene)?;
    let own = own_socket(scene)?;
    let inside = plugins(&wanted).into_iter().find_map(|writer| match writer {
        Writer::Kms { endpoint, .. } if apiserver.socket_of(endpoint).as_ref() == Some(&own) => Some(socket(endpoint)),
        _ => None,
    });
    let inside = inside.ok_or_else(|| Finding::skip("no provider kms has this node's endpoint (ND-309)"))?;
    let inside = Path::new(&inside);
    if apiserver.mounts_itself(inside) {
        return Ok(Finding::fail(
            format!(
                "{} mounts the socket itself: after the next start of nodeseal.socket it has a dead one",
                apiserver.said_in
            ),
            "mount its folder instead",
        ));
    }
    let folder = Path::new(&own).parent().unwrap_or(Path::new("/"));
    let seen_from = inside.parent().unwrap_or(Path::new("/"));
    let ours = scene.meta(folder).map_err(|unread| unread.skipped(folder))?;
    if !ours.is_dir() || scene.meta(&own).is_ok_and(|meta| !meta.file_type().is_socket()) {
        let why = format!("{own} is no socket in a folder");
        return Ok(Finding::fail(why, "see who has made it, remove it, and start nodeseal.socket again"));
    }
    let pids = if apiserver.is_a_pod() { processes(&scene.machine) } else { Vec::new() };
    let mut seen = 0;
    for pid in &pids {
        let Ok(theirs) = scene.meta(format!("/proc/{pid}/root{}", seen_from.display())) else { continue };
        seen += 1;
        if (theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino()) {
            return Ok(Finding::fail(
                format!("kube-apiserver (process {pid}) sees another folder {} than the node has", seen_from.display()),
                "the folder was removed and made again since its pod started: restart the pod, and keep the folder (nodeseal.tmpfiles)",
            ));
        }
    }
    Ok(match (apiserver.is_a_pod(), seen) {
        (false, _) => Finding::pass("it sees the files of the node"),
        (true, 0) => Finding::pass(format!("by {}; no running process could be compared", apiserver.said_in)),
        (true, _) => Finding::pass(format!("its process sees the same {}", folder.display())),
    })
}

/// kube-bench, `cfg/cis-1.9` to `cfg/cis-1.12`, 1.2.28: the first word of the line behind the last `providers:`.
fn cis_provider(scene: &Scene) -> Looked {
    let (_, Encryption { text, .. }) = encryption(scene)?;
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().rposition(|line| line.contains("providers:"));
    // `grep -A1 … | tail -n1`: at the end of the file the line itself.
    let line = last.and_then(|at| lines.get(at + 1).or_else(|| lines.get(at))).copied().unwrap_or_default();
    let mut words = line.split(|sign: char| !sign.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    Ok(match words.find(|word| ["aescbc", "kms", "secretbox"].contains(word)) {
        Some(word) => Finding::pass(format!("kube-bench finds {word} behind the last `providers:`")),
        None => Finding::warn(
            "kube-bench finds neither kms, aescbc nor secretbox on the line behind the last `providers:`",
            "write the provider on that very line, as nodeseal encryption-config does; or explain it to the auditor",
        ),
    })
}

/// Those that kube-bench's rule 1.2.29 takes.
const STRONG: [&str; 21] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

fn cis_ciphers(scene: &Scene) -> Looked {
    let apiserver = Apiserver::find(scene)?;
    let named: Vec<&str> = apiserver.flags.all("tls-cipher-suites").flat_map(|list| list.split(',')).collect();
    let weak: Vec<&str> = named.iter().copied().filter(|suite| !STRONG.contains(&suite.trim())).collect();
    let todo = "set --tls-cipher-suites of kube-apiserver to a list of suites that the benchmark names";
    Ok(match (named.is_empty(), weak.is_empty()) {
        (true, _) => Finding::warn("--tls-cipher-suites is not set, which the rule asks for", todo),
        (false, true) => Finding::pass(format!("{} named", counted(named.len(), "suite"))),
        (false, false) => Finding::warn(format!("not of the benchmark's list: {}", weak.join(", ")), todo),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, wanted) in [("3s", 3000), ("1m30s", 90_000), ("2500ms", 2500), ("1.5s", 1500), ("0.5m", 30_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(wanted)), "{text}");
        }
        for text in ["", "3", "s", "3 s", "3x", "-3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
