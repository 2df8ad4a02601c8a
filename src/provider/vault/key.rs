//! The transit key as Vault describes it: which key it is for good, and what it can.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{ErrorKind, KeyIdentity, KeyState, KeyVersion, ProviderError};
use super::answer;

/// What the operator should know of a key that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// Somebody with the right to can delete the key, and every wrap with it.
    DeletionAllowed,
    /// Somebody with the right to can take the key out of Vault.
    Exportable,
    /// The key's type binds no associated data: the text is bound to its KEK by our own envelope alone.
    Unbound,
}

impl Remark {
    /// One fixed sentence.
    pub const fn message(self) -> &'static str {
        match self {
            Self::DeletionAllowed => "the key may be deleted: set deletion_allowed=false",
            Self::Exportable => "the key is exportable or may be backed up in clear; that cannot be taken back",
            Self::Unbound => "the key's type takes no associated data; aes256-gcm96 does",
        }
    }
}

/// How a text is bound to its cluster and its KEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// Associated data.
    Associated,
    /// Associated data, and a key of its own derived from the same bytes.
    Derived,
    /// Not at all.
    None,
}

/// A key that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) identity: KeyIdentity,
    pub(super) version: u64,
    pub(super) binding: Binding,
    pub(super) remarks: Vec<Remark>,
}

impl Known {
    pub(super) fn state(&self) -> Result<KeyState, ProviderError> {
        Ok(KeyState { identity: self.identity.clone(), version: version_text(self.version)? })
    }
}

