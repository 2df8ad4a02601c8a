//! How far objects are written where kube-apiserver has no StorageVersionMigration: one ConfigMap, so that whoever continues need not be
//! on the same machine. It names one object of each resource, and has nothing of its content.

use std::collections::BTreeMap;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Ask, Client, JSON};
use super::error::KubeError;
use super::{KeyMark, LABEL_KEY, LABEL_MANAGED_BY, MANAGED_BY};

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
        Self { mark, resources, version: Some(map.metadata.resource_version) }
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
    pub fn under(found: Option<Self>, mark: &KeyMark) -> Self {
        let version = found.as_ref().and_then(|record| record.version.clone());
        let resources = found.filter(|record| record.mark == mark.as_str()).map(|record| record.resources);
        Self { mark: mark.as_str().to_owned(), resources: resources.unwrap_or_default(), version }
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
                "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_KEY: self.mark },
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
            r#"{{"metadata":{{"resourceVersion":"7","labels":{{"nodeseal/key-id-hash":"{}"}}}},
            "data":{{"secrets":"{{\"written\":5,\"failed\":0,\"last\":\"a/b\",\"finished\":false}}","pods":"?"}}}}"#,
            mark("a").as_str()
        );
        let found = || Some(Record::from(serde_json::from_str::<ConfigMap>(&text).unwrap()));
        let same = Record::under(found(), &mark("a"));
        assert_eq!(same.resources["secrets"].last, "a/b");
        assert_eq!(same.resources.len(), 1, "what cannot be read begins again");
        let other = Record::under(found(), &mark("b"));
        assert!(other.resources.is_empty() && other.mark == mark("b").as_str());
        assert_eq!(other.version.as_deref(), Some("7"), "so that two that run do not write over each other");
        assert_eq!(Record::under(None, &mark("a")).version, None);
    }
}
