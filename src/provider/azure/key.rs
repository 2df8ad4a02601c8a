//! The key as the vault describes it: which key it is for good, and which of its versions wraps.

use std::collections::BTreeSet;

use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{Key, KeyAttributes, KeyClientGetKeyOptions};
use futures_util::TryStreamExt;

use super::super::http::Address;
use super::super::{ErrorKind, KeyIdentity, KeyState, KeyVersion, ProviderError};
use super::fault::{self, Failed};
use super::settings::{Algorithm, KeyName};

/// Versions that are read at most, 25 on a page. By itself Azure rotates a key each week at most: that is two decades.
const VERSIONS_MAX: usize = 1000;

/// Which key is meant, and how it will be used.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) vault: Address,
    pub(super) name: KeyName,
    pub(super) algorithm: Algorithm,
}

/// A key that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Seconds since 1970.
    first: i64,
    /// All that were ever seen of this key.
    versions: BTreeSet<String>,
    /// The one that wraps.
    pub(super) wraps: String,
}

/// One version, as it stands in a list too.
struct Version {
    id: String,
    created: i64,
    /// May be used now: enabled, and within its time.
    is_usable: bool,
}

impl Wanted {
    /// What names the key as long as it is not made anew. Names of keys do not tell `A` from `a`.
    pub(super) fn scope(&self) -> String {
        let vault = self.vault.https_url();
        let host = vault.strip_prefix("https://").unwrap_or_default();
        format!("{host}/{}", self.name).to_ascii_lowercase()
    }

    pub(super) fn state(&self, known: &Known) -> Result<KeyState, ProviderError> {
        let wrong = |error| lied("a time or a version without a proper form").because(error);
        let identity = KeyIdentity::new(format!("{}@{}", self.scope(), known.first)).map_err(wrong)?;
        Ok(KeyState { identity, version: KeyVersion::new(known.wraps.as_str()).map_err(wrong)? })
    }

    /// The version in `https://HOST/keys/NAME/VERSION`, if it is one of this key.
    pub(super) fn version_of(&self, kid: &str) -> Result<String, ProviderError> {
        let prefix = format!("{}/keys/{}/", self.vault.https_url(), self.name);
        let matches = kid.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(&prefix));
        let version = if matches { &kid[prefix.len()..] } else { "" };
        let fits = version.len() == 32 && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fits { Ok(version.to_owned()) } else { Err(lied("an answer about another key, or about none")) }
    }

    fn version(&self, kid: Option<&str>, about: Option<&KeyAttributes>, now: i64) -> Result<Version, ProviderError> {
        let about = about.ok_or_else(|| lied("a version without attributes"))?;
        let created = about.created.ok_or_else(|| lied("a version without the time when it was made"))?;
        let seconds = |time: OffsetDateTime| time.unix_timestamp();
        let is_usable = about.enabled != Some(false)
            && about.not_before.is_none_or(|begin| seconds(begin) <= now)
            && about.expires.is_none_or(|end| now < seconds(end));
        Ok(Version { id: self.version_of(kid.unwrap_or_default())?, created: seconds(created), is_usable })
    }

    /// Refuses keys that cannot do both halves.
    fn fits(&self, key: &Key) -> Result<(), ProviderError> {
        let key = key.key.as_ref().ok_or_else(|| lied("an answer without a key"))?;
        let kind: &str = key.kty.as_ref().map(Into::into).unwrap_or_default();
        let algorithm = self.algorithm.name();
        if !self.algorithm.fits(kind) {
            let kind =
                if matches!(kind, "EC" | "EC-HSM" | "oct" | "oct-HSM" | "RSA" | "RSA-HSM") { kind } else { "unknown" };
            return Err(ProviderError::new(ErrorKind::Unfit, format!("a key of type {kind} does not do {algorithm}")));
        }
        let may = |operation: &str| key.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == operation));
        if may("wrapKey") && may("unwrapKey") {
            Ok(())
        } else {
            Err(ProviderError::new(ErrorKind::Unfit, "the key's operations leave out wrapKey or unwrapKey"))
        }
    }

    /// Asks for the key. `before` is what was known; with it one request is enough as long as nothing has changed, and two after a rotation.
    pub(super) async fn ask(&self, client: &KeyClient, before: Option<&Known>) -> Result<Known, Failed> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let key = self.get(client, None).await?;
        let kid = key.key.as_ref().and_then(|key| key.kid.as_deref());
        let newest = self.version(kid, key.attributes.as_ref(), now)?;
        if let Some(before) = before.filter(|_| newest.is_usable)
            && self.is_of(client, before, &newest.id).await?
        {
            self.fits(&key)?;
            let mut known = before.clone();
            known.versions.insert(newest.id.clone());
            return Ok(Known { wraps: newest.id, ..known });
        }
        let all = self.list(client, now).await?;
        let known = choose(&all, &newest.id)?;
        if known.wraps == newest.id {
            self.fits(&key)?;
        } else {
            // Versions of one key can be of several types.
            self.fits(&self.get(client, Some(&known.wraps)).await?)?;
        }
        Ok(known)
    }

    /// Whether this version is one of the key that was known: it was seen, or one that was seen is still there. A version cannot be deleted without
    /// its key, and its id is never given again.
    async fn is_of(&self, client: &KeyClient, before: &Known, version: &str) -> Result<bool, Failed> {
        if before.versions.contains(version) {
            return Ok(true);
        }
        match self.get(client, Some(&before.wraps)).await {
            Ok(_) => Ok(true),
            Err(Failed::Finally(error)) if error.kind() == ErrorKind::NoKey => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    async fn get(&self, client: &KeyClient, version: Option<&str>) -> Result<Key, Failed> {
        const ASKED: &str = "getKey";
        let options = KeyClientGetKeyOptions { key_version: version.map(str::to_owned), ..Default::default() };
        let answer = client.get_key(self.name.as_str(), Some(options)).await;
        let key = answer.and_then(|answer| answer.into_model()).map_err(|error| fault::in_use(ASKED, &error))?;
        let answered = self.version_of(key.key.as_ref().and_then(|key| key.kid.as_deref()).unwrap_or_default())?;
        match version {
            Some(version) if version != answered => Err(lied("an answer about another version").into()),
            _ => Ok(key),
        }
    }

    async fn list(&self, client: &KeyClient, now: i64) -> Result<Vec<Version>, Failed> {
        let failed = |error| fault::in_use("getKeyVersions", &error);
        let mut rows = client.list_key_properties_versions(self.name.as_str(), None).map_err(failed)?;
        let mut all = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            all.push(self.version(row.kid.as_deref(), row.attributes.as_ref(), now)?);
            if all.len() > VERSIONS_MAX {
                let detail = format!("the key has more than {VERSIONS_MAX} versions");
                return Err(ProviderError::new(ErrorKind::Unfit, detail).into());
            }
        }
        Ok(all)
    }
}

