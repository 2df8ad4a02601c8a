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
const PLACES: [(&str, &str); 41] = [
    ("certificatesigningrequests", "certificatesigningrequests.certificates.k8s.io"),
    ("clusterrolebindings", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("clusterroles", "clusterroles.rbac.authorization.k8s.io"),
    ("controllerrevisions", "controllerrevisions.apps"),
    ("controllers", "replicationcontrollers"),
    ("cronjobs", "cronjobs.batch"),
    ("csidrivers", "csidrivers.storage.k8s.io"),
    ("csinodes", "csinodes.storage.k8s.io"),
    ("csistoragecapacities", "csistoragecapacities.storage.k8s.io"),
    ("daemonsets", "daemonsets.apps"),
    ("deployments", "deployments.apps"),
    ("deviceclasses", "deviceclasses.resource.k8s.io"),
    ("endpointslices", "endpointslices.discovery.k8s.io"),
    ("flowschemas", "flowschemas.flowcontrol.apiserver.k8s.io"),
    ("horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling"),
    ("ingress", "ingresses.networking.k8s.io"),
    ("ingressclasses", "ingressclasses.networking.k8s.io"),
    ("ipaddresses", "ipaddresses.networking.k8s.io"),
    ("jobs", "jobs.batch"),
    ("leases", "leases.coordination.k8s.io"),
    ("minions", "nodes"),
    ("mutatingwebhookconfigurations", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("networkpolicies", "networkpolicies.networking.k8s.io"),
    ("poddisruptionbudgets", "poddisruptionbudgets.policy"),
    ("priorityclasses", "priorityclasses.scheduling.k8s.io"),
    ("prioritylevelconfigurations", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"),
    ("replicasets", "replicasets.apps"),
    ("resourceclaims", "resourceclaims.resource.k8s.io"),
    ("resourceclaimtemplates", "resourceclaimtemplates.resource.k8s.io"),
    ("resourceslices", "resourceslices.resource.k8s.io"),
    ("rolebindings", "rolebindings.rbac.authorization.k8s.io"),
    ("roles", "roles.rbac.authorization.k8s.io"),
    ("runtimeclasses", "runtimeclasses.node.k8s.io"),
    ("servicecidrs", "servicecidrs.networking.k8s.io"),
    ("statefulsets", "statefulsets.apps"),
    ("storageclasses", "storageclasses.storage.k8s.io"),
    ("validatingadmissionpolicies", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("validatingadmissionpolicybindings", "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    ("validatingwebhookconfigurations", "validatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("volumeattachments", "volumeattachments.storage.k8s.io"),
    ("volumeattributesclasses", "volumeattributesclasses.storage.k8s.io"),
];

/// Kept by kube-apiserver for itself. In 1.36 no configuration encrypts them, not even `*.*` (pkg/controlplane/instance.go and
/// pkg/registry/core/rest/storage_core.go ask a factory without transformers); what an older one has encrypted counts like anything else.
const OWN: [&str; 3] = ["masterleases", "peerserverleases", "ranges"];

/// Whether an EncryptionConfiguration has nothing to say about it.
pub fn is_own(resource: &str) -> bool {
    OWN.contains(&resource)
}

/// What lies at this key.
pub fn resource<'a>(key: &'a [u8], prefix: &str) -> Cow<'a, str> {
    let rest = key.strip_prefix(prefix.as_bytes()).unwrap_or(key);
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
    let is_plain = name.len() <= NAME_MAX_BYTES
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if is_plain { name } else { Cow::Borrowed("(not a resource)") }
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
    fn the_places_are_in_the_order_in_which_they_are_searched() {
        assert!(PLACES.is_sorted());
    }
}
