//! What the key is now: asked of AWS, checked, and compared with what it was.

use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyState as AwsState, KeyUsageType};

use super::fault::{code, from_sdk};
use super::login::Signer;
use super::settings::KeyArn;
use crate::provider::{ErrorKind, KeyState, KeyVersion, ProviderError};

/// The version where AWS tells none. A rotation of such a key is not noticed; what was wrapped opens as before.
pub(super) const UNVERSIONED: &str = "unversioned";

/// Pages of rotations that are read at most. A key has at most 25 on demand and one each 90 days, 1,000 on a page (KMS, "Quotas").
const PAGES_MAX: usize = 4;

/// Refusals to list rotations that say "not with this server, this login or this kind of key", and not "not now".
const NOT_LISTED: [&str; 5] = [
    "AccessDenied",
    "AccessDeniedException",
    "UnsupportedOperationException",
    "UnknownOperationException",
    "NotImplemented",
];

/// One answer about the key.
#[derive(Clone)]
pub(super) struct Seen {
    /// Of the key itself, never an alias.
    pub(super) arn: String,
    pub(super) state: KeyState,
    /// Whether AWS names the material that it encrypts with; then an answer of Decrypt does so too.
    pub(super) names_material: bool,
}

/// Asks for the key. `before` is the last answer: an alias that points to another key by now is refused.
pub(super) async fn ask(signer: &Signer, key: &KeyArn, before: Option<&Seen>) -> Result<Seen, ProviderError> {
    let answer = signer.kms.describe_key().key_id(key.to_string()).send().await;
    let answer = answer.map_err(|error| from_sdk("kms:DescribeKey", error))?;
    let about = answer.key_metadata.ok_or_else(|| lied("an answer without a key"))?;
    let found = resolve(key, before, &about)?;
    fits(&about)?;
    let identity = found.identity().ok_or_else(|| lied("an alias instead of a key"))?;
    let arn = found.to_string();
    let (text, names_material) = match &about.current_key_material_id {
        Some(material) => (material_version(material), true),
        None => (by_rotation(signer, &arn).await?, false),
    };
    let version = KeyVersion::new(text).map_err(|_| lied("a key material without a proper id"))?;
    Ok(Seen { arn, state: KeyState { identity, version }, names_material })
}

/// From the id of the key material, 64 hexadecimal digits.
pub(super) fn material_version(id: &str) -> String {
    format!("material-{id}")
}

/// Which key that is, and that it is the one meant.
fn resolve(key: &KeyArn, before: Option<&Seen>, about: &KeyMetadata) -> Result<KeyArn, ProviderError> {
    let found: KeyArn =
        about.arn.as_deref().and_then(|arn| arn.parse().ok()).ok_or_else(|| lied("an answer without the key's ARN"))?;
    if found.is_alias() || !found.is_beside(key) || (!key.is_alias() && found != *key) {
        return Err(lied(&format!("requested {key}, got {found}")));
    }
    let text = found.to_string();
    match before {
        Some(before) if before.arn != text => {
            let detail = format!("{key} pointed to {} and now points to {text}: name the key itself", before.arn);
            Err(ProviderError::new(ErrorKind::Unfit, detail))
        }
        _ => Ok(found),
    }
}

/// Refuses keys that cannot wrap, and those that may not now.
fn fits(about: &KeyMetadata) -> Result<(), ProviderError> {
    let arn = about.arn.as_deref().unwrap_or_default();
    let shown = |value: Option<&str>| value.unwrap_or("none").to_owned();
    if about.key_spec != Some(KeySpec::SymmetricDefault) {
        let spec = shown(about.key_spec.as_ref().map(KeySpec::as_str));
        return Err(ProviderError::new(ErrorKind::Unfit, format!("{arn} is {spec}, not SYMMETRIC_DEFAULT")));
    }
    if about.key_usage != Some(KeyUsageType::EncryptDecrypt) {
        let usage = shown(about.key_usage.as_ref().map(KeyUsageType::as_str));
        return Err(ProviderError::new(ErrorKind::Unfit, format!("{arn} is for {usage}, not ENCRYPT_DECRYPT")));
    }
    // While it is being updated (a new primary region) a key can be used: KMS Developer Guide, "Key states".
    if !matches!(about.key_state, Some(AwsState::Enabled | AwsState::Updating)) {
        let state = shown(about.key_state.as_ref().map(AwsState::as_str));
        return Err(ProviderError::new(ErrorKind::NoKey, format!("{arn} is in state {state}, not Enabled")));
    }
    Ok(())
}

