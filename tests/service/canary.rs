//! Canaries: known secrets go through everything at the finest log level, and are found nowhere. And what the kernel says of
//! the memory that holds the keys.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::alone::Alone;
use crate::alone::NODESEAL;
use nodeseal::types::hex;
use test_support::client::{framed, next_uid, request, v2};
use test_support::node::{Node, run};
use test_support::process::{status_field, until};
use test_support::swtpm::Swtpm;

/// Readable as it is, so that escaping does not hide it.
const READABLE: &[u8; 32] = b"CANARY0plaintext0of0a0seed0ZZZZZ";

/// The bytes of a container file (docs/formats.md): magic, kind, version, algorithm, length; then the payload.
const PAYLOAD: std::ops::Range<usize> = 15..47;

/// Every way in which these bytes could have been printed.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let list = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let half = &secret[4..20];
    let mut all = vec![
        half.to_vec(),
        hex::encode(half).into_bytes(),
        hex::encode(half).to_uppercase().into_bytes(),
        list(half).into_bytes(),
        list(half).replace(' ', "").into_bytes(),
        half.escape_ascii().to_string().into_bytes(),
        half.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ").into_bytes(),
    ];
    for shift in 0..3 {
        let whole = base64(&secret[shift..]);
        let inner = &whole[..whole.len() - 5];
        all.push(inner.to_owned().into_bytes());
        all.push(inner.replace('+', "-").replace('/', "_").into_bytes());
    }
    all
}

/// RFC 4648 §4 without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * index)) as usize & 63]));
        }
    }
    text
}

/// The spelling that was found, if one was.
fn find(secret: &[u8], haystack: &[u8]) -> Option<String> {
    let is_there = |spelling: &Vec<u8>| haystack.windows(spelling.len()).any(|window| window == spelling);
    spellings(secret).into_iter().find(is_there).map(|spelling| String::from_utf8_lossy(&spelling).into_owned())
}

pub fn assert_absent(secrets: &[Vec<u8>], place: &str, haystack: &[u8]) {
    for secret in secrets {
        assert_eq!(find(secret, haystack), None, "a secret is in {place}");
    }
}

#[test]
fn base64_is_that_of_the_rfc() {
    assert_eq!([base64(b"foobar"), base64(b"fooba"), base64(b"foob")], ["Zm9vYmFy", "Zm9vYmE", "Zm9vYg"]);
}

