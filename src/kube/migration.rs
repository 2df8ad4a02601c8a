//! StorageVersionMigration objects (KEP-4192): kube-controller-manager writes every object of a resource again, with rights of its own.
//! Whoever makes one needs no right to read what it is about.

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{Ask, Client, JSON};
use super::discovery::{Resource, versions};
use super::error::KubeError;
use super::{KeyMark, LABEL_KEY, LABEL_MANAGED_BY, MANAGED_BY};

const GROUP: &str = "storagemigration.k8s.io";
/// Those whose `spec.resource` has a group and a resource, the newest first. v1alpha1 had another form, and could lose its place.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// Bytes of an object's name (RFC 1123, as apimachinery checks it).
const NAME_MAX_BYTES: usize = 253;

/// The API, where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrations {
    version: &'static str,
}

/// One that we have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Of the object.
    pub name: String,
    /// As [`Resource::name`].
    pub resource: String,
    /// Which key it is for; empty if somebody has changed its label.
    pub mark: String,
    /// How far it is.
    pub state: State,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// kube-controller-manager has not begun.
    Waiting,
    /// It has.
    Running,
    /// Every object is written.
    Done,
    /// It has given up, and does not try again.
    Failed,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    resource: Named,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    group: String,
    resource: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Status {
    fn state(&self) -> State {
        let is = |kind: &str| self.conditions.iter().any(|one| one.r#type == kind && one.status == "True");
        if is("Succeeded") {
            State::Done
        } else if is("Failed") {
            State::Failed
        } else if is("Running") || !self.resource_version.is_empty() {
            State::Running
        } else {
            State::Waiting
        }
    }
}

impl From<Object> for Migration {
    fn from(object: Object) -> Self {
        let Named { group, resource } = object.spec.resource;
        let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
        let mark = object.metadata.labels.get(LABEL_KEY).cloned().unwrap_or_default();
        Self { name: object.metadata.name, resource, mark, state: object.status.state() }
    }
}

impl Migrations {
    /// `None` where the API is not served.
    pub async fn find(client: &mut Client) -> Result<Option<Self>, KubeError> {
        let served = versions(client, GROUP).await?;
        Ok(VERSIONS.into_iter().find(|version| served.iter().any(|one| one == version)).map(|version| Self { version }))
    }

    /// As in `storagemigration.k8s.io/v1`.
    pub fn api(&self) -> String {
        format!("{GROUP}/{}", self.version)
    }

    fn path(&self) -> String {
        format!("/apis/{}/storageversionmigrations", self.api())
    }

    /// All of ours, of whatever key.
    pub async fn list(&self, client: &mut Client) -> Result<Vec<Migration>, KubeError> {
        let path = format!("{}?labelSelector={}%3D{MANAGED_BY}", self.path(), LABEL_MANAGED_BY.replace('/', "%2F"));
        let list: List = client.json(Ask::get(&path)).await?;
        Ok(list.items.into_iter().map(Migration::from).collect())
    }

    /// Makes one, unless it is there.
    pub async fn make(&self, client: &mut Client, resource: &Resource, mark: &KeyMark) -> Result<(), KubeError> {
        let labels = json!({ LABEL_MANAGED_BY: MANAGED_BY, LABEL_KEY: mark.as_str() });
        let object = json!({
            "apiVersion": self.api(),
            "kind": "StorageVersionMigration",
            "metadata": { "name": name(resource, mark), "labels": labels },
            "spec": { "resource": { "group": resource.group, "resource": resource.plural } },
        });
        let path = self.path();
        let ask = Ask { method: Method::POST, path: &path, accept: JSON, body: Some((JSON, object.to_string())) };
        match client.ask(ask).await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes one. What kube-controller-manager has begun it carries to its end all the same.
    pub async fn remove(&self, client: &mut Client, migration: &Migration) -> Result<(), KubeError> {
        let path = format!("{}/{}", self.path(), migration.name);
        match client.ask(Ask { method: Method::DELETE, path: &path, accept: JSON, body: None }).await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The same for the same resource and key, so that whoever was interrupted finds it again.
fn name(resource: &Resource, mark: &KeyMark) -> String {
    let mut name = format!("nodeseal-{}-{}", &mark.as_str()[..12], resource.name());
    name.truncate(NAME_MAX_BYTES);
    name.trim_end_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(status: &str) -> Migration {
        let text = format!(
            r#"{{"metadata":{{"name":"n","labels":{{"nodeseal/key-id-hash":"ab"}}}},"spec":{{"resource":{{"group":"apps","resource":"deployments"}}}}{status}}}"#
        );
        serde_json::from_str::<Object>(&text).unwrap().into()
    }

    #[test]
    fn the_state_of_a_migration_is_that_of_its_conditions() {
        let with = |conditions: &str| {
            migration(&format!(r#","status":{{"resourceVersion":"5","conditions":[{conditions}]}}"#))
        };
        assert_eq!(migration("").state, State::Waiting);
        assert_eq!(with("").state, State::Running);
        assert_eq!(with(r#"{"type":"Running","status":"True"}"#).state, State::Running);
        assert_eq!(
            with(r#"{"type":"Running","status":"False"},{"type":"Succeeded","status":"True"}"#).state,
            State::Done
        );
        assert_eq!(with(r#"{"type":"Failed","status":"True"}"#).state, State::Failed);
        assert_eq!(with(r#"{"type":"Failed","status":"False"}"#).state, State::Running);
        let one = migration("");
        assert_eq!((one.resource.as_str(), one.mark.as_str()), ("deployments.apps", "ab"));
    }

    #[test]
    fn one_resource_and_one_key_have_one_name_that_kubernetes_accepts() {
        let mark = KeyMark::of(&format!("sha256:{}", "ab".repeat(32))).unwrap();
        let of = |plural: &str, group: &str| {
            let (group, version, plural) = (group.to_owned(), "v1".to_owned(), plural.to_owned());
            name(&Resource { group, version, plural, namespaced: true }, &mark)
        };
        assert_eq!(of("secrets", ""), "nodeseal-abababababab-secrets");
        assert_eq!(of("deployments", "apps"), "nodeseal-abababababab-deployments.apps");
        let long = of(&"x".repeat(63), &format!("{}.{}", "y".repeat(166), "z".repeat(30)));
        assert!(long.len() <= NAME_MAX_BYTES && !long.ends_with(['.', '-']), "{long}");
    }
}
