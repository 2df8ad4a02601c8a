//! Where this node's kube-apiserver has its etcd and its EncryptionConfiguration: kubeadm's manifest, k3s or RKE2, found by
//! themselves when no flag names them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::etcd::resource::api_prefix;
use crate::etcd::{Endpoint, TlsFiles};

pub(in crate::ctl) const KUBEADM: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
pub(in crate::ctl) const RKE2_MANIFEST: &str = "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml";
/// Folders of the servers of k3s and RKE2.
const RANCHER: [&str; 2] = ["/var/lib/rancher/k3s/server", "/var/lib/rancher/rke2/server"];
/// Their configuration, in which flags of kube-apiserver may stand (`kube-apiserver-arg`).
const RANCHER_CONFIG: [&str; 2] = ["/etc/rancher/k3s", "/etc/rancher/rke2"];
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
    /// A manifest that is there and says nothing that is understood.
    pub(super) unread: Option<PathBuf>,
}

impl Cluster {
    /// Looks below `root`, which is `/` but for tests.
    pub(super) fn find(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let manifests = [at(KUBEADM), at(RKE2_MANIFEST)];
        if let Some(found) = manifests.iter().find_map(|path| of_manifest(path)) {
            return found;
        }
        let mut found = RANCHER.iter().find_map(|server| of_rancher(&at(server))).unwrap_or_default();
        found.is_divided = RANCHER_CONFIG.iter().any(|folder| may_divide(&at(folder)));
        // Where one cannot look, one may be.
        Self { unread: manifests.into_iter().find(|path| path.try_exists().unwrap_or(true)), ..found }
    }
}

/// A static pod, of which only this is read.
#[derive(Deserialize)]
pub(in crate::ctl) struct Pod {
    pub(in crate::ctl) spec: PodSpec,
}

#[derive(Deserialize)]
pub(in crate::ctl) struct PodSpec {
    pub(in crate::ctl) containers: Vec<Container>,
    #[serde(default)]
    pub(in crate::ctl) volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ctl) struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    pub(in crate::ctl) volume_mounts: Vec<VolumeMount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ctl) struct VolumeMount {
    pub(in crate::ctl) name: String,
    pub(in crate::ctl) mount_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ctl) struct Volume {
    pub(in crate::ctl) name: String,
    pub(in crate::ctl) host_path: Option<HostPath>,
}

#[derive(Deserialize)]
pub(in crate::ctl) struct HostPath {
    pub(in crate::ctl) path: PathBuf,
}

impl Pod {
    pub(in crate::ctl) fn parse(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    pub(in crate::ctl) fn flags(&self) -> Flags {
        Flags(self.spec.containers.iter().flat_map(|one| [&one.command[..], &one.args].concat()).collect())
    }
}

/// The words of a command line, read as kube-apiserver does it (spf13/pflag): `--name=value` or `--name value`, `_` for `-` in a name
/// (k8s.io/component-base `cli/flag`, `WordSepNormalizeFunc`), and no flags behind `--`.
pub(in crate::ctl) struct Flags(pub(in crate::ctl) Vec<String>);

impl Flags {
    /// Every value that a flag is given, in their order.
    pub(in crate::ctl) fn all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let end = self.0.iter().position(|word| word == "--").unwrap_or(self.0.len());
        let words = &self.0[..end];
        words.iter().enumerate().filter_map(move |(at, word)| {
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let is_it = flag.strip_prefix("--").is_some_and(|flag| flag.replace('_', "-") == name);
            is_it.then(|| value.or_else(|| words.get(at + 1).map(String::as_str)).unwrap_or_default())
        })
    }

    /// Of several the last one counts.
    pub(in crate::ctl) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).next_back()
    }
}

