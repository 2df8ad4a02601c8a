//! What kube-apiserver is given, as docs/operations/kubeadm.md, k3s.md, rke2.md and encryption.md show it.

use super::values::{Kubernetes, Values};
use crate::config::Config;
use crate::ctl::encryption_config;

/// Where the page of this distribution puts the EncryptionConfiguration.
pub(super) const fn folder(kubernetes: Kubernetes) -> &'static str {
    match kubernetes {
        Kubernetes::Kubeadm => "/etc/kubernetes/nodeseal",
        Kubernetes::K3s => "/etc/rancher/k3s/nodeseal",
        Kubernetes::Rke2 => "/etc/rancher/rke2/nodeseal",
    }
}

/// Names and contents of the EncryptionConfigurations, in the order in which they are used.
pub(super) fn encryption(values: &Values, config: &Config) -> Vec<(&'static str, String)> {
    let of = |order| encryption_config::yaml(config, &values.resources, order);
    use encryption_config::Order;
    let only = ("encryption/3-only.yaml", of(Order::KmsAlone));
    match values.kubernetes {
        Kubernetes::Kubeadm | Kubernetes::K3s => vec![
            ("encryption/1-reads.yaml", of(Order::IdentityFirst)),
            ("encryption/2-writes.yaml", of(Order::KmsFirst)),
            only,
        ],
        // The two before it hold a key of RKE2, which is copied by hand and never asked for here.
        Kubernetes::Rke2 => vec![only],
    }
}

/// Flags and mounts of kube-apiserver.
pub(super) fn apiserver(kubernetes: Kubernetes) -> Vec<(&'static str, String)> {
    match kubernetes {
        Kubernetes::Kubeadm => vec![
            ("kubernetes/cluster-configuration.yaml", KUBEADM_NEW.to_owned()),
            ("kubernetes/kube-apiserver.yaml", KUBEADM_OLD.to_owned()),
        ],
        Kubernetes::K3s => vec![("kubernetes/config.yaml", K3S.to_owned())],
        Kubernetes::Rke2 => vec![("kubernetes/config.yaml", RKE2.to_owned())],
    }
}

const KUBEADM_NEW: &str = r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  extraArgs:
    - name: encryption-provider-config
      value: /etc/kubernetes/nodeseal/encryption.yaml
    - name: encryption-provider-config-automatic-reload
      value: "true"
  extraVolumes:
    - name: nodeseal-socket
      hostPath: /run/nodeseal
      mountPath: /run/nodeseal
      pathType: Directory
      readOnly: true
    - name: nodeseal-config
      hostPath: /etc/kubernetes/nodeseal
      mountPath: /etc/kubernetes/nodeseal
      pathType: Directory
      readOnly: true
"#;

const KUBEADM_OLD: &str = "spec:
  containers:
    - command:
        - kube-apiserver
        - --encryption-provider-config=/etc/kubernetes/nodeseal/encryption.yaml
        - --encryption-provider-config-automatic-reload=true
      volumeMounts:
        - name: nodeseal-socket
          mountPath: /run/nodeseal
          readOnly: true
        - name: nodeseal-config
          mountPath: /etc/kubernetes/nodeseal
          readOnly: true
  volumes:
    - name: nodeseal-socket
      hostPath:
        path: /run/nodeseal
        type: Directory
    - name: nodeseal-config
      hostPath:
        path: /etc/kubernetes/nodeseal
        type: Directory
";

const K3S: &str = r#"kube-apiserver-arg:
  - "encryption-provider-config=/etc/rancher/k3s/nodeseal/encryption.yaml"
  - "encryption-provider-config-automatic-reload=true"
"#;

const RKE2: &str = r#"kube-apiserver-arg:
  - "encryption-provider-config=/etc/rancher/rke2/nodeseal/encryption.yaml"
  - "encryption-provider-config-automatic-reload=true"
kube-apiserver-extra-mount:
  - "/run/nodeseal:/run/nodeseal:ro"
  - "/etc/rancher/rke2/nodeseal:/etc/rancher/rke2/nodeseal:ro"
"#;
