//! What a cluster has: its API servers, and the resources that it stores.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::client::{Ask, Client};
use super::error::KubeError;
use super::kubeconfig::Server;

/// A name that every certificate of kube-apiserver has: what runs in the cluster asks for it (Kubernetes, "PKI certificates and
/// requirements").
const SERVICE: &str = "kubernetes.default.svc";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

/// A resource that can be listed and patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    /// One that is served.
    pub version: String,
    /// Its plural, in small letters.
    pub plural: String,
    /// Its objects are in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// As in an EncryptionConfiguration: `secrets`, `deployments.apps`.
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let Self { group, version, plural, .. } = self;
        let namespace = namespace.map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        match group.as_str() {
            "" => format!("/api/{version}{namespace}/{plural}"),
            group => format!("/apis/{group}/{version}{namespace}/{plural}"),
        }
    }
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default)]
    endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    ports: Vec<SlicePort>,
}

#[derive(Deserialize)]
struct SliceEndpoint {
    #[serde(default)]
    addresses: Vec<String>,
}

#[derive(Deserialize)]
struct SlicePort {
    port: Option<u16>,
}

/// All API servers, as they have entered themselves; none if nobody has.
pub async fn api_servers(client: &mut Client) -> Result<Vec<Server>, KubeError> {
    match client.json::<Slice>(Ask::get(SLICE)).await {
        Ok(slice) => Ok(servers(&slice)),
        Err(error) if error.status() == Some(404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn servers(slice: &Slice) -> Vec<Server> {
    let port = slice.ports.iter().find_map(|one| one.port);
    let addresses = slice.endpoints.iter().flat_map(|one| &one.addresses);
    addresses.filter_map(|address| Server::at(address, port?, SERVICE)).collect()
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    name: String,
    pub(super) versions: Vec<GroupVersion>,
    preferred_version: GroupVersion,
}

#[derive(Clone, Deserialize, PartialEq, Eq)]
pub(super) struct GroupVersion {
    pub(super) version: String,
}

impl Group {
    /// The preferred one first.
    fn versions(&self) -> impl Iterator<Item = &str> {
        let others = self.versions.iter().filter(|version| **version != self.preferred_version);
        std::iter::once(&self.preferred_version).chain(others).map(|one| one.version.as_str())
    }
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<ResourceFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceFile {
    name: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    storage_version_hash: String,
}

/// Every resource that can be listed and patched, each once, and the groups that did not answer: those of API servers that are added to
/// this one (`APIService`), which store elsewhere.
pub async fn resources(client: &mut Client) -> Result<(Vec<Resource>, Vec<String>), KubeError> {
    let mut found = Found::default();
    let core: Resources = client.json(Ask::get("/api/v1")).await?;
    found.add("", "v1", core);
    let groups: Groups = client.json(Ask::get("/apis")).await?;
    for group in &groups.groups {
        for version in group.versions() {
            match client.json(Ask::get(&format!("/apis/{}/{version}", group.name))).await {
                Ok(resources) => found.add(&group.name, version, resources),
                Err(error) if matches!(error.status(), Some(404 | 502..=504)) => {
                    found.away.insert(group.name.clone());
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((found.resources, found.away.into_iter().collect()))
}

#[derive(Default)]
struct Found {
    resources: Vec<Resource>,
    /// Plural and hash of those that are there: what two groups serve is stored once (`events`), and has one hash.
    stored: BTreeSet<(String, String)>,
    away: BTreeSet<String>,
}

impl Found {
    fn add(&mut self, group: &str, version: &str, resources: Resources) {
        let can = |file: &ResourceFile, verb: &str| file.verbs.iter().any(|one| one == verb);
        for file in resources.resources {
            // Parts of an object have a slash. Without a hash it is made up at each request, and not stored.
            let is_stored = !file.name.contains('/') && !file.storage_version_hash.is_empty();
            if !is_stored || !can(&file, "list") || !can(&file, "patch") {
                continue;
            }
            let is_known = self.resources.iter().any(|one| one.group == group && one.plural == file.name);
            if !is_known && self.stored.insert((file.name.clone(), file.storage_version_hash)) {
                let (group, version) = (group.to_owned(), version.to_owned());
                self.resources.push(Resource { group, version, plural: file.name, namespaced: file.namespaced });
            }
        }
    }
}

/// Of a group, the versions that are served; none if the group is not.
pub(super) async fn versions(client: &mut Client, group: &str) -> Result<Vec<String>, KubeError> {
    match client.json::<Group>(Ask::get(&format!("/apis/{group}"))).await {
        Ok(group) => Ok(group.versions.into_iter().map(|one| one.version).collect()),
        Err(error) if error.status() == Some(404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_and_can_be_written_is_found_once() {
        let resources = |text: &str| serde_json::from_str::<Resources>(text).unwrap();
        let mut found = Found::default();
        found.add(
            "",
            "v1",
            resources(
                r#"{"resources":[
                {"name":"secrets","namespaced":true,"verbs":["list","patch"],"storageVersionHash":"a"},
                {"name":"namespaces/status","namespaced":false,"verbs":["list","patch"],"storageVersionHash":"b"},
                {"name":"componentstatuses","namespaced":false,"verbs":["list","patch"]},
                {"name":"bindings","namespaced":true,"verbs":["create"],"storageVersionHash":"c"},
                {"name":"events","namespaced":true,"verbs":["list","patch"],"storageVersionHash":"d"}]}"#,
            ),
        );
        let events =
            r#"{"resources":[{"name":"events","namespaced":true,"verbs":["list","patch"],"storageVersionHash":"d"}]}"#;
        found.add("events.k8s.io", "v1", resources(events));
        let widgets = |hash: &str| {
            format!(
                r#"{{"resources":[{{"name":"widgets","namespaced":false,"verbs":["list","patch"],"storageVersionHash":"{hash}"}}]}}"#
            )
        };
        found.add("example.com", "v2", resources(&widgets("w2")));
        found.add("example.com", "v1", resources(&widgets("w1")));
        let names: Vec<_> = found.resources.iter().map(Resource::name).collect();
        assert_eq!(names, ["secrets", "events", "widgets.example.com"]);
        assert_eq!(found.resources[2].path(None), "/apis/example.com/v2/widgets");
        assert_eq!(found.resources[0].path(Some("kube-system")), "/api/v1/namespaces/kube-system/secrets");
    }

    #[test]
    fn the_preferred_version_goes_first() {
        let text = r#"{"name":"g","versions":[{"groupVersion":"g/v2beta1","version":"v2beta1"},{"groupVersion":"g/v1","version":"v1"}],"preferredVersion":{"groupVersion":"g/v1","version":"v1"}}"#;
        let group: Group = serde_json::from_str(text).unwrap();
        assert_eq!(group.versions().collect::<Vec<_>>(), ["v1", "v2beta1"]);
    }

    #[test]
    fn each_address_of_the_service_is_an_api_server() {
        let text = r#"{"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]},{"addresses":["10.0.0.2"],"conditions":{"ready":true}}],"ports":[{"name":"https","port":6443}]}"#;
        let shown: Vec<_> = servers(&serde_json::from_str(text).unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
        assert!(servers(&serde_json::from_str("{}").unwrap()).is_empty());
    }
}
