//! How far objects are written where kube-apiserver has no StorageVersionMigration: one ConfigMap, so that whoever continues need not be
//! on the same machine. It names one object of each resource, and has nothing of its content.

use std::collections::BTreeMap;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client, JSON};
use super::error::KubeError;
use super::{KeyMark, LABEL_BEGUN, LABEL_KEY, LABEL_MANAGED_BY, MANAGED_BY};
use crate::types::clock::UnixSeconds;

const FOLDER: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "nodeseal-migration";

/// How far one resource is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Objects that are under the key.
    pub written: u64,
    /// Objects that could not be written.
    pub failed: u64,
    /// The last one ([`super::Item::place`]).
    pub last: String,
    /// There are no more.
    pub finished: bool,
}

/// What the ConfigMap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which key the objects are written under.
    pub mark: String,
    /// By [`super::Resource::name`].
    pub resources: BTreeMap<String, Progress>,
    /// When the run began that this is of, in seconds since 1970.
    begun: u64,
    /// Of the ConfigMap that was read; none before the first write.
    version: Option<String>,
}

#[derive(Deserialize)]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl From<ConfigMap> for Record {
    fn from(map: ConfigMap) -> Self {
        let mark = map.metadata.labels.get(LABEL_KEY).cloned().unwrap_or_default();
        // What somebody has changed begins again.
        let read = |(name, text): (String, String)| Some((name, serde_json::from_str(&text).ok()?));
        let resources = map.data.into_iter().filter_map(read).collect();
        let begun = map.metadata.labels.get(LABEL_BEGUN).and_then(|text| text.parse().ok()).unwrap_or_default();
        Self { mark, resources, begun, version: Some(map.metadata.resource_version) }
    }
}

impl Record {
    /// `None` if nothing was ever written so.
    pub async fn read(client: &mut Client) -> Result<Option<Self>, KubeError> {
        match client.json::<ConfigMap>(Ask::get(&format!("{FOLDER}/{NAME}"))).await {
            Ok(map) => Ok(Some(map.into())),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// To continue under this key: what was written under another one counts for nothing.
    #[must_use]
    pub fn under(found: Option<Self>, mark: &KeyMark, now: UnixSeconds) -> Self {
        let version = found.as_ref().and_then(|record| record.version.clone());
        let (resources, begun) = found
            .filter(|record| record.mark == mark.as_str())
            .map_or_else(|| (BTreeMap::new(), now), |record| (record.resources, record.begun));
        Self { mark: mark.as_str().to_owned(), resources, begun, version }
    }

    /// To write everything once more.
    #[must_use]
    pub fn again(self, now: UnixSeconds) -> Self {
        // Another number also if the clock was set back.
        Self { resources: BTreeMap::new(), begun: now.max(self.begun + 1), ..self }
    }

    /// Every object of this resource is written under the key.
    pub fn has_all_of(&self, resource: &str) -> bool {
        self.resources.get(resource).is_some_and(|progress| progress.finished && progress.failed == 0)
    }

    /// What an object says that this run has written under KMS v1.
    pub fn annotation(&self) -> String {
        format!("{}-{}", self.mark, self.begun)
    }

    /// Keeps it, if nobody else has written it meanwhile.
    pub async fn write(&mut self, client: &mut Client) -> Result<(), KubeError> {
        let text = |progress: &Progress| json!(progress).to_string();
        let data: BTreeMap<_, _> = self.resources.iter().map(|(name, progress)| (name, text(progress))).collect();
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": "kube-system",
                "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_KEY: self.mark, LABEL_BEGUN: self.begun.to_string() },
                "resourceVersion": self.version,
            },
            "data": data,
        });
        let path = format!("{FOLDER}/{NAME}");
        let (method, path) = match self.version {
            Some(_) => (Method::PUT, path.as_str()),
            None => (Method::POST, FOLDER),
        };
        let ask = Ask { method, path, accept: JSON, body: Some((JSON, map.to_string())) };
        match client.json::<ConfigMap>(ask).await {
            Ok(map) => {
                self.version = Some(map.metadata.resource_version);
                Ok(())
            }
            Err(error) if error.status() == Some(409) => Err(KubeError::Busy),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_key_counts_for_nothing_and_one_of_the_same_is_continued() {
        let mark = |digit: &str| KeyMark::of(&format!("sha256:{}", digit.repeat(64))).unwrap();
        let text = format!(
            r#"{{"metadata":{{"resourceVersion":"7","labels":{{"nodeseal/begun":"50","nodeseal/key-id-hash":"{}"}}}},
            "data":{{"secrets":"{{\"written\":5,\"failed\":0,\"last\":\"a/b\",\"finished\":false}}","pods":"?"}}}}"#,
            mark("a").as_str()
        );
        let found = || Some(Record::from(serde_json::from_str::<ConfigMap>(&text).unwrap()));
        let same = Record::under(found(), &mark("a"), 60);
        assert_eq!(same.resources["secrets"].last, "a/b");
        assert_eq!(same.resources.len(), 1, "what cannot be read begins again");
        assert!(!same.has_all_of("secrets") && same.annotation() == format!("{}-50", mark("a").as_str()));
        let again = same.again(40);
        assert!(again.resources.is_empty() && again.annotation().ends_with("-51"), "an annotation has to change");
        let other = Record::under(found(), &mark("b"), 60);
        assert!(other.resources.is_empty() && other.mark == mark("b").as_str());
        assert_eq!(other.version.as_deref(), Some("7"), "so that two that run do not write over each other");
        assert_eq!(Record::under(None, &mark("a"), 60).version, None);
    }
}
