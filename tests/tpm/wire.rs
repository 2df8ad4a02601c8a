//! What an eavesdropper sees: swtpm's log at level 20 holds every byte that went in and out.

use std::collections::HashSet;

use nodeseal::sealer::Sealer;
use nodeseal::types::{PcrBank, SealPolicy, hex};
use test_support::swtpm::Swtpm;

use crate::interposer::{
    CREATE, IMPORT, LOAD, NV_DEFINE_SPACE, NV_INCREMENT, NV_READ, NV_UNDEFINE_SPACE, START_AUTH_SESSION, UNSEAL,
};
use crate::support::{AUTH, SECRET, another_auth, assert_opens, engine, extend, pcr, seal};

/// TPM_RH_NULL: a session with this for its tpmKey is unsalted.
const RH_NULL: u32 = 0x4000_0007;
/// TPMA_SESSION.
const DECRYPT: u8 = 1 << 5;
const ENCRYPT: u8 = 1 << 6;
/// Bytes of a secret that nobody may see in a row.
const WINDOW: usize = 8;

#[test]
fn no_byte_of_a_secret_is_on_the_wire_and_every_session_is_salted() {
    let tpm = Swtpm::start();
    extend(&tpm, 7, 0x11);
    for policy in [SealPolicy::None, pcr(PcrBank::Sha256, &[7])] {
        let blob = seal(&tpm, &policy);
        assert_opens(&tpm, &blob);
        assert!(engine(&tpm).unseal(&blob, &another_auth()).is_err());
    }
    let log = tpm.log();
    let ours: Vec<_> = commands(&log).into_iter().map(|(code, _)| code).collect();
    for (code, least) in [(CREATE, 2), (LOAD, 6), (UNSEAL, 6), (START_AUTH_SESSION, 14)] {
        let count = ours.iter().filter(|seen| **seen == code).count();
        assert!(count >= least, "the log holds {count} of {code:#x}: is it read right?");
    }
    assert_eq!(leaks(&log), Vec::<String>::new());
}

#[test]
fn the_same_look_finds_a_plain_unseal() {
    let tpm = Swtpm::start();
    seal(&tpm, &SealPolicy::None);
    assert_eq!(leaks(&tpm.log()), Vec::<String>::new());
    tpm.put("secret", SECRET);
    tpm.tool("tpm2_create -Q -C 0x81000001 -i secret -u plain.pub -r plain.priv");
    let found = leaks(&tpm.log());
    assert!(found.iter().any(|leak| leak.contains("secret bytes in a command")), "{found:?}");
    assert!(found.iter().any(|leak| leak.contains("0x153 without an encrypted parameter")), "{found:?}");
    tpm.tool("tpm2_load -Q -C 0x81000001 -u plain.pub -r plain.priv -c plain.ctx");
    tpm.tool("tpm2_unseal -c plain.ctx -o opened");
    assert_eq!(std::fs::read(tpm.file("opened")).unwrap(), SECRET);
    let found = leaks(&tpm.log());
    assert!(found.iter().any(|leak| leak.contains("secret bytes in an answer")), "{found:?}");
    assert!(found.iter().any(|leak| leak.contains("0x15e without an encrypted parameter")), "{found:?}");
}

#[test]
fn the_same_look_finds_an_encrypted_session_without_a_salt() {
    let tpm = Swtpm::start();
    seal(&tpm, &SealPolicy::None);
    tpm.put("secret", SECRET);
    tpm.tool("tpm2_create -Q -C 0x81000001 -i secret -u plain.pub -r plain.priv");
    tpm.tool("tpm2_load -Q -C 0x81000001 -u plain.pub -r plain.priv -c plain.ctx");
    tpm.tool("tpm2_startauthsession -S session.ctx --hmac-session");
    tpm.tool("tpm2_sessionconfig --enable-encrypt --enable-decrypt session.ctx");
    tpm.tool("tpm2_unseal -c plain.ctx -p session:session.ctx -o opened");
    let found = leaks(&tpm.log());
    assert!(found.iter().any(|leak| leak.contains("unsalted session")), "{found:?}");
    assert!(found.iter().any(|leak| leak.contains("0x15e without an encrypted parameter")), "{found:?}");
}

