//! Where this node's kube-apiserver has its etcd and its EncryptionConfiguration: kubeadm's manifest, k3s or RKE2, found by
//! themselves when no flag names them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::etcd::{Endpoint, TlsFiles};

const KUBEADM: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const RKE2_MANIFEST: &str = "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml";
/// Folders of the servers of k3s and RKE2.
const RANCHER: [&str; 2] = ["/var/lib/rancher/k3s/server", "/var/lib/rancher/rke2/server"];
/// Bytes of a manifest.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) tls: Option<TlsFiles>,
    /// `--etcd-prefix`, if it is not the usual one.
    pub(super) prefix: Option<String>,
    pub(super) encryption_config: Option<PathBuf>,
    /// `--etcd-servers-overrides`: some resources lie elsewhere.
    pub(super) is_divided: bool,
}

impl Cluster {
    /// Looks below `root`, which is `/` but for tests.
    pub(super) fn find(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let manifests = [at(KUBEADM), at(RKE2_MANIFEST)];
        if let Some(found) = manifests.iter().find_map(|path| of_manifest(path)) {
            return found;
        }
        RANCHER.iter().find_map(|server| of_rancher(&at(server))).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
}

fn of_manifest(path: &Path) -> Option<Cluster> {
    let is_short = std::fs::metadata(path).ok()?.len() <= MANIFEST_MAX_BYTES;
    let text = std::fs::read_to_string(path).ok().filter(|_| is_short)?;
    let pod: Pod = serde_saphyr::from_str(&text).ok()?;
    let words: Vec<String> = pod.spec.containers.into_iter().flat_map(|one| [one.command, one.args].concat()).collect();
    let flag = |name: &str| words.iter().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let file = |name: &str| flag(name).map(PathBuf::from);
    let endpoints = flag("--etcd-servers")?.split(',').filter_map(|url| url.parse().ok()).collect();
    let tls =
        file("--etcd-cafile").map(|ca| TlsFiles { ca, identity: file("--etcd-certfile").zip(file("--etcd-keyfile")) });
    let prefix = flag("--etcd-prefix").map(|prefix| format!("{}/", prefix.trim_end_matches('/')));
    let (encryption_config, is_divided) =
        (file("--encryption-provider-config"), flag("--etcd-servers-overrides").is_some());
    Some(Cluster { endpoints, tls, prefix, encryption_config, is_divided })
}

fn of_rancher(server: &Path) -> Option<Cluster> {
    let encryption_config = Some(server.join("cred/encryption-config.json")).filter(|path| path.exists());
    let kine = server.join("kine.sock");
    if kine.exists() {
        return Some(Cluster { endpoints: vec![Endpoint::Unix(kine)], encryption_config, ..Cluster::default() });
    }
    let tls = server.join("tls/etcd");
    let ca = Some(tls.join("server-ca.crt")).filter(|path| path.exists())?;
    let identity = Some((tls.join("client.crt"), tls.join("client.key")));
    let endpoints = "https://127.0.0.1:2379".parse().ok().into_iter().collect();
    Some(Cluster { endpoints, tls: Some(TlsFiles { ca, identity }), encryption_config, ..Cluster::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(path: &str, text: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        root
    }

    #[test]
    fn the_flags_of_kubeadm_are_found_in_its_manifest() {
        let root = with_file(
            KUBEADM,
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command:\n    - kube-apiserver\n    - --etcd-cafile=/pki/ca.crt\n    - --etcd-certfile=/pki/c.crt\n    - --etcd-keyfile=/pki/c.key\n    - --etcd-servers=https://127.0.0.1:2379,https://10.0.0.2:2379\n    - --encryption-provider-config=/etc/kubernetes/enc.yaml\n",
        );
        let found = Cluster::find(root.path());
        assert_eq!(
            found.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["https://127.0.0.1:2379", "https://10.0.0.2:2379"]
        );
        let identity = Some(("/pki/c.crt".into(), "/pki/c.key".into()));
        assert_eq!(found.tls, Some(TlsFiles { ca: "/pki/ca.crt".into(), identity }));
        assert_eq!(found.encryption_config, Some("/etc/kubernetes/enc.yaml".into()));
        assert_eq!(found.prefix, None);
    }

    #[test]
    fn the_socket_of_kine_and_the_certificates_of_an_embedded_etcd_are_found() {
        let root = with_file("/var/lib/rancher/k3s/server/kine.sock", "");
        assert!(matches!(Cluster::find(root.path()).endpoints[..], [Endpoint::Unix(_)]));
        let root = with_file("/var/lib/rancher/rke2/server/tls/etcd/server-ca.crt", "");
        let found = Cluster::find(root.path());
        assert!(found.tls.is_some() && found.endpoints.len() == 1 && found.encryption_config.is_none());
        assert_eq!(Cluster::find(tempfile::tempdir().unwrap().path()), Cluster::default());
    }
}
