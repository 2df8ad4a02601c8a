//! What a status tells, as metrics. All are gauges: each can fall, uses of the active KEK with every rotation.

use super::Family;
use crate::control::needs::{Need, needs};
use crate::control::report::{ProviderRow, Status};
use crate::sandbox::{Enforced, Protection};
use crate::types::{Class, clock};

/// The one that is always there.
pub(crate) fn up_family(is_up: bool) -> Family {
    Family::is("nodeseal_up", "Whether nodeseald answers on its control socket or status socket.", is_up)
}

/// All that a status tells. `is_broken`: the configuration cannot be used any more.
pub(super) fn of_status(status: &Status, is_broken: bool) -> Vec<Family> {
    let mut all = vec![
        up_family(true),
        Family::new("nodeseal_build_info", "Release of nodeseald.").with(&[("version", &status.version)], true),
        Family::is("nodeseal_healthy", "Whether an Encrypt would succeed.", status.healthy),
        Family::is("nodeseal_uptime_seconds", "Seconds since nodeseald started.", status.uptime_seconds),
        Family::is(
            "nodeseal_outage_seconds",
            "For how long too few healthy providers have been there to wrap a new KEK.",
            status.outage_seconds,
        ),
        Family::is("nodeseal_stops_writes", "Whether kube-apiserver is told not to write.", status.stops_writes),
        Family::is(
            "nodeseal_key_id_waits",
            "Whether the key_id does not name the providers' current keys yet.",
            status.waits.is_some(),
        ),
        Family::is(
            "nodeseal_config_pending",
            "Settings of the configuration that wait for a restart or a reseal.",
            count(status.pending.len()),
        ),
        Family::is("nodeseal_config_warnings", "Warnings of the configuration.", count(status.warnings.len())),
        Family::is(
            "nodeseal_log_lines_dropped",
            "Lines of the log that were dropped since the start, because nobody read them.",
            status.log_lines_dropped,
        ),
        Family::new("nodeseal_mode_info", "How DEKs are encrypted.").with(&[("mode", &status.mode)], true),
    ];
    let refused = Family::new("nodeseal_decrypts_refused", "Decrypts that were refused since the start, by class.");
    let refused = Class::ALL.iter().fold(refused, |family, class| {
        let count = status.decrypts_refused.get(class.label()).copied().unwrap_or_default();
        family.with(&[("class", class.label())], count)
    });
    all.push(refused);
    if status.keys_known {
        all.extend(of_keys(status));
    }
    if let Some(would_open) = status.would_open {
        let help = "Whether the sealing device opened the node root at the last check.";
        all.push(Family::is("nodeseal_seal_would_open", help, would_open));
    }
    if let Some(at) = status.recovery_rehearsed {
        let help = "When a recovery file with all KEKs of that time was last opened to see what it opens.";
        all.push(Family::is("nodeseal_recovery_rehearsed_timestamp_seconds", help, at));
        let help = "Seconds since a recovery file was last rehearsed.";
        all.push(Family::is("nodeseal_recovery_rehearsal_age_seconds", help, clock::now().saturating_sub(at)));
        let help = "Whether a KEK is younger than the last rehearsal.";
        all.push(Family::is("nodeseal_recovery_rehearsal_lacks_kek", help, status.rehearsal_lacks_kek));
    }
    if let Some(at) = status.etcd_scanned {
        let help = "When the last complete scan of etcd began.";
        all.push(Family::is("nodeseal_etcd_scan_timestamp_seconds", help, at));
        let help = "Seconds since the last complete scan of etcd began.";
        all.push(Family::is("nodeseal_etcd_scan_age_seconds", help, clock::now().saturating_sub(at)));
    }
    if let Some(due) = status.due {
        let help = "Seconds until the active local KEK is due for replacement by its age; 0 from then on.";
        all.push(Family::is("nodeseal_active_kek_due_in_seconds", help, due.saturating_sub(clock::now())));
        let help = "Whether the active local KEK is due for replacement, by age or by use.";
        all.push(Family::is("nodeseal_active_kek_overdue", help, status.overdue));
    }
    if let Some(uses) = status.uses {
        all.push(Family::is(
            "nodeseal_active_kek_uses",
            "Encryptions with the active local KEK; an upper bound.",
            uses,
        ));
    }
    if let Some(hash) = &status.key_id_hash {
        let help = "The reported key_id, hashed as kube-apiserver's own metrics do.";
        all.push(Family::new("nodeseal_key_id_info", help).with(&[("key_id_hash", hash)], true));
    }
    if let (Some(backend), Some(policy)) = (&status.seal_backend, &status.seal_policy) {
        let seal = Family::new("nodeseal_seal_info", "The device that seals the node root, and the policy.");
        all.push(seal.with(&[("backend", backend), ("policy", policy)], true));
    }
    let needs = needs(status, is_broken);
    let help = "Whether something of this kind waits for the operator; `nodeseal status` says what to do.";
    let family = Need::KINDS.iter().fold(Family::new("nodeseal_needs_operator", help), |family, kind| {
        family.with(&[("kind", kind)], needs.iter().any(|need| need.kind == *kind))
    });
    all.push(family);
    if let Some(seconds) = status.seal_retry_in_seconds {
        let help = "Seconds until the closed keys are tried again; 0 during a try.";
        all.push(Family::is("nodeseal_seal_retry_in_seconds", help, seconds));
    }
    all.extend(status.sandbox.iter().flat_map(sandbox));
    all.extend(providers(&status.providers));
    all
}

