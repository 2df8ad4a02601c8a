//! The call that deletes an object which kube-apiserver cannot read, as Kubernetes 1.36 takes it. It is printed and never made.
//!
//! Sources: k8s.io/apiserver `pkg/endpoints/handlers/delete.go` (an empty body has its options in the query; the right that is asked for),
//! `pkg/features/kube_features.go` (the gate), and kubectl `pkg/rawhttp/raw.go` (`--raw` sends an empty body). A dry run, preconditions,
//! a grace period and a propagation policy are refused together with the option (apimachinery `ValidateIgnoreStoreReadError`).

use crate::etcd::resource::{group, resource};

/// Of kube-apiserver. Alpha since Kubernetes 1.32, and off unless it is named.
pub(super) const GATE: &str = "AllowUnsafeMalformedObjectDeletion";
/// Rights on the resource.
pub(super) const VERBS: [&str; 2] = ["delete", "unsafe-delete-ignore-read-errors"];
/// In a call to a resource whose version does not show in etcd.
pub(super) const VERSION: &str = "VERSION";
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Built-in resources that Kubernetes 1.36 does not serve as v1 (k8s.io/api, `register.go` of each group).
const NOT_V1: [&str; 9] = [
    "clustertrustbundles.certificates.k8s.io",
    "devicetaintrules.resource.k8s.io",
    "leasecandidates.coordination.k8s.io",
    "podcertificaterequests.certificates.k8s.io",
    "podgroups.scheduling.k8s.io",
    "resourcepoolstatusrequests.resource.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
    "storageversions.internal.apiserver.k8s.io",
    "workloads.scheduling.k8s.io",
];
/// Groups that have a place of their own in etcd as custom resources have, and are served as v1.
const OWN_PLACE_V1: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// An object as the API calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    path: Option<String>,
}

impl Object {
    /// What lies at this key. `None`: nothing that the API of this kube-apiserver has.
    pub(super) fn at(key: &str, api_prefix: &str) -> Option<Self> {
        let rest = key.strip_prefix(api_prefix)?;
        let parts: Vec<&str> = rest.split('/').collect();
        // `services/specs`, `services/endpoints`, and GROUP/RESOURCE of custom resources.
        let has_two = parts[0] == "services" || parts[0].contains('.');
        let (namespace, name) = match parts.get(if has_two { 2 } else { 1 }..)? {
            [name] => (None, *name),
            [namespace, name] => (Some(*namespace), *name),
            _ => return None,
        };
        if !namespace.into_iter().chain([name]).all(is_name) {
            return None;
        }
        let resource = resource(key.as_bytes(), api_prefix).into_owned();
        let path = path(&resource, parts[0], namespace, name);
        Some(Self { resource, namespace: namespace.map(str::to_owned), name: name.to_owned(), path })
    }

    /// For a shell. `None`: the resource is none that can be called.
    pub(super) fn delete(&self) -> Option<String> {
        // Each part is encoded, so nothing in it ends the quotes.
        self.path.as_ref().map(|path| format!("kubectl delete --raw '{path}?{OPTION}=true'"))
    }
}

fn path(resource: &str, place: &str, namespace: Option<&str>, name: &str) -> Option<String> {
    let api = match group(resource)? {
        "" => "/api/v1".to_owned(),
        group => {
            let is_built_in = !place.contains('.') && !NOT_V1.contains(&resource);
            let version = if is_built_in || OWN_PLACE_V1.contains(&group) { "v1" } else { VERSION };
            format!("/apis/{}/{version}", encoded(group))
        }
    };
    let plural = resource.split_once('.').map_or(resource, |(plural, _)| plural);
    let namespace = namespace.map_or_else(String::new, |namespace| format!("/namespaces/{}", encoded(namespace)));
    Some(format!("{api}{namespace}/{}/{}", encoded(plural), encoded(name)))
}

/// As kube-apiserver takes a part of a path (apimachinery `IsValidPathSegmentName`).
fn is_name(part: &str) -> bool {
    !part.is_empty() && !matches!(part, "." | "..") && !part.contains('%')
}

/// RFC 3986 §2.3: everything else is encoded.
fn encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::resource::DEFAULT_PREFIX;

    fn path(key: &str) -> Option<String> {
        Object::at(key, DEFAULT_PREFIX).and_then(|object| object.path)
    }

    #[test]
    fn an_object_is_called_as_kubernetes_1_36_serves_it() {
        for (key, expected) in [
            ("/registry/secrets/default/a", "/api/v1/namespaces/default/secrets/a"),
            ("/registry/minions/node-1", "/api/v1/nodes/node-1"),
            ("/registry/services/specs/default/a", "/api/v1/namespaces/default/services/a"),
            ("/registry/services/endpoints/default/a", "/api/v1/namespaces/default/endpoints/a"),
            ("/registry/deployments/default/a", "/apis/apps/v1/namespaces/default/deployments/a"),
            ("/registry/clusterroles/system:node", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", "/apis/apiregistration.k8s.io/v1/apiservices/v1."),
            // Its version stands in no key of etcd.
            ("/registry/example.com/widgets/default/a", "/apis/example.com/VERSION/namespaces/default/widgets/a"),
            ("/registry/workloads/default/a", "/apis/scheduling.k8s.io/VERSION/namespaces/default/workloads/a"),
        ] {
            assert_eq!(path(key).as_deref(), Some(expected), "{key}");
        }
    }

    #[test]
    fn what_the_api_does_not_have_cannot_be_called() {
        for key in [
            "/registry/masterleases/10.0.0.1",
            "/registry/futures/default/a",
            "/registry/secrets/default/a/b",
            "/registry/secrets/default/",
            "/registry/secrets/../a",
            "/registry/secrets",
            "/openshift.io/oauth/tokens/a",
        ] {
            assert_eq!(path(key), None, "{key}");
        }
    }

    #[test]
    fn no_name_ends_the_quotes_of_a_shell() {
        let object = Object::at("/registry/secrets/default/a';id #$(id)", DEFAULT_PREFIX).unwrap();
        let expected = "kubectl delete --raw '/api/v1/namespaces/default/secrets/a%27%3Bid%20%23%24%28id%29?ignoreStoreReadErrorWithClusterBreakingPotential=true'";
        assert_eq!(object.delete().as_deref(), Some(expected));
    }
}