pub(super) fn version_text(version: u64) -> Result<KeyVersion, ProviderError> {
    KeyVersion::new(version.to_string()).map_err(|error| ProviderError::new(ErrorKind::Lied, "version").because(error))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Born {
    /// Symmetric keys.
    Seconds(u64),
    /// Asymmetric keys.
    Described { creation_time: String },
}

#[derive(Deserialize)]
struct Described {
    #[serde(rename = "type")]
    kind: String,
    latest_version: u64,
    #[serde(default)]
    min_decryption_version: u64,
    supports_encryption: bool,
    supports_decryption: bool,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
    /// Not shown of a type that is for signing alone.
    #[serde(default)]
    keys: BTreeMap<u64, Born>,
}

/// Reads `GET <mount>/keys/<key>`. `created` is what the operator wrote down for a key whose first version is not shown any more.
pub(super) fn read(body: &[u8], scope: &str, created: Option<&str>) -> Result<Known, ProviderError> {
    let key: Described = answer::read_data(body, "read key")?;
    let unfit = |why: String| ProviderError::new(ErrorKind::Unfit, why);
    let binding = match key.kind.as_str() {
        "aes128-gcm96" | "aes256-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305" if key.derived => Binding::Derived,
        "aes128-gcm96" | "aes256-gcm96" | "chacha20-poly1305" | "xchacha20-poly1305" => Binding::Associated,
        "rsa-2048" | "rsa-3072" | "rsa-4096" if !key.derived => Binding::None,
        other => return Err(unfit(format!("key type {} does not wrap; aes256-gcm96 does", plain(other)))),
    };
    if !key.supports_encryption || !key.supports_decryption {
        return Err(unfit(format!("key type {} cannot encrypt and decrypt", key.kind)));
    }
    if key.latest_version == 0 || key.keys.keys().max() != Some(&key.latest_version) {
        return Err(ProviderError::new(ErrorKind::Lied, "read key: its latest version is not among its versions"));
    }
    let seen = key.keys.get(&1).map(|born| match born {
        Born::Seconds(seconds) => seconds.to_string(),
        Born::Described { creation_time } => creation_time.clone(),
    });
    if seen.as_deref().is_some_and(|seen| !is_time(seen)) {
        return Err(ProviderError::new(ErrorKind::Lied, "read key: when version 1 was made is not a time"));
    }
    let first = match (seen, created) {
        (Some(seen), Some(created)) if seen != created => {
            return Err(ProviderError::new(
                ErrorKind::NoKey,
                format!("version 1 of the key was made at {seen} and not at {created}: it is another key"),
            ));
        }
        (Some(seen), _) => seen,
        (None, Some(created)) => created.to_owned(),
        // Vault shows only what still decrypts. Any other version's time would make the key another one with every move of the limit.
        (None, None) => {
            return Err(unfit(format!(
                "min_decryption_version is {}, so Vault does not show when version 1 was made; set it to 1, or `created` to that time",
                key.min_decryption_version
            )));
        }
    };
    let identity = KeyIdentity::new(format!("{scope}@{first}"))
        .map_err(|error| ProviderError::new(ErrorKind::Lied, "read key: creation time").because(error))?;
    let all = [
        (key.deletion_allowed, Remark::DeletionAllowed),
        (key.exportable || key.allow_plaintext_backup, Remark::Exportable),
        (binding == Binding::None, Remark::Unbound),
    ];
    let remarks = all.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect();
    Ok(Known { identity, version: key.latest_version, binding, remarks })
}

/// A name of Vault's own, for an error; not just any text of the peer's.
fn plain(kind: &str) -> &str {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if kind.len() <= 24 && kind.bytes().all(fits) { kind } else { "(not a name)" }
}

/// Seconds, or RFC 3339.
fn is_time(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'T' | b'Z' | b':' | b'.' | b'+' | b'-');
    (1..=40).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Value {
        json!({
            "type": "aes256-gcm96", "latest_version": 2, "min_decryption_version": 1, "supports_encryption": true,
            "supports_decryption": true, "derived": false, "exportable": false, "allow_plaintext_backup": false,
            "deletion_allowed": false, "keys": {"1": 1_700_000_000, "2": 1_700_000_100}
        })
    }

    fn with(field: &str, value: Value) -> Result<Known, ProviderError> {
        let mut key = key();
        key[field] = value;
        read(json!({ "data": key }).to_string().as_bytes(), "transit/kubernetes", None)
    }

    #[test]
    fn a_key_is_named_by_the_birth_of_its_first_version() {
        let known = with("latest_version", json!(2)).unwrap();
        assert_eq!(known.identity.as_str(), "transit/kubernetes@1700000000");
        assert_eq!((known.version, known.binding, known.remarks.len()), (2, Binding::Associated, 0));
    }

    #[test]
    fn a_key_that_hides_its_first_version_needs_to_be_told_when_it_was_made() {
        let body = |first: Option<u64>| {
            let mut key = key();
            key["min_decryption_version"] = json!(2);
            key["keys"] = first.map_or(json!({"2": 1_700_000_100}), |at| json!({"1": at, "2": 1_700_000_100}));
            json!({ "data": key }).to_string()
        };
        let read = |first, created| read(body(first).as_bytes(), "transit/k", created);
        assert_eq!(read(None, None).unwrap_err().kind(), ErrorKind::Unfit);
        assert_eq!(read(None, Some("1700000000")).unwrap().identity.as_str(), "transit/k@1700000000");
        assert_eq!(read(Some(5), Some("1700000000")).unwrap_err().kind(), ErrorKind::NoKey);
    }

    #[test]
    fn a_key_that_cannot_wrap_is_refused_and_a_risky_one_remarked() {
        for kind in ["hmac", "ed25519", "ecdsa-p256", "aes256-cmac", "managed_key", ""] {
            assert_eq!(with("type", json!(kind)).unwrap_err().kind(), ErrorKind::Unfit, "{kind}");
        }
        assert_eq!(with("supports_decryption", json!(false)).unwrap_err().kind(), ErrorKind::Unfit);
        assert_eq!(with("derived", json!(true)).unwrap().binding, Binding::Derived);
        assert_eq!(with("exportable", json!(true)).unwrap().remarks, [Remark::Exportable]);
        assert_eq!(with("deletion_allowed", json!(true)).unwrap().remarks, [Remark::DeletionAllowed]);
        let mut rsa = key();
        rsa["type"] = json!("rsa-4096");
        rsa["latest_version"] = json!(1);
        rsa["keys"] = json!({"1": {"creation_time": "2026-01-01T00:00:00.5Z", "public_key": "x"}});
        let known = read(json!({ "data": rsa }).to_string().as_bytes(), "t/k", None).unwrap();
        assert_eq!((known.binding, known.identity.as_str()), (Binding::None, "t/k@2026-01-01T00:00:00.5Z"));
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_not_believed() {
        assert_eq!(with("latest_version", json!(0)).unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(with("latest_version", json!(3)).unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(with("keys", json!({})).unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(with("keys", json!({"x": 1})).unwrap_err().kind(), ErrorKind::Protocol);
        let odd = json!({"1": {"creation_time": "hvs.CANARY"}, "2": {"creation_time": "2026-01-01T00:00:00Z"}});
        assert_eq!(with("keys", odd).unwrap_err().kind(), ErrorKind::Lied);
        assert!(!with("type", json!("hvs.CANARY")).unwrap_err().to_string().contains("CANARY"));
        assert_eq!(with("keys", json!({"1": "ü\n", "2": 2})).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
