//! A connection to the plugin, after a look at who listens, and what its refusals mean.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use super::KmsPluginSettings;
use crate::kms::{CallError, Connection, Message};
use crate::provider::reads::Reads;
use crate::provider::{ErrorKind, ProviderError};
use crate::types::{Api, OVERFLOW_UID};

/// Characters of a text of the plugin's that are shown.
const SHOWN_MAX: usize = 200;
/// Letters of a word that is shown without being known. A shorter one may be a group of hex or base64, and a longer one all of it.
const LETTERS_MIN: usize = 5;
const LETTERS_MAX: usize = 20;
/// Others that are shown.
const KNOWN_WORDS: [&str; 74] = [
    "a", "all", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do", "does", "down",
    "for", "from", "get", "got", "had", "has", "have", "host", "id", "in", "is", "it", "key", "keys", "last", "less",
    "lost", "may", "more", "must", "name", "new", "no", "none", "not", "of", "off", "ok", "old", "on", "one", "open",
    "or", "out", "over", "ring", "slot", "such", "than", "that", "the", "this", "time", "to", "too", "two", "up",
    "use", "user", "was", "will", "with", "HSM", "KMS", "v1beta1", "v2", "v2beta1",
];

/// A method of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Decrypt,
    Encrypt,
    /// KMS v2.
    Status,
    /// KMS v1beta1.
    Version,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::Encrypt => "Encrypt",
            Self::Status => "Status",
            Self::Version => "Version",
        }
    }
}

/// A plugin that is connected.
pub(super) struct Plugin {
    connection: Connection,
    patience: Duration,
}

impl Plugin {
    /// Refuses what is no socket, our own one, and a listener of a user that is not expected, before a byte is sent.
    pub(super) async fn connect(settings: &KmsPluginSettings, reads: &Reads) -> Result<Self, ProviderError> {
        let path = &settings.socket;
        let (socket, own_sockets) = (path.clone(), settings.own_sockets.clone());
        reads.run(move || is_other_socket(&socket, &own_sockets)).await?;
        let stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
        let peer = stream.peer_cred().map_err(|error| unreachable(path, error))?;
        let own = nix::unistd::geteuid().as_raw();
        if peer.uid() == OVERFLOW_UID {
            let detail = format!(
                "{}: user {OVERFLOW_UID} listens there, which stands for every user whom nodeseald's user namespace does not show: run the plugin as root or as user {own}, or write PrivateUsers=identity (systemd 257) or =no by a drop-in and allow the user that it really is",
                path.display()
            );
            return Err(ProviderError::new(ErrorKind::Peer, detail));
        }
        if peer.uid() != 0 && peer.uid() != own && !settings.allow_uids.contains(&peer.uid()) {
            let detail = format!(
                "{}: user {} listens there; expected are root and user {own}: run the plugin as one of them, or allow its user",
                path.display(),
                peer.uid()
            );
            return Err(ProviderError::new(ErrorKind::Peer, detail));
        }
        let connection = Connection::begin(stream).await.map_err(|error| failed(Method::Status, error))?;
        Ok(Self { connection, patience: settings.timeout })
    }

    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        api: Api,
        method: Method,
        question: &Q,
    ) -> Result<A, ProviderError> {
        let path = format!("/{}.KeyManagementService/{}", api.label(), method.name());
        self.connection.call(&path, question, self.patience).await.map_err(|error| failed(method, error))
    }
}

/// What lies at a path, links followed.
#[derive(PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
    is_socket: bool,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { device: meta.dev(), inode: meta.ino(), is_socket: meta.file_type().is_socket() })
    }
}

fn is_other_socket(path: &Path, own_sockets: &[PathBuf]) -> Result<(), ProviderError> {
    let unfit = |why: &str| ProviderError::new(ErrorKind::Unfit, format!("{} {why}", path.display()));
    let place = Place::of(path).map_err(|error| unreachable(path, error))?;
    if !place.is_socket {
        return Err(unfit("is no socket"));
    }
    let is_ours = |own: &Path| own == path || Place::of(own).is_ok_and(|own| own == place);
    if own_sockets.iter().any(|own| is_ours(own)) {
        return Err(unfit("is a socket of Nodeseal itself: name the other plugin's"));
    }
    Ok(())
}

