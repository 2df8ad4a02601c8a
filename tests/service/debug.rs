//! `nodeseal debug`: every call has its line for a while, without a restart, and both ends are events.

use std::fs;

use prost::Message;
use serde_json::Value;
use test_support::client::{Client, framed, next_uid, v2};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::canary::assert_absent;

const SECRET: &[u8; 32] = b"CANARY0while0debug0is0on0ZZZZZZZ";

/// A node that logs warnings alone.
fn quiet(tpm: &Swtpm) -> Alone {
    let alone = Alone::set_up(tpm);
    let text = fs::read_to_string(alone.config()).unwrap().replace("level = \"debug\"", "level = \"warn\"");
    fs::write(alone.config(), text).unwrap();
    alone
}

/// The uid of the call.
fn encrypt(client: &Client) -> String {
    let uid = next_uid();
    let message = v2::EncryptRequest { plaintext: SECRET.to_vec(), uid: uid.clone() };
    client.body("/v2.KeyManagementService/Encrypt", framed(&message.encode_to_vec())).unwrap();
    uid
}

fn status(alone: &Alone) -> Value {
    alone.tool(&["debug", "status", "--json"]).json()
}

#[test]
fn debug_logs_every_call_without_a_secret_survives_a_reload_and_ends_with_the_process() {
    let tpm = Swtpm::start();
    let mut alone = quiet(&tpm);
    let client = alone.start();
    let before = encrypt(&client);
    assert_eq!((status(&alone)["on"].as_bool(), status(&alone)["level"].as_str()), (Some(false), Some("warn")));

    let on = alone.tool(&["debug", "on", "--minutes", "60", "--incident", "ops/nodeseal#17", "--json"]).json();
    assert_eq!((on["on"].as_bool(), on["incident"].as_str()), (Some(true), Some("ops/nodeseal#17")));
    let during = encrypt(&client);
    alone.await_event("dek.served", &during);
    assert_eq!(alone.await_event("debug.started", "ops/nodeseal#17")["minutes"], 60);
    assert_eq!(alone.tool(&["reload"]).code, 0);
    assert_eq!(status(&alone), on, "a reload leaves it alone");
    let reloaded = encrypt(&client);
    alone.await_event("dek.served", &reloaded);

    assert_eq!(alone.tool(&["debug", "off", "--json"]).json()["on"], false);
    let after = encrypt(&client);
    assert_eq!(alone.await_event("debug.ended", "ops/nodeseal#17")["reason"], "nodeseal debug off");
    assert_eq!(alone.tool(&["debug", "on", "--minutes", "1", "--incident", "INC-2"]).code, 0);
    // Its line is behind those of all calls before.
    alone.await_event("debug.started", "INC-2");
    for uid in [&before, &after] {
        assert!(!alone.log().contains(uid.as_str()), "a call has a line while debug is off");
    }
    assert_absent(&[SECRET.to_vec()], "the log", alone.log().as_bytes());
    assert_eq!(alone.stop(), 0);
    alone.start();
    assert_eq!(status(&alone)["on"], false, "a restart ends it");
}

#[test]
fn debug_without_a_plain_incident_or_for_more_than_an_hour_is_refused_before_the_daemon_is_asked() {
    let tpm = Swtpm::start();
    let alone = Alone::prepare(&tpm);
    for [minutes, incident] in [["0", "INC-1"], ["61", "INC-1"], ["1", ""], ["1", "a b"], ["1", "a\nb"]] {
        let refused = alone.tool(&["debug", "on", "--minutes", minutes, "--incident", incident]);
        assert_eq!(refused.code, 64, "{refused:?}");
    }
    alone.tool(&["debug", "status"]).assert_refused(69);
}