fn of_manifest(path: &Path) -> Option<Cluster> {
    let is_short = std::fs::metadata(path).ok()?.len() <= MANIFEST_MAX_BYTES;
    let text = std::fs::read_to_string(path).ok().filter(|_| is_short)?;
    let flags = Pod::parse(&text)?.flags();
    let file = |name: &str| flags.last(name).map(PathBuf::from);
    // A list: a flag that is repeated adds to it.
    let servers: Vec<_> = flags.all("etcd-servers").flat_map(|urls| urls.split(',')).collect();
    if servers.is_empty() {
        return None;
    }
    let endpoints = servers.iter().filter_map(|url| url.parse().ok()).collect();
    let tls = file("etcd-cafile").map(|ca| TlsFiles { ca, identity: file("etcd-certfile").zip(file("etcd-keyfile")) });
    Some(Cluster {
        endpoints,
        tls,
        prefix: flags.last("etcd-prefix").map(api_prefix),
        encryption_config: file("encryption-provider-config"),
        is_divided: flags.all("etcd-servers-overrides").any(|overrides| !overrides.is_empty()),
        unread: None,
    })
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

/// Whether a file of this folder, or of `config.yaml.d` in it, has the flag. One in a comment costs a warning.
fn may_divide(folder: &Path) -> bool {
    let more =
        std::fs::read_dir(folder.join("config.yaml.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(folder.join("config.yaml")).chain(more).any(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.replace('_', "-").contains("etcd-servers-overrides")
    })
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

    fn of_flags(flags: &str) -> Cluster {
        let text = format!("spec:\n  containers:\n  - command:\n    - kube-apiserver\n{flags}");
        Cluster::find(with_file(KUBEADM, &text).path())
    }

    #[test]
    fn a_flag_and_its_value_may_be_two_words() {
        let found = of_flags(
            "    - --etcd-servers=https://127.0.0.1:2379\n    - --etcd-servers-overrides\n    - /secrets#https://10.0.0.9:2379\n",
        );
        assert!(found.is_divided, "Secrets lie in another etcd, and a scan of this one would count as whole");
    }

    #[test]
    fn flags_are_read_as_kube_apiserver_reads_them() {
        let found = of_flags(
            "    - --etcd_servers\n    - https://127.0.0.1:2379\n    - --etcd-servers=https://10.0.0.2:2379\n    - --etcd-prefix=a\n    - --etcd-prefix=b\n    - --etcd-servers-overrides=\n    - --\n    - --etcd-prefix=c\n",
        );
        assert_eq!((found.endpoints.len(), found.prefix.as_deref(), found.is_divided), (2, Some("/b/"), false));
    }

    #[test]
    fn a_manifest_that_is_not_understood_is_not_taken_for_none() {
        for text in ["spec: [", "spec:\n  containers:\n  - command: [sh, -c, kube-apiserver --etcd-servers=x]\n"] {
            let root = with_file(KUBEADM, text);
            let unread = Some(root.path().join(KUBEADM.trim_start_matches('/')));
            assert_eq!(Cluster::find(root.path()), Cluster { unread, ..Cluster::default() });
        }
    }

    #[test]
    fn a_prefix_is_taken_as_kube_apiserver_takes_it() {
        // k8s.io/apiserver storage/etcd3/store.go: path.Join("/", prefix), with a slash at its end. OpenShift has "kubernetes.io".
        for (flag, keys) in [("kubernetes.io", "/kubernetes.io/"), ("/registry", "/registry/"), ("//a//b/", "/a/b/")] {
            let found = of_flags(&format!("    - --etcd-servers=https://127.0.0.1:2379\n    - --etcd-prefix={flag}\n"));
            assert_eq!(found.prefix.as_deref(), Some(keys), "{flag}");
        }
    }

    #[test]
    fn a_flag_for_kube_apiserver_in_the_configuration_of_k3s_divides_its_etcd() {
        for path in ["/etc/rancher/k3s/config.yaml", "/etc/rancher/rke2/config.yaml.d/10-etcd.yaml"] {
            let root = with_file(path, "kube-apiserver-arg:\n- etcd-servers-overrides=/events#https://10.0.0.9:2379\n");
            assert!(Cluster::find(root.path()).is_divided, "{path}");
        }
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