/// Whatever an eavesdropper could use.
pub fn leaks(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (direction, message) in messages(log) {
        let side = if direction == Direction::Command { "a command" } else { "an answer" };
        for (name, secret) in [("secret", &SECRET[..]), ("auth", &AUTH[..30])] {
            if secret.windows(WINDOW).any(|part| message.windows(WINDOW).any(|seen| seen == part)) {
                found.push(format!("{name} bytes in {side}"));
            }
        }
    }
    // The same once more without trust in our reading of messages: any spacing, any line.
    let digits: String = log.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
    if SECRET.windows(WINDOW).chain(AUTH[..30].windows(WINDOW)).any(|part| digits.contains(&hex::encode(part))) {
        found.push("secret digits in the log".to_owned());
    }
    found.extend(session_leaks(log));
    found
}

fn session_leaks(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut salted = HashSet::new();
    for (command, answer) in exchanges(log) {
        let code = word(&command, 6);
        match code {
            START_AUTH_SESSION => {
                let session = answer.get(10..14).map(|handle| word(handle, 0));
                if word(&command, 10) == RH_NULL {
                    found.push("unsalted session".to_owned());
                    // A TPM gives the handles of flushed sessions out again.
                    session.map(|session| salted.remove(&session));
                } else {
                    session.map(|session| salted.insert(session));
                }
            }
            CREATE | IMPORT | LOAD | NV_DEFINE_SPACE | NV_READ | UNSEAL => {
                // What they bring in, or what they give back.
                let needed = if matches!(code, NV_READ | UNSEAL) { ENCRYPT } else { DECRYPT };
                let hidden = sessions(&command)
                    .iter()
                    .any(|(handle, attributes)| salted.contains(handle) && attributes & needed != 0);
                if !hidden {
                    found.push(format!("{code:#x} without an encrypted parameter"));
                }
            }
            _ => {}
        }
    }
    found
}

/// Handle and attributes of each session of a command (TPM 2.0 Part 1 §18.6).
fn sessions(command: &[u8]) -> Vec<(u32, u8)> {
    if command[..2] != [0x80, 0x02] {
        return Vec::new();
    }
    let handles = match word(command, 6) {
        NV_INCREMENT | NV_READ | NV_UNDEFINE_SPACE => 2,
        _ => 1,
    };
    let size = 10 + 4 * handles;
    let mut area = &command[size + 4..size + 4 + word(command, size) as usize];
    let mut sessions = Vec::new();
    while !area.is_empty() {
        let nonce = usize::from(u16::from_be_bytes([area[4], area[5]]));
        let attributes = area[6 + nonce];
        let hmac = usize::from(u16::from_be_bytes([area[7 + nonce], area[8 + nonce]]));
        sessions.push((word(area, 0), attributes));
        area = &area[9 + nonce + hmac..];
    }
    sessions
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn commands(log: &str) -> Vec<(u32, Vec<u8>)> {
    exchanges(log).into_iter().map(|(command, _)| (word(&command, 6), command)).collect()
}

/// Each command with its answer.
fn exchanges(log: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut exchanges = Vec::new();
    let mut open = None;
    for (direction, message) in messages(log) {
        match direction {
            Direction::Command => open = Some(message),
            Direction::Answer => exchanges.extend(open.take().map(|command| (command, message))),
        }
    }
    exchanges
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Command,
    Answer,
}

/// The log's blocks: a heading with a length, and lines of hex.
fn messages(log: &str) -> Vec<(Direction, Vec<u8>)> {
    let mut messages: Vec<(Direction, Vec<u8>)> = Vec::new();
    let mut open = false;
    for line in log.lines().map(str::trim) {
        let heading = [("SWTPM_IO_Read:", Direction::Command), ("SWTPM_IO_Write:", Direction::Answer)];
        if let Some((_, direction)) = heading.into_iter().find(|(text, _)| line.contains(text)) {
            messages.push((direction, Vec::new()));
            open = true;
        } else if let Ok(bytes) = hex::decode(line.replace(' ', ""))
            && open
            && let Some((_, message)) = messages.last_mut()
        {
            message.extend_from_slice(&bytes);
        } else {
            open = false;
        }
    }
    messages.retain(|(_, message)| message.len() >= 10);
    messages
}