fn unreachable(path: &Path, error: io::Error) -> ProviderError {
    let (kind, why) = match error.kind() {
        io::ErrorKind::PermissionDenied => (ErrorKind::Unfit, "this user may not open it"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => (ErrorKind::Away, "no plugin listens there"),
        _ => (ErrorKind::Away, "it cannot be connected"),
    };
    ProviderError::new(kind, format!("{}: {why}", path.display())).because(error)
}

fn failed(method: Method, error: CallError) -> ProviderError {
    let name = method.name();
    match error {
        CallError::Answer(why) => ProviderError::new(ErrorKind::Protocol, format!("{name}: {why}")),
        CallError::Refused { code, message } => {
            let said = match method {
                Method::Status | Method::Version => format!("{:?}", shown(&message)),
                // Some plugins give back what they were given, and bytes can be written in more ways than anybody can look for.
                Method::Decrypt | Method::Encrypt => {
                    "the reason is in the plugin's own log: its words may contain the key, and are not shown here"
                        .to_owned()
                }
            };
            ProviderError::new(refusal(method, code), format!("{name}: gRPC code {code}, {said}"))
        }
        error @ CallError::Transport(_) => {
            let kind = if error.is_of_peer_that_left() { ErrorKind::Away } else { ErrorKind::Protocol };
            ProviderError::new(kind, format!("{name}: the connection failed{}", reason(&error)))
        }
    }
}

/// Without what the plugin may have written beside it: HTTP/2 gives a GOAWAY room for any bytes (RFC 9113 §6.8).
fn reason(error: &CallError) -> String {
    let CallError::Transport(error) = error else { return String::new() };
    let why = error.get_io().map(ToString::to_string).or_else(|| error.reason().map(|reason| reason.to_string()));
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// gRPC's codes (grpc/doc/statuscodes.md) as plugins use them.
const fn refusal(method: Method, code: u16) -> ErrorKind {
    match (code, method) {
        // CANCELLED, DEADLINE_EXCEEDED
        (1 | 4, _) => ErrorKind::Away,
        // INVALID_ARGUMENT, OUT_OF_RANGE, DATA_LOSS
        (3 | 11 | 15, Method::Decrypt) => ErrorKind::Text,
        // The same of what is no text; UNIMPLEMENTED: another API, or no plugin.
        (3 | 11 | 15 | 12, _) => ErrorKind::Unfit,
        // NOT_FOUND; FAILED_PRECONDITION: what clouds say of a key that is disabled.
        (5 | 9, _) => ErrorKind::NoKey,
        (7, _) => ErrorKind::Forbidden,
        (8, _) => ErrorKind::Throttled,
        (16, _) => ErrorKind::Login,
        // UNKNOWN is every error that a plugin in Go did not give a code; INTERNAL, ABORTED, UNAVAILABLE.
        (2 | 6 | 10 | 13 | 14, _) => ErrorKind::Down,
        _ => ErrorKind::Protocol,
    }
}

/// A text of the plugin's for people: bounded, on one line, and without what could be a part of a key, however it is written. Many plugins put
/// their last error there, with what they were given.
pub(super) fn shown(text: &str) -> String {
    const HIDDEN: &str = "[...]";
    let mut shown = String::new();
    for part in text.split_whitespace() {
        let word = part.trim_end_matches([',', '.', ':', ';', '!', '?']);
        let part = if is_shown(word) { part.get(..word.len() + 1).unwrap_or(part) } else { HIDDEN };
        if part == HIDDEN && shown.ends_with(HIDDEN) {
            continue;
        }
        if shown.len() + 1 + part.len() > SHOWN_MAX {
            break;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(part);
    }
    shown
}

/// A word that is known, or one as people write them: of letters in one case, and not of those of hex alone.
fn is_shown(word: &str) -> bool {
    let is_written = (LETTERS_MIN..=LETTERS_MAX).contains(&word.len())
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().skip(1).all(|c| c.is_ascii_lowercase())
        && !word.chars().all(|c| c.is_ascii_hexdigit());
    let lower = word.chars().next().map(|first| first.to_ascii_lowercase());
    let as_begun = |known: &str| known.get(1..) == word.get(1..) && known.chars().next() == lower;
    is_written || KNOWN_WORDS.iter().any(|known| *known == word || as_begun(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_plugin_is_bounded_and_shows_words_and_nothing_that_may_be_of_a_key() {
        assert_eq!(shown("No HSM: permission denied on projects/p-1/keyRings/r"), "No HSM: permission denied on [...]");
        assert_eq!(shown(&format!("key {} here", "ab".repeat(32))), "key [...]");
        assert_eq!(shown("cannot\nencrypt\u{1b}[31m it"), "cannot [...] it");
        assert_eq!(shown("v1beta1"), "v1beta1");
        assert!((SHOWN_MAX - 8..=SHOWN_MAX).contains(&shown(&"health ".repeat(1000)).len()));
        // In groups, with letters alone, in the middle of a text, and cut off.
        for part in ["ab ff cd", "abcd effe", "AbCd EfGh", "QUJDREVGR0g", "abcdefabcdefabcdef", "x=AbCd", "IJKLMNOP"] {
            assert_eq!(shown(&format!("cannot encrypt {part}")), "cannot encrypt [...]", "{part}");
        }
    }

    #[test]
    fn words_that_come_with_a_key_in_reach_are_not_shown_however_the_key_is_written_in_them() {
        // As Go writes bytes (`%v`, `% x`), base64url, in groups of hex, and as they are.
        let key: Vec<u8> = (0..32).map(|i: u8| i.wrapping_mul(37).wrapping_add(200)).collect();
        let each = |write: fn(&u8) -> String, between: &str| key.iter().map(write).collect::<Vec<_>>().join(between);
        let hex = |byte: &u8| format!("{byte:02x}");
        let url = "yO0SN1yBpssqT3SZvuMILVJ3nMHm-zBVep_E6Q4zWH0".to_owned();
        for text in [each(u8::to_string, " "), each(hex, " "), each(hex, ":"), url, "all-in-ascii".to_owned()] {
            for method in [Method::Encrypt, Method::Decrypt] {
                let message = format!("cannot use [{text}]: no such key");
                let told = failed(method, CallError::Refused { code: 2, message }).to_string();
                assert!(!told.contains(&text) && told.contains("gRPC code 2"), "{told}");
            }
        }
        let status = failed(Method::Status, CallError::Refused { code: 5, message: "no key ring r".to_owned() });
        assert!(status.to_string().contains("no key ring [...]"), "{status:?}");
    }

    #[test]
    fn what_a_plugin_says_of_its_health_shows_no_key_that_it_was_given_before() {
        // `healthz` of many plugins is the last error, with what it was about as Go writes bytes.
        let key: Vec<u8> = (0..32).map(|i: u8| i.wrapping_mul(37).wrapping_add(200)).collect();
        let text = key.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        let message = format!("last error: cannot encrypt [{text}]");
        assert_eq!(shown(&message), "last error: cannot encrypt [...]");
        let told = failed(Method::Status, CallError::Refused { code: 14, message }).to_string();
        assert!(!told.contains(&text), "{told}");
    }

    #[tokio::test]
    async fn what_a_plugin_writes_beside_its_goodbye_is_not_shown() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::begin(ours).await.unwrap();
        // An empty SETTINGS, and a GOAWAY for stream 0 with INTERNAL_ERROR (2) and bytes of its own.
        let told = b"CANARY 3 133 196";
        let goodbye = [&[0, 0, 8 + 16, 7, 0, 0, 0, 0, 0][..], &[0; 4], &[0, 0, 0, 2], told].concat();
        for frame in [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &goodbye] {
            theirs.writable().await.unwrap();
            assert_eq!(theirs.try_write(frame).unwrap(), frame.len());
        }
        let plugin = Plugin { connection, patience: Duration::from_secs(5) };
        let asked = crate::kms::v2::StatusRequest {};
        let answer = plugin.call::<_, crate::kms::v2::StatusResponse>(Api::V2, Method::Encrypt, &asked).await;
        let error = answer.err().unwrap();
        let shown = format!("{} {error:?}", crate::types::Chain(&error));
        assert!(!shown.contains("CANARY") && shown.contains("internal"), "{shown}");
    }

    #[test]
    fn every_code_of_grpc_has_a_kind() {
        let of = |method| (0..=17).map(|code| refusal(method, code)).collect::<Vec<_>>();
        for method in [Method::Encrypt, Method::Status, Method::Decrypt] {
            let kinds = of(method);
            let unknown: Vec<_> = (0..=17).filter(|code| kinds[*code] == ErrorKind::Protocol).collect();
            assert_eq!(unknown, [0, 17]);
        }
        assert_eq!((refusal(Method::Decrypt, 3), refusal(Method::Encrypt, 3)), (ErrorKind::Text, ErrorKind::Unfit));
    }
}