#[test]
fn no_secret_is_in_any_log_output_command_line_or_environment() {
    let mut node = Node::start_with("log = { level = \"trace\", format = \"json\" }\n");
    let mut random = vec![0; 32];
    getrandom::fill(&mut random).unwrap();
    let host_secret = fs::read(node.root().join("node/host.key")).unwrap()[PAYLOAD].to_vec();
    let secrets = [READABLE.to_vec(), random.clone(), host_secret];
    let mut outputs = Vec::new();

    let client = node.client();
    let mut uids = Vec::new();
    let mut texts = Vec::new();
    for secret in &secrets[..2] {
        let uid = next_uid();
        let message = v2::EncryptRequest { plaintext: secret.clone(), uid: uid.clone() };
        let body = client.body("/v2.KeyManagementService/Encrypt", framed(&message.encode_to_vec())).unwrap();
        let answer = v2::EncryptResponse::decode(&body[..]).unwrap();
        uids.push((uid, answer.key_id.clone()));
        let decrypt = request(&answer.ciphertext, &answer.key_id);
        uids.push((decrypt.uid.clone(), answer.key_id.clone()));
        assert_eq!(client.decrypt_request(decrypt).unwrap(), *secret);
        let v1 = client.encrypt_v1(secret).unwrap();
        assert_eq!(client.decrypt_v1(&v1).unwrap(), *secret);
        texts.push(answer);

        // What is wrong must not be shown either.
        for (plaintext, uid) in [(secret.repeat(100), next_uid()), (secret.clone(), String::new())] {
            let bad = v2::EncryptRequest { plaintext, uid }.encode_to_vec();
            outputs.push(format!("{:?}", client.body("/v2.KeyManagementService/Encrypt", framed(&bad)).unwrap_err()));
        }
        let garbage = [b"\xFF\xFF", &secret[..]].concat();
        for path in ["/v2.KeyManagementService/Decrypt", "/v1beta1.KeyManagementService/Encrypt"] {
            outputs.push(format!("{:?}", client.body(path, framed(&garbage)).unwrap_err()));
        }
        let mut bad = request(&texts[0].ciphertext, &texts[0].key_id);
        bad.annotations.insert("x.wrap.nodeseal.internal".into(), secret.clone());
        outputs.push(format!("{:?}", client.decrypt_request(bad).unwrap_err()));
        outputs.push(format!("{:?}", client.decrypt(secret, &texts[0].key_id).unwrap_err()));
        outputs.push(format!("{:?}", client.decrypt_v1(secret).unwrap_err()));
    }

    let first = node.ask(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    let second = node.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
    let verbs: [&[&str]; 13] = [
        &["status"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["keys", "activate", &second],
        &["reseal"],
        &["keys", "retire", &first],
        &["keys", "retire", &first, "--dry-run", "--without-scan"],
        &["keys", "retire", &first, "--confirm", &first, "--without-scan"],
        &["config", "check"],
        &["encryption-config"],
        &["init", "--no-recovery"],
        &["--help"],
        &["--version"],
    ];
    for verb in verbs {
        for json in [&[][..], &["--json"]] {
            outputs.push(format!("{:?}", node.tool(&[verb, json].concat())));
        }
    }
    for (program, what) in
        ["nodeseald", "nodeseal-sealer", "swtpm"].into_iter().flat_map(|p| [(p, "cmdline"), (p, "environ")])
    {
        let bytes = fs::read(format!("/proc/{}/{what}", node.pid(program))).unwrap();
        assert_absent(&secrets, &format!("{what} of {program}"), &bytes);
    }

    // Each part dies, and the start meets a host secret that does not fit, so that errors are written too.
    for part in ["nodeseal-sealer", "swtpm", "nodeseald"] {
        node.kill(part);
    }
    until(Duration::from_secs(20), "it serves again", || node.client().status().ok());
    node.stop();
    let host_key = node.root().join("node/host.key");
    let right = fs::read(&host_key).unwrap();
    let mut wrong = right.clone();
    wrong[20] ^= 1;
    let body = wrong.len() - 32;
    let digest = Sha256::digest(&wrong[..body]);
    wrong[body..].copy_from_slice(&digest);
    fs::write(&host_key, &wrong).unwrap();
    let _lines = node.begin();
    until(Duration::from_secs(20), "the refusal is logged", || node.log().contains("E-AUTH").then_some(()));
    fs::write(&host_key, right).unwrap();
    let client = until(Duration::from_secs(20), "it opens", || {
        test_support::client::Client::try_connect(&node.socket()).ok().filter(|client| client.status().is_ok())
    });
    assert_eq!(client.decrypt(&texts[1].ciphertext, &texts[1].key_id).unwrap_err().code(), Some(5), "it was retired");
    node.stop();

    let log = node.log();
    assert!(log.contains("\"level\":\"TRACE\""), "the libraries' finest lines are there, or this proves nothing");
    assert_absent(&secrets, "the log", node.logs().as_bytes());
    assert_absent(&secrets, "the answers and outputs", outputs.join("\n").as_bytes());
    assert_log_tells_who_and_which_key(&log, &uids);
}

fn assert_log_tells_who_and_which_key(log: &str, uids: &[(String, String)]) {
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (uid, key_id) in uids {
        let served = lines.iter().find(|line| line["event"] == "dek.served" && line["uid"] == uid.as_str());
        let expected = format!("sha256:{}", hex::encode(Sha256::digest(key_id)));
        assert_eq!(served.expect("every call has a line")["key_id"], expected.as_str());
    }
}

#[test]
fn the_secrets_would_be_found_if_they_were_there() {
    let secret: Vec<u8> = (1..33).map(|n| n * 7).collect();
    for shown in [format!("{secret:?}"), hex::encode(&secret), base64(&secret), secret.escape_ascii().to_string()] {
        assert!(find(&secret, shown.as_bytes()).is_some(), "{shown}");
    }
}

#[test]
fn both_daemons_leave_no_core_dump_and_lock_the_memory_of_keys() {
    let node = Node::start();
    node.rotate_and_activate();
    for program in ["nodeseald", "nodeseal-sealer"] {
        let pid = node.pid(program);
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{program}: {core}");
        assert_eq!(status_field(pid, "NoNewPrivs"), 1, "{program}");
    }
    let pid = node.pid("nodeseald");
    // A region of pages for keys.
    assert!(status_field(pid, "VmLck") >= 12, "{} KiB locked", status_field(pid, "VmLck"));
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let flags: Vec<_> = smaps.lines().filter(|line| line.starts_with("VmFlags:") && line.contains(" lo")).collect();
    assert!(flags.iter().all(|flags| flags.contains(" dd") && flags.contains(" dc")), "{flags:?}");
    assert!(!flags.is_empty());
}

/// A user without a name and without rights.
const USER: u32 = 54_321;

fn as_user(shell: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    let run_as = format!("setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all");
    command.args(["-c", &format!("{shell} exec {run_as} \"$@\""), "sh"]).arg(program);
    command
}

#[test]
fn as_an_ordinary_user_it_serves_and_not_even_that_user_can_look_into_it() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    alone.extra = format!("listen.allow_users = [0, {USER}]");
    alone.write_config(&tpm);
    // The build folder may be closed to others.
    let programs = alone.home().join("bin");
    fs::create_dir(&programs).unwrap();
    for name in ["nodeseald", "nodeseal-sealer", "nodeseal"] {
        fs::copy(Path::new(NODESEAL).with_file_name(name), programs.join(name)).unwrap();
    }
    for folder in ["state", "run"] {
        let folder = alone.home().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&folder, Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(alone.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let init = run(as_user("", &programs.join("nodeseal"))
        .arg("--config")
        .arg(alone.config())
        .args(["init", "--no-recovery"]));
    assert_eq!(init.code, 0, "{init:?}");
    alone.spawn(as_user("ulimit -l 0;", &programs.join("nodeseald")).arg("--config").arg(alone.config()));
    let client = alone.wait_until_ready();
    let stored = client.store().unwrap();
    client.assert_opens(&stored);
    alone.await_event("memory.unlocked", "LimitMEMLOCK");

    let pid = alone.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"))
            && status.contains("CapEff:\t0000000000000000")
    );
    for secret in ["environ", "mem", "maps", "auxv"] {
        let seen = run(as_user("", Path::new("head")).args(["-c", "1"]).arg(format!("/proc/{pid}/{secret}")));
        assert!(seen.code != 0 && seen.err.contains("Permission denied"), "{secret}: {seen:?}");
    }
    // The same look at an ordinary process of that user succeeds, so that the refusal is ours.
    let own = run(as_user("", Path::new("head")).args(["-c", "1", "/proc/self/maps"]));
    assert_eq!(own.code, 0, "{own:?}");
}