/// The newest of those that may be used. Of two that were made in one second, the one that the vault itself calls the newest.
fn choose(all: &[Version], newest: &str) -> Result<Known, ProviderError> {
    let first = all.iter().map(|version| version.created).min();
    let Some(first) = first.filter(|_| all.iter().any(|version| version.id == newest)) else {
        return Err(lied("the newest version is not among the versions"));
    };
    let usable = all.iter().filter(|version| version.is_usable);
    let wraps = usable.max_by_key(|version| (version.created, version.id == newest)).ok_or_else(|| {
        ProviderError::new(ErrorKind::NoKey, "getKey: no version of the key is enabled and within its time")
    })?;
    let versions = all.iter().map(|version| version.id.clone()).collect();
    Ok(Known { first, versions, wraps: wraps.id.clone() })
}

fn lied(what: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Lied, format!("getKey: {what}"))
}

#[cfg(test)]
mod tests {
    use azure_security_keyvault_keys::models::{JsonWebKey, KeyType};

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            vault: "https://Mine.vault.azure.net".parse().unwrap(),
            name: "Nodeseal".parse().unwrap(),
            algorithm: Algorithm::RsaOaep256,
        }
    }

    fn version(id: &str, created: i64, is_usable: bool) -> Version {
        Version { id: id.into(), created, is_usable }
    }

    #[test]
    fn a_version_is_taken_from_its_own_key_only() {
        let id = "0123456789abcdef0123456789abcdef";
        for kid in ["https://mine.vault.azure.net/keys/nodeseal/", "https://MINE.vault.azure.net/keys/Nodeseal/"] {
            assert_eq!(wanted().version_of(&format!("{kid}{id}")).unwrap(), id);
        }
        for kid in [
            String::new(),
            id.to_owned(),
            format!("https://mine.vault.azure.net/keys/other/{id}"),
            format!("https://mine.vault.azure.net.evil/keys/nodeseal/{id}"),
            format!("https://mine.vault.azure.net/keys/nodeseal/{id}/x"),
            format!("https://mine.vault.azure.net/keys/nodeseal/{}", &id[1..]),
            "https://mine.vault.azure.net/keys/nodeseaü".to_owned(),
        ] {
            assert_eq!(wanted().version_of(&kid).unwrap_err().kind(), ErrorKind::Lied, "{kid}");
        }
    }

    #[test]
    fn the_newest_usable_version_wraps_and_the_oldest_of_all_names_the_key() {
        let all = [version("b", 20, true), version("a", 10, false), version("d", 30, false), version("c", 20, true)];
        let known = choose(&all, "c").unwrap();
        assert_eq!((known.first, known.wraps.as_str(), known.versions.len()), (10, "c", 4));
        assert_eq!(choose(&all, "d").unwrap().wraps, "c");
        assert_eq!(wanted().state(&known).unwrap().identity.as_str(), "mine.vault.azure.net/nodeseal@10");
        assert_eq!(choose(&all, "e").unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(choose(&[], "e").unwrap_err().kind(), ErrorKind::Lied);
        assert_eq!(choose(&all[2..3], "d").unwrap_err().kind(), ErrorKind::NoKey);
    }

    #[test]
    fn a_key_that_cannot_wrap_and_open_is_refused() {
        let key = |kty, ops: &[&str]| {
            let key_ops = Some(ops.iter().map(|one| (*one).to_owned()).collect());
            let mut key = Key::default();
            key.key = Some(JsonWebKey { kty: Some(kty), key_ops, ..JsonWebKey::default() });
            key
        };
        let both = ["wrapKey", "unwrapKey"];
        assert!(wanted().fits(&key(KeyType::RsaHsm, &both)).is_ok());
        for (kty, ops) in [(KeyType::Ec, &both[..]), (KeyType::OctHsm, &both), (KeyType::Rsa, &both[..1])] {
            assert_eq!(wanted().fits(&key(kty, ops)).unwrap_err().kind(), ErrorKind::Unfit);
        }
        assert!(Wanted { algorithm: Algorithm::A256Kw, ..wanted() }.fits(&key(KeyType::OctHsm, &both)).is_ok());
    }
}
