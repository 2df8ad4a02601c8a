//! What this process has counted, as metrics. Names of calls are those of OpenTelemetry's conventions for RPC (1.45) in the form that
//! Prometheus gives them, with the unit of Prometheus.

use super::{Bucket, Durations, Family, Kind, Sample};
use crate::telemetry::{self, CALLS, DEVICE, Named, PROVIDERS, Refused, Served, Source, Spread};

/// See the module.
pub(crate) fn measured() -> Vec<Family> {
    let in_flight = Family::is(
        "nodeseal_rpc_server_calls_in_flight",
        "Calls of the KMS API that have begun and not ended.",
        CALLS.in_flight(),
    );
    let refused =
        Family::of(Kind::Counter, "nodeseal_refused", "Calls and connections that were turned away, by reason.");
    let refused = Refused::ALL
        .iter()
        .fold(refused, |family, why| family.with(&[("reason", why.label())], telemetry::refused_so_far(*why)));
    let help = "Decrypts that succeeded, by where their KEK was.";
    let decrypts = Family::of(Kind::Counter, "nodeseal_decrypts", help);
    let decrypts = Source::ALL.iter().fold(decrypts, |family, source| {
        family.with(&[("source", source.label())], telemetry::decrypted_so_far(*source))
    });
    let all =
        [calls(&CALLS.read()), in_flight, refused, decrypts, providers(&PROVIDERS.read()), device(&DEVICE.read())];
    all.into_iter().filter(|family| !family.samples.is_empty()).collect()
}

fn calls(all: &[Served]) -> Family {
    let help = "Duration of calls of the KMS API, from their first line to their answer.";
    let mut family = Family::of(Kind::Histogram, "nodeseal_rpc_server_call_duration_seconds", help);
    for Served { method, code, spread } in all {
        let labels = [("rpc_method", *method), ("rpc_response_status_code", *code)];
        family.samples.push(durations(&labels, spread));
    }
    family
}

fn providers(all: &[Named]) -> Family {
    let help = "Duration of calls to providers, by class; ok if they succeeded.";
    let mut family = Family::of(Kind::Histogram, "nodeseal_provider_call_duration_seconds", help);
    for Named { name, operation, class, spread } in all {
        family.samples.push(durations(&[("provider", name), ("operation", operation), ("class", class)], spread));
    }
    family
}

fn device(all: &[Named]) -> Family {
    let help = "Duration of questions to the sealing device, by class; ok if they succeeded.";
    let mut family = Family::of(Kind::Histogram, "nodeseal_device_question_duration_seconds", help);
    for Named { operation, class, spread, .. } in all {
        family.samples.push(durations(&[("operation", operation), ("class", class)], spread));
    }
    family
}

fn durations(labels: &[(&'static str, &str)], spread: &Spread) -> Sample {
    let bucket =
        |(up_to_nanoseconds, count): &(u64, u64)| Bucket { up_to_nanoseconds: *up_to_nanoseconds, count: *count };
    let durations = Durations { sum_nanoseconds: spread.nanos, buckets: spread.within.iter().map(bucket).collect() };
    Sample::new(labels, spread.count(), Some(durations))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::table::of_status;
    use super::super::{SERIES_MAX, openmetrics};
    use super::*;
    use crate::control::needs::Need;
    use crate::control::report::Status;
    use crate::telemetry::{Calls, DEVICE_SETS_MAX, Method, OTHER, PROVIDER_SETS_MAX, Sets};

    /// Everything there is, six providers (the most), of which each fails, and callers who provoke every code.
    #[test]
    fn the_worst_node_has_no_more_series_than_its_bound() {
        let providers: Vec<_> = (0..6)
            .map(|number| {
                json!({
                    "name": format!("provider-{number}"), "kind": "vault", "role": "optional", "opens_foreign": true, "key": null, "version": null,
                    "answered_seconds_ago": 1, "class": "denied", "error": "words of a server", "held_back": true,
                    "login_ends_in_seconds": 1, "certificate_ends_in_seconds": 1,
                })
            })
            .collect();
        let status: Status = serde_json::from_value(json!({
            "healthy": true, "version": "1", "pid": 1, "uptime_seconds": 1, "cluster": "", "socket": "", "key_id": null,
            "key_id_hash": "sha256:00", "uses": 1, "keys": 1, "keys_usable": 1, "seal_policy": "none", "warnings": [],
            "seal_backend": "tpm2", "due": 1, "would_open": true, "recovery_rehearsed": 1, "etcd_scanned": 1,
            "seal_error": "x", "seal_retry_in_seconds": 1, "mode": "rooted", "providers": providers,
            "sandbox": {
                "uid": 1, "no_capabilities": true, "landlock": "full", "landlock_abi": 6, "seccomp": "nodeseald", "memory": "secret",
            },
        }))
        .unwrap();
        let calls_of_all = Calls::new();
        for path in ["/v2.KeyManagementService/Status", "/v2.KeyManagementService/Encrypt", "/x"] {
            (0..17).for_each(|code| calls_of_all.begin(Method::of(path)).ends(Some(code)));
        }
        let (remote, own) = (Sets::new(&[1; 6], PROVIDER_SETS_MAX), Sets::new(&[1; 6], DEVICE_SETS_MAX));
        for number in 0..6 {
            for operation in ["login", "probe", "wrap", "unwrap"] {
                for class in ["ok", "denied", "unavailable"] {
                    remote.note(&format!("provider-{number}"), operation, class, Duration::ZERO);
                    own.note("", operation, class, Duration::ZERO);
                }
            }
        }
        let mut all = of_status(&status, true);
        all.extend(measured().into_iter().filter(|family| family.kind != Kind::Histogram));
        all.extend([calls(&calls_of_all.read()), super::providers(&remote.read()), device(&own.read())]);
        let series: usize = all.iter().map(Family::series).sum();
        assert!((400..=SERIES_MAX).contains(&series), "{series}");
        let text = openmetrics::text(all);
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), series, "as they are counted");
        assert!(!text.contains("words of a server") && text.contains(OTHER), "{text}");
        assert!(Need::KINDS.iter().all(|kind| text.contains(&format!("nodeseal_needs_operator{{kind=\"{kind}\"}}"))));
    }
}