/// From the newest completed rotation, automatic or on demand, for servers that do not name the material.
async fn by_rotation(signer: &Signer, arn: &str) -> Result<String, ProviderError> {
    let mut newest = None;
    let mut marker = None;
    for _ in 0..PAGES_MAX {
        let asked = signer.kms.list_key_rotations().key_id(arn).limit(1000).set_marker(marker);
        let page = match asked.send().await {
            Ok(page) => page,
            Err(error) if code(&error).is_some_and(|code| NOT_LISTED.contains(&code)) => {
                return Ok(UNVERSIONED.to_owned());
            }
            Err(error) => return Err(from_sdk("kms:ListKeyRotations", error)),
        };
        let dates = page.rotations().iter().filter_map(|entry| entry.rotation_date()?.to_millis().ok());
        newest = newest.max(dates.max());
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    Ok(format!("rotation-{}", newest.unwrap_or(0)))
}

fn lied(detail: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Lied, format!("kms:DescribeKey: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::KeyIdentity;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
    const OTHER: &str = "arn:aws:kms:eu-central-1:111122223333:key/other";
    const ALIAS: &str = "arn:aws:kms:eu-central-1:111122223333:alias/nodeseal";

    fn about(arn: &str, spec: KeySpec, usage: KeyUsageType, state: AwsState) -> KeyMetadata {
        let builder = KeyMetadata::builder().key_id("x").arn(arn).key_spec(spec).key_usage(usage).key_state(state);
        builder.build().unwrap()
    }

    fn good(arn: &str) -> KeyMetadata {
        about(arn, KeySpec::SymmetricDefault, KeyUsageType::EncryptDecrypt, AwsState::Enabled)
    }

    fn seen(arn: &str) -> Seen {
        let version = KeyVersion::new("x").unwrap();
        let state = KeyState { identity: KeyIdentity::new(arn).unwrap(), version };
        Seen { arn: arn.to_owned(), state, names_material: true }
    }

    #[test]
    fn a_key_of_another_kind_or_state_is_refused_with_what_it_is() {
        let (symmetric, encrypt) = (KeySpec::SymmetricDefault, KeyUsageType::EncryptDecrypt);
        for (metadata, kind, word) in [
            (about(KEY, KeySpec::Rsa2048, encrypt.clone(), AwsState::Enabled), ErrorKind::Unfit, "RSA_2048"),
            (
                about(KEY, symmetric.clone(), KeyUsageType::SignVerify, AwsState::Enabled),
                ErrorKind::Unfit,
                "SIGN_VERIFY",
            ),
            (about(KEY, symmetric.clone(), encrypt.clone(), AwsState::Disabled), ErrorKind::NoKey, "Disabled"),
            (about(KEY, symmetric, encrypt, AwsState::PendingDeletion), ErrorKind::NoKey, "PendingDeletion"),
        ] {
            let error = fits(&metadata).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(fits(&good(KEY)).is_ok());
    }

    #[test]
    fn an_answer_about_another_key_is_a_lie_and_an_alias_that_moved_is_refused() {
        let key: KeyArn = KEY.parse().unwrap();
        let alias: KeyArn = ALIAS.parse().unwrap();
        assert_eq!(resolve(&key, None, &good(OTHER)).unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(resolve(&alias, None, &good(ALIAS)).unwrap_err().kind(), ErrorKind::Lied);
        let abroad = KEY.replace("111122223333", "999999999999");
        assert_eq!(resolve(&alias, None, &good(&abroad)).unwrap_err().kind(), ErrorKind::Lied);
        assert!(resolve(&alias, Some(&seen(KEY)), &good(KEY)).is_ok());
        let error = resolve(&alias, Some(&seen(KEY)), &good(OTHER)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unfit);
        assert!(error.to_string().contains(KEY) && error.to_string().contains(OTHER), "{error}");
    }
}