/// What only open keys can tell.
fn of_keys(status: &Status) -> Vec<Family> {
    vec![
        Family::is("nodeseal_keys", "Local KEKs that are not destroyed.", count(status.keys)),
        Family::is("nodeseal_keys_usable", "Local KEKs that decrypt.", count(status.keys_usable)),
        Family::is(
            "nodeseal_wraps_owed",
            "Missing copies of KEKs, which the providers still have to make.",
            count(status.wraps_owed),
        ),
        Family::is(
            "nodeseal_texts_short_of_wraps",
            "Ciphertexts that were given out with too few copies of their KEK; an upper bound.",
            status.texts_short_of_wraps,
        ),
        Family::is("nodeseal_rollback_guarded", "Whether an old state directory would be detected.", status.guarded),
        Family::is(
            "nodeseal_recovery_recipients",
            "Recipients of the recovery file.",
            count(status.recovery_recipients.len()),
        ),
    ]
}

fn sandbox(enforced: &Enforced) -> Vec<Family> {
    let is_filtered = !["none", "off"].contains(&enforced.seccomp.as_str());
    let layers = Family::new("nodeseal_sandbox_enforced", "Whether this layer of the confinement is fully in force.")
        .with(&[("layer", "capabilities")], enforced.no_capabilities)
        .with(&[("layer", "landlock")], enforced.landlock == "full")
        .with(&[("layer", "seccomp")], is_filtered);
    let memory = enforced.memory.map(|held| {
        let family = Family::new("nodeseal_secret_memory", "The protection of the weakest page with keys.");
        Protection::ALL.iter().fold(family, |family, kind| family.with(&[("kind", kind.label())], *kind == held))
    });
    [layers].into_iter().chain(memory).collect()
}

fn providers(rows: &[ProviderRow]) -> Vec<Family> {
    let mut up = Family::new("nodeseal_provider_up", "Whether the provider works; absent before its first use.");
    let mut failing =
        Family::new("nodeseal_provider_failing", "The class of the provider's last failure, while it fails.");
    let mut held_back =
        Family::new("nodeseal_provider_held_back", "Whether no call is made to the provider for a while.");
    let mut age = Family::new("nodeseal_provider_answer_age_seconds", "Seconds since the provider's last success.");
    let help = "Seconds until the login to the provider ends, if it is not renewed before.";
    let mut login = Family::new("nodeseal_provider_login_ends_in_seconds", help);
    let help = "Seconds until the provider's TLS certificate ends, as it was last shown.";
    let mut certificate = Family::new("nodeseal_provider_certificate_ends_in_seconds", help);
    for row in rows {
        let labels = [("provider", row.name.as_str()), ("kind", &row.kind), ("role", &row.role)];
        if row.class.is_some() || row.answered_seconds_ago.is_some() {
            up = up.with(&labels, row.class.is_none());
        }
        if let Some(class) = &row.class {
            failing = failing.with(&[("provider", &row.name), ("class", class)], true);
        }
        held_back = held_back.with(&[("provider", &row.name)], row.held_back);
        if let Some(seconds) = row.answered_seconds_ago {
            age = age.with(&[("provider", &row.name)], seconds);
        }
        if let Some(seconds) = row.login_ends_in_seconds {
            login = login.with(&[("provider", &row.name)], seconds);
        }
        if let Some(seconds) = row.certificate_ends_in_seconds {
            certificate = certificate.with(&[("provider", &row.name)], seconds);
        }
    }
    [up, failing, held_back, age, login, certificate].into_iter().filter(|family| !family.samples.is_empty()).collect()
}

fn count(number: usize) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::openmetrics;
    use super::*;

    #[test]
    fn a_provider_that_was_not_asked_is_neither_up_nor_down_and_one_that_fails_says_how() {
        let row = |name: &str, class: Option<&str>, answered| ProviderRow {
            opens_foreign: false,
            name: name.to_owned(),
            kind: "vault".to_owned(),
            role: "required".to_owned(),
            key: None,
            version: None,
            answered_seconds_ago: answered,
            class: class.map(ToOwned::to_owned),
            error: Some("what a server said belongs into no label".to_owned()),
            held_back: class.is_some(),
            login_ends_in_seconds: answered,
            certificate_ends_in_seconds: None,
        };
        let text = openmetrics::text(providers(&[
            row("new", None, None),
            row("bad", Some("denied"), Some(9)),
            row("good", None, Some(3)),
        ]));
        let up: Vec<_> = text.lines().filter(|line| line.starts_with("nodeseal_provider_up{")).collect();
        assert!(up.len() == 2 && up[0].contains("\"bad\"") && up[0].ends_with(" 0") && up[1].ends_with(" 1"), "{up:?}");
        assert!(text.contains("nodeseal_provider_failing{class=\"denied\",provider=\"bad\"} 1\n"), "{text}");
        assert!(text.contains("nodeseal_provider_answer_age_seconds{provider=\"bad\"} 9\n"), "{text}");
        assert!(text.contains("nodeseal_provider_login_ends_in_seconds{provider=\"good\"} 3\n"), "{text}");
        assert!(!text.contains("server said") && !text.contains("certificate"), "{text}");
        assert!(providers(&[]).is_empty());
    }
}
