//! The endpoint of metrics, of a real daemon in its sandbox: what moves when something is done, and who can collect it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use test_support::client::{Client, framed, request};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::metrics::{Samples, parse};

const SOON: Duration = Duration::from_secs(20);

/// Head and body of the answer.
fn get(mut stream: impl Read + Write) -> (String, String) {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.to_owned(), body.to_owned())
}

fn collected(alone: &Alone) -> Samples {
    let (head, body) = get(UnixStream::connect(alone.home().join("run/metrics.sock")).unwrap());
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    parse(&body)
}

fn calls(samples: &Samples, method: &str, code: &str) -> f64 {
    let series = format!(
        "nodeseal_rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\",rpc_response_status_code=\"{code}\"}}"
    );
    samples.get(&series).copied().unwrap_or_default()
}

fn refused(samples: &Samples, reason: &str) -> f64 {
    samples[&format!("nodeseal_refused_total{{reason=\"{reason}\"}}")]
}

#[test]
fn what_is_done_moves_its_own_number_and_the_tool_prints_what_the_endpoint_gives() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    assert_eq!(fs::metadata(alone.home().join("run/metrics.sock")).unwrap().mode() & 0o7777, 0o660);
    let before = collected(&alone);
    let question = "nodeseal_device_question_duration_seconds_count{class=\"ok\",operation=\"unseal\"}";
    assert!(before[question] >= 1.0, "{before:#?}");
    assert_eq!(before["nodeseal_rpc_server_calls_in_flight"], 0.0);

    let stored = client.store().unwrap();
    for _ in 0..3 {
        client.assert_opens(&stored);
    }
    client.status().unwrap();
    client.version("v1beta1").unwrap();
    let old = client.encrypt_v1(b"0123456789abcdef0123456789abcdef").unwrap();
    client.decrypt_v1(&old).unwrap();
    client.decrypt(b"no text of anybody", &stored.key_id).unwrap_err();
    client.decrypt(&stored.text, "").unwrap_err();
    client.body("/v2.KeyManagementService/Frobnicate", Vec::new()).unwrap_err();
    client.body("/v2.KeyManagementService/Decrypt", framed(b"\xff\xff")).unwrap_err();
    client.encrypt(&[7; 200_000]).unwrap_err();
    let after = collected(&alone);
    let v2 = |name: &str| format!("v2.KeyManagementService/{name}");
    let v1 = |name: &str| format!("v1beta1.KeyManagementService/{name}");
    for (method, code, more) in [
        (v2("Encrypt"), "OK", 1.0),
        (v2("Decrypt"), "OK", 3.0),
        (v2("Status"), "OK", 1.0),
        (v1("Version"), "OK", 1.0),
        (v1("Encrypt"), "OK", 1.0),
        (v1("Decrypt"), "OK", 1.0),
        (v2("Decrypt"), "INVALID_ARGUMENT", 3.0),
        (v2("Encrypt"), "RESOURCE_EXHAUSTED", 1.0),
    ] {
        assert_eq!(calls(&after, &method, code) - calls(&before, &method, code), more, "{method} {code}: {after:#?}");
    }
    for (reason, more) in
        [("bad_field", 1.0), ("unknown_method", 1.0), ("not_a_message", 1.0), ("message_too_long", 1.0)]
    {
        assert_eq!(refused(&after, reason) - refused(&before, reason), more, "{reason}");
    }
    let own = "nodeseal_decrypts_total{source=\"sealed_copy\"}";
    assert_eq!(after[own] - before[own], 4.0);
    assert_eq!(after["nodeseal_decrypts_total{source=\"provider\"}"], 0.0);
    assert!(after["nodeseal_active_kek_due_in_seconds"] > 80.0 * 86_400.0);
    // The same names by the tool, and the same numbers but for those that time alone moves.
    let printed = parse(&alone.tool(&["metrics"]).out);
    assert_eq!(printed.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let still = |(series, _): &(&String, &f64)| !series.contains("seconds{") && !series.ends_with("seconds");
    assert_eq!(printed.iter().filter(still).collect::<Vec<_>>(), after.iter().filter(still).collect::<Vec<_>>());
    assert_eq!(alone.stop(), 0);
}

#[test]
fn a_call_that_never_arrives_is_in_flight_and_then_late() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();
    let unfinished = client.begin_and_never_end("/v2.KeyManagementService/Decrypt");
    until(SOON, "it is in flight", || (collected(&alone)["nodeseal_rpc_server_calls_in_flight"] == 1.0).then_some(()));
    until(SOON, "it was late", || (refused(&collected(&alone), "too_slow") == 1.0).then_some(()));
    drop(unfinished);
    let samples = collected(&alone);
    assert_eq!(samples["nodeseal_rpc_server_calls_in_flight"], 0.0);
    assert_eq!(calls(&samples, "v2.KeyManagementService/Decrypt", "DEADLINE_EXCEEDED"), 1.0);
    assert!(client.decrypt_request(request(&stored.text, &stored.key_id)).is_ok());
}

#[test]
fn a_port_of_this_machine_serves_from_within_the_sandbox_and_off_serves_nobody() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    alone.extra = format!("telemetry.metrics = \"127.0.0.1:{port}\"");
    alone.write_config(&tpm);
    let client = alone.start();
    client.store().unwrap();
    let (head, body) = get(TcpStream::connect(("127.0.0.1", port)).unwrap());
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let samples = parse(&body);
    assert_eq!(samples["nodeseal_sandbox_enforced{layer=\"seccomp\"}"], 1.0, "it is confined");
    assert!(calls(&samples, "v2.KeyManagementService/Encrypt", "OK") >= 1.0);
    let pending = |alone: &Alone| alone.tool(&["status", "--json"]).json()["pending"].to_string();
    assert!(!pending(&alone).contains("telemetry"));

    alone.extra = "telemetry.metrics = \"off\"".into();
    alone.write_config(&tpm);
    assert_eq!(alone.tool(&["reload"]).code, 0);
    assert!(pending(&alone).contains("telemetry"), "a socket is bound before the sandbox");
    assert_eq!(alone.stop(), 0);
    alone.start().store().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!Path::new(&alone.home().join("run/metrics.sock")).exists());
}

#[test]
fn a_place_that_cannot_be_had_keeps_no_key_closed_and_is_told() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    alone.extra = format!("telemetry.metrics = \"{}\"", taken.local_addr().unwrap());
    alone.write_config(&tpm);
    let client: Client = alone.start();
    client.store().unwrap();
    let told = alone.await_event("config.warned", "is not served");
    assert_eq!(told["key"], "telemetry.metrics");
    alone.extra = "telemetry.metrics = \"0.0.0.0:9464\"".into();
    alone.write_config(&tpm);
    let refused = alone.tool(&["config", "check"]);
    assert!(refused.code == 78 && refused.err.contains("127.0.0.1:9464"), "{refused:?}");
}
