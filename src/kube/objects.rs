//! Objects, page by page, and a write of each that changes nothing of it.
//!
//! A merge patch that is empty makes kube-apiserver read the object, find that it is not as it would write it now, and write it
//! (k8s.io/apiserver `storage/etcd3/store.go`, `GuaranteedUpdate`: unchanged data are left alone unless they are stale). Under KMS v1
//! nothing is ever stale, so there an annotation is set, to another value in each run.

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::ANNOTATION;
use super::client::{Ask, Client, MERGE_PATCH};
use super::discovery::Resource;
use super::error::KubeError;

/// Objects: half of what kube-apiserver's own clients ask for, since metadata of objects of 1 MiB can be long too.
const PAGE_OBJECTS: u32 = 250;
/// Of one object, beside those of kube-apiserver itself (5, `MaxRetryWhenPatchConflicts`).
const CONFLICT_TRIES: usize = 5;
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// An object, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Of a resource that has them.
    pub namespace: Option<String>,
    /// In it.
    pub name: String,
    /// Our annotation.
    written_under: Option<String>,
}

impl Item {
    /// Where it stands in the order of a list, which is that of etcd's keys.
    pub fn place(&self) -> String {
        self.namespace.iter().chain([&self.name]).map(String::as_str).collect::<Vec<_>>().join("/")
    }

    /// It has this annotation already.
    pub fn has(&self, annotation: &str) -> bool {
        self.written_under.as_deref() == Some(annotation)
    }
}

/// Some objects, and how to get the next ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub items: Vec<Item>,
    /// How many objects follow, as far as the server says it.
    pub left: u64,
    /// It is the first one of a list that has begun again.
    pub begins_again: bool,
}

/// Where the next page begins.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    next: Option<String>,
    is_over: bool,
}

impl Pages {
    /// `None` behind the last one.
    pub async fn next(&mut self, client: &mut Client, resource: &Resource) -> Result<Option<Page>, KubeError> {
        if self.is_over {
            return Ok(None);
        }
        let (list, begins_again) = match list(client, resource, self.next.as_deref()).await {
            // A list is as of one moment, which etcd forgets after some minutes. What was made since then is under the present key, and what
            // stood behind the last object still does. Whoever has seen the objects before skips them.
            Err(error) if error.status() == Some(410) && self.next.is_some() => {
                (list(client, resource, None).await?, true)
            }
            other => (other?, false),
        };
        self.next = Some(list.metadata.next).filter(|next| !next.is_empty());
        self.is_over = self.next.is_none();
        let items = list.items.into_iter().map(Item::from).collect();
        Ok(Some(Page { items, left: list.metadata.left.unwrap_or_default(), begins_again }))
    }
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue", default)]
    next: String,
    #[serde(rename = "remainingItemCount")]
    left: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "nodeseal/written-under")]
    written_under: Option<String>,
}

impl From<Object> for Item {
    fn from(object: Object) -> Self {
        let Metadata { name, namespace, annotations } = object.metadata;
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        Self { namespace, name, written_under: annotations.written_under }
    }
}

async fn list(client: &mut Client, resource: &Resource, next: Option<&str>) -> Result<List, KubeError> {
    let next = next.map(|next| format!("&continue={}", utf8_percent_encode(next, NON_ALPHANUMERIC)));
    let path = format!("{}?limit={PAGE_OBJECTS}{}", resource.path(None), next.unwrap_or_default());
    client.json(Ask { accept: METADATA_LIST, ..Ask::get(&path) }).await
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// It is under the key that kube-apiserver writes with.
    Written,
    /// Somebody has deleted it.
    Gone,
}

/// Makes kube-apiserver write one object, unchanged but for our annotation if there is one.
pub async fn touch(
    client: &mut Client,
    resource: &Resource,
    item: &Item,
    annotation: Option<&str>,
) -> Result<Touched, KubeError> {
    let name = utf8_percent_encode(&item.name, NON_ALPHANUMERIC);
    let path = format!("{}/{name}", resource.path(item.namespace.as_deref()));
    let patch = annotation.map_or(json!({}), |text| json!({ "metadata": { "annotations": { ANNOTATION: text } } }));
    let mut left = CONFLICT_TRIES;
    loop {
        let body = Some((MERGE_PATCH, patch.to_string()));
        match client.ask(Ask { method: Method::PATCH, path: &path, accept: METADATA, body }).await {
            Ok(_) => return Ok(Touched::Written),
            Err(error) if error.lacks(&resource.plural, &item.name) => return Ok(Touched::Gone),
            Err(error) if error.status() == Some(409) && left > 1 => left -= 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_object_only_its_name_and_our_annotation_are_kept() {
        let text = r#"{"kind":"PartialObjectMetadataList","metadata":{"continue":"abc","remainingItemCount":7},"items":[
            {"metadata":{"name":"a","namespace":"n","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"hunter2","nodeseal/written-under":"k"}}},
            {"metadata":{"name":"b"}}]}"#;
        let list: List = serde_json::from_str(text).unwrap();
        let items: Vec<Item> = list.items.into_iter().map(Item::from).collect();
        assert_eq!((list.metadata.next.as_str(), list.metadata.left), ("abc", Some(7)));
        assert_eq!(items.iter().map(Item::place).collect::<Vec<_>>(), ["n/a", "b"]);
        assert_eq!(items[0].written_under.as_deref(), Some("k"));
        assert!(!format!("{items:?}").contains("hunter2"));
    }
}
