//! Which resource an object is, by its place in etcd.
//!
//! kube-apiserver writes `/registry/RESOURCE/…` for its own and `/registry/GROUP/RESOURCE/…` for custom resources and some of its
//! own (k8s.io/apiserver `registry/generic/registry/store.go`; the exceptions are in `pkg/kubeapiserver/default_storage_factory_builder.go`
//! and the stores of pkg/registry). A name is what an EncryptionConfiguration calls the resource: `secrets`, `deployments.apps`.

use std::borrow::Cow;

/// kube-apiserver's `--etcd-prefix`, unless somebody has set it.
pub const DEFAULT_PREFIX: &str = "/registry/";

/// Bytes of a resource's name that are shown: a DNS name has at most 253, and group and resource are two.
const NAME_MAX_BYTES: usize = 320;

/// Where a resource lies that is not called so, and resources of groups whose place does not show the group.
const PLACES: [(&str, &str); 52] = [
    ("certificatesigningrequests", "certificatesigningrequests.certificates.k8s.io"),
    ("clusterrolebindings", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("clusterroles", "clusterroles.rbac.authorization.k8s.io"),
    ("clustertrustbundles", "clustertrustbundles.certificates.k8s.io"),
    ("controllerrevisions", "controllerrevisions.apps"),
    ("controllers", "replicationcontrollers"),
    ("cronjobs", "cronjobs.batch"),
    ("csidrivers", "csidrivers.storage.k8s.io"),
    ("csinodes", "csinodes.storage.k8s.io"),
    ("csistoragecapacities", "csistoragecapacities.storage.k8s.io"),
    ("daemonsets", "daemonsets.apps"),
    ("deployments", "deployments.apps"),
    ("deviceclasses", "deviceclasses.resource.k8s.io"),
    ("devicetaintrules", "devicetaintrules.resource.k8s.io"),
    ("endpointslices", "endpointslices.discovery.k8s.io"),
    ("flowschemas", "flowschemas.flowcontrol.apiserver.k8s.io"),
    ("horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling"),
    ("ingress", "ingresses.networking.k8s.io"),
    ("ingressclasses", "ingressclasses.networking.k8s.io"),
    ("ipaddresses", "ipaddresses.networking.k8s.io"),
    ("jobs", "jobs.batch"),
    ("leasecandidates", "leasecandidates.coordination.k8s.io"),
    ("leases", "leases.coordination.k8s.io"),
    ("minions", "nodes"),
    ("mutatingadmissionpolicies", "mutatingadmissionpolicies.admissionregistration.k8s.io"),
    ("mutatingadmissionpolicybindings", "mutatingadmissionpolicybindings.admissionregistration.k8s.io"),
    ("mutatingwebhookconfigurations", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("networkpolicies", "networkpolicies.networking.k8s.io"),
    ("podcertificaterequests", "podcertificaterequests.certificates.k8s.io"),
    ("poddisruptionbudgets", "poddisruptionbudgets.policy"),
    ("podgroups", "podgroups.scheduling.k8s.io"),
    ("priorityclasses", "priorityclasses.scheduling.k8s.io"),
    ("prioritylevelconfigurations", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"),
    ("replicasets", "replicasets.apps"),
    ("resourceclaims", "resourceclaims.resource.k8s.io"),
    ("resourceclaimtemplates", "resourceclaimtemplates.resource.k8s.io"),
    ("resourcepoolstatusrequests", "resourcepoolstatusrequests.resource.k8s.io"),
    ("resourceslices", "resourceslices.resource.k8s.io"),
    ("rolebindings", "rolebindings.rbac.authorization.k8s.io"),
    ("roles", "roles.rbac.authorization.k8s.io"),
    ("runtimeclasses", "runtimeclasses.node.k8s.io"),
    ("servicecidrs", "servicecidrs.networking.k8s.io"),
    ("statefulsets", "statefulsets.apps"),
    ("storageclasses", "storageclasses.storage.k8s.io"),
    ("storageversionmigrations", "storageversionmigrations.storagemigration.k8s.io"),
    ("storageversions", "storageversions.internal.apiserver.k8s.io"),
    ("validatingadmissionpolicies", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("validatingadmissionpolicybindings", "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    ("validatingwebhookconfigurations", "validatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("volumeattachments", "volumeattachments.storage.k8s.io"),
    ("volumeattributesclasses", "volumeattributesclasses.storage.k8s.io"),
    ("workloads", "workloads.scheduling.k8s.io"),
];

/// Resources of the core group (pkg/registry/core of Kubernetes 1.36) whose place is called as they are.
const CORE: [&str; 15] = [
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "serviceaccounts",
    "services",
];

/// Kept by kube-apiserver for itself. In 1.36 no configuration encrypts them, not even `*.*` (pkg/controlplane/instance.go and
/// pkg/registry/core/rest/storage_core.go ask a factory without transformers); what an older one has encrypted counts like anything else.
const OWN: [&str; 3] = ["masterleases", "peerserverleases", "ranges"];

/// Whether an EncryptionConfiguration has nothing to say about it.
pub fn is_own(resource: &str) -> bool {
    OWN.contains(&resource)
}

/// Whether an object lies below no prefix of this kube-apiserver's, by the name that [`resource`] gives it: of another API server that
/// shares the etcd, or of something else.
pub fn is_beside(resource: &str) -> bool {
    resource.starts_with('/')
}

/// The group of a resource by its name, empty for the core group. `None`: its place in etcd does not show it, and it is not known here.
pub fn group(resource: &str) -> Option<&str> {
    match resource.split_once('.') {
        Some((_, group)) => Some(group),
        None => CORE.binary_search(&resource).is_ok().then_some(""),
    }
}

/// A prefix as kube-apiserver takes it, with a slash at both ends (k8s.io/apiserver `storage/etcd3/store.go`: `path.Join("/", prefix)`).
pub fn api_prefix(text: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    for element in text.split('/') {
        match element {
            "" | "." => {}
            ".." => drop(elements.pop()),
            element => elements.push(element),
        }
    }
    let mut prefix = String::from("/");
    for element in elements {
        prefix.push_str(element);
        prefix.push('/');
    }
    prefix
}

/// What lies at this key of an etcd in which kube-apiserver has this prefix. Beside the prefix it is named `/ELEMENT`, by the first
/// element of its key.
pub fn resource<'a>(key: &'a [u8], prefix: &str) -> Cow<'a, str> {
    let Some(rest) = key.strip_prefix(prefix.as_bytes()) else { return beside(key) };
    let mut parts = rest.split(|byte| *byte == b'/');
    let first = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let mut second = || String::from_utf8_lossy(parts.next().unwrap_or_default());
    let name = match &*first {
        "services" => Cow::Borrowed(if second() == "endpoints" { "endpoints" } else { "services" }),
        group if group.contains('.') => Cow::Owned(format!("{}.{group}", second())),
        place => match PLACES.binary_search_by(|(known, _)| (*known).cmp(place)) {
            Ok(at) => Cow::Borrowed(PLACES[at].1),
            Err(_) => first,
        },
    };
    if is_plain(&name) { name } else { Cow::Borrowed("(not a resource)") }
}

fn beside(key: &[u8]) -> Cow<'_, str> {
    let rest = key.strip_prefix(b"/").unwrap_or(key);
    let first = String::from_utf8_lossy(rest.split(|byte| *byte == b'/').next().unwrap_or_default());
    if is_plain(&first) { Cow::Owned(format!("/{first}")) } else { Cow::Borrowed("/(not a name)") }
}

fn is_plain(name: &str) -> bool {
    name.len() <= NAME_MAX_BYTES
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_called_as_in_an_encryption_configuration() {
        for (key, expected) in [
            ("/registry/secrets/default/a", "secrets"),
            ("/registry/services/specs/default/a", "services"),
            ("/registry/services/endpoints/default/a", "endpoints"),
            ("/registry/deployments/default/a", "deployments.apps"),
            ("/registry/minions/node-1", "nodes"),
            ("/registry/example.com/widgets/default/a", "widgets.example.com"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", "apiservices.apiregistration.k8s.io"),
            ("/registry/masterleases/10.0.0.1", "masterleases"),
            ("/registry/ranges/serviceips", "ranges"),
            ("/registry//a", "(not a resource)"),
            ("/registry/\u{1b}[2J/a", "(not a resource)"),
        ] {
            assert_eq!(resource(key.as_bytes(), DEFAULT_PREFIX), expected, "{key}");
        }
    }

    #[test]
    fn what_lies_beside_the_prefix_is_no_resource_of_this_kube_apiserver() {
        for (key, expected) in [
            ("/openshift.io/oauth/tokens/a", "/openshift.io"),
            ("compact_rev_key", "/compact_rev_key"),
            ("/", "/(not a name)"),
            ("/registry", "/registry"),
            ("\u{1b}[2J/a", "/(not a name)"),
        ] {
            let name = resource(key.as_bytes(), DEFAULT_PREFIX);
            assert_eq!(name, expected, "{key}");
            assert!(is_beside(&name));
        }
        assert!(!is_beside(&resource(b"/registry//a", DEFAULT_PREFIX)));
    }

    #[test]
    fn a_prefix_has_a_slash_at_both_ends() {
        for (text, expected) in [
            ("registry", "/registry/"),
            ("//a//b/", "/a/b/"),
            ("", "/"),
            ("/", "/"),
            ("a/./b/../c", "/a/c/"),
            ("../a", "/a/"),
        ] {
            assert_eq!(api_prefix(text), expected, "{text}");
        }
    }

    #[test]
    fn every_resource_of_kubernetes_1_36_has_its_group() {
        // pkg/registry/*/rest of Kubernetes 1.36: each lies at /registry/RESOURCE, whatever its group.
        for expected in [
            "clustertrustbundles.certificates.k8s.io",
            "devicetaintrules.resource.k8s.io",
            "leasecandidates.coordination.k8s.io",
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
            "podcertificaterequests.certificates.k8s.io",
            "podgroups.scheduling.k8s.io",
            "resourcepoolstatusrequests.resource.k8s.io",
            "storageversionmigrations.storagemigration.k8s.io",
            "storageversions.internal.apiserver.k8s.io",
            "workloads.scheduling.k8s.io",
        ] {
            let (place, _) = expected.split_once('.').unwrap();
            assert_eq!(resource(format!("/registry/{place}/a").as_bytes(), DEFAULT_PREFIX), expected);
        }
    }

    #[test]
    fn the_places_are_in_the_order_in_which_they_are_searched() {
        assert!(PLACES.is_sorted() && CORE.is_sorted());
    }
}
