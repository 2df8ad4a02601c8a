//! Where this node's kube-apiserver has its etcd and its EncryptionConfiguration, and whether that etcd is all of it: by the flags that it
//! is started with (`ctl::apiserver`), and by the folders of k3s and RKE2.

use std::path::{Path, PathBuf};

use crate::ctl::apiserver::{self, ENCRYPTION, Flags, RANCHER_SERVERS, Source, Started};
use crate::ctl::machine::Machine;
use crate::etcd::resource::api_prefix;
use crate::etcd::{Endpoint, TlsFiles};

/// In place of a file, where there is none that would say it.
const NOWHERE: &str = "the command line of kube-apiserver";

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
    /// What would say how kube-apiserver is started, and does not: then nobody knows whether this is all of its etcd.
    pub(super) unread: Option<PathBuf>,
}

impl Cluster {
    /// Looks below `root`, which is `/` but for tests.
    pub(super) fn find(root: &Path) -> Self {
        let machine = Machine::new(root.to_owned(), 0);
        let all = apiserver::find(&machine);
        let started = || all.iter().flatten();
        let mut found =
            started().find_map(|one| of_flags(&one.flags)).unwrap_or_else(|| of_rancher(&machine, started()));
        found.is_divided = started().flat_map(|one| one.flags.all("etcd-servers-overrides")).any(|one| !one.is_empty());
        // A shell in its place has other words, and starts it with flags that nobody sees.
        let is_understood = |one: &Started| one.source == Source::Added || of_flags(&one.flags).is_some();
        found.unread = match all.is_empty() {
            true => Some(NOWHERE.into()),
            false => all.iter().find_map(|one| match one {
                Ok(started) => (!is_understood(started)).then(|| started.said_in.clone().into()),
                Err(unseen) => Some(unseen.place()),
            }),
        };
        found
    }
}

/// Of all its flags; `None` if they do not name an etcd, without which it does not start.
fn of_flags(flags: &Flags) -> Option<Cluster> {
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
        encryption_config: file(ENCRYPTION),
        ..Cluster::default()
    })
}

/// The etcd or kine of k3s or RKE2. What it tells kube-apiserver is in its flags.
fn of_rancher<'a>(machine: &Machine, mut started: impl Iterator<Item = &'a Started>) -> Cluster {
    let flags = started.find(|one| one.source == Source::Added).map(|one| &one.flags);
    let last = |name: &str| flags.and_then(|flags| flags.last(name));
    let (prefix, encryption_config) = (last("etcd-prefix").map(api_prefix), last(ENCRYPTION).map(PathBuf::from));
    let found = RANCHER_SERVERS.iter().find_map(|server| etcd_of(&machine.at(server))).unwrap_or_default();
    Cluster { prefix, encryption_config, ..found }
}

fn etcd_of(server: &Path) -> Option<Cluster> {
    let kine = server.join("kine.sock");
    if kine.exists() {
        return Some(Cluster { endpoints: vec![Endpoint::Unix(kine)], ..Cluster::default() });
    }
    let tls = server.join("tls/etcd");
    let ca = Some(tls.join("server-ca.crt")).filter(|path| path.exists())?;
    let identity = Some((tls.join("client.crt"), tls.join("client.key")));
    let endpoints = "https://127.0.0.1:2379".parse().ok().into_iter().collect();
    Some(Cluster { endpoints, tls: Some(TlsFiles { ca, identity }), ..Cluster::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::apiserver::KUBEADM;

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
            assert_eq!(Cluster::find(root.path()), Cluster { unread: Some(KUBEADM.into()), ..Cluster::default() });
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
        let nothing = Cluster { unread: Some(NOWHERE.into()), ..Cluster::default() };
        assert_eq!(Cluster::find(tempfile::tempdir().unwrap().path()), nothing);
    }

    const UNIT: &str = "/etc/systemd/system/k3s.service";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// INSTALL_K3S_EXEC and `k3s server …`: the flags stand in the unit, and /etc/rancher has none.
    #[test]
    fn a_flag_in_the_unit_that_the_installer_of_k3s_writes_divides_its_etcd() {
        let unit = "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--kube-apiserver-arg' \\\n\t'etcd-servers-overrides=/secrets#https://10.0.0.9:2379' \\\n";
        let root = with_file(UNIT, unit);
        write(root.path(), "/var/lib/rancher/k3s/server/kine.sock", "");
        let found = Cluster::find(root.path());
        assert!(found.is_divided && found.unread.is_none() && found.endpoints.len() == 1, "{found:?}");
    }

    #[test]
    fn the_etcd_of_k3s_is_whole_only_if_all_that_it_is_told_was_read() {
        let start = |rest: &str| format!("[Service]\nExecStart=/usr/local/bin/k3s server {rest}\n");
        let root = with_file("/var/lib/rancher/k3s/server/kine.sock", "");
        let unread = || Cluster::find(root.path()).unread;
        assert_eq!(unread(), Some("the unit k3s".into()), "nobody knows how it was started");
        write(root.path(), UNIT, &start(""));
        assert_eq!(unread(), None);
        // A file that cannot be read, a variable, a script, a URL.
        write(root.path(), "/etc/rancher/k3s/config.yaml", "[");
        assert_eq!(unread(), Some("/etc/rancher/k3s/config.yaml".into()));
        write(root.path(), UNIT, &start("--config /srv/k3s.yaml"));
        assert_eq!(unread(), None, "that file is not used");
        write(
            root.path(),
            "/srv/k3s.yaml",
            "kube-apiserver-arg: [etcd-servers-overrides=/secrets#https://10.0.0.9:2379]\n",
        );
        assert!(Cluster::find(root.path()).is_divided);
        write(root.path(), "/srv/k3s.yaml.d/1.yml", "kube-apiserver-arg: [v=1]\n");
        assert!(!Cluster::find(root.path()).is_divided, "it replaces the one before");
        for rest in ["$OPTIONS", "-c https://10.0.0.1/k3s.yaml"] {
            write(root.path(), UNIT, &start(rest));
            assert!(unread().is_some(), "{rest}");
        }
        write(root.path(), UNIT, "[Service]\nExecStart=/usr/local/bin/start-it server\n");
        assert!(unread().is_some());
        write(
            root.path(),
            UNIT,
            "[Service]\nExecStart=/usr/local/bin/k3s server\nEnvironment=K3S_CONFIG_FILE=/srv/k3s.yaml\n",
        );
        write(root.path(), "/srv/k3s.yaml.d/1.yml", "[");
        assert_eq!(unread(), Some("/srv/k3s.yaml.d/1.yml".into()));
    }

    fn process(root: &Path, pid: u32, users: &str, line: &str) {
        write(root, &format!("/proc/{pid}/comm"), "kube-apiserver\n");
        write(root, &format!("/proc/{pid}/status"), &format!("Name:\tkube-apiserver\nUid:\t{users}\n"));
        write(root, &format!("/proc/{pid}/cmdline"), &line.replace(' ', "\0"));
    }

    #[test]
    fn a_process_of_root_says_how_kube_apiserver_was_started_and_one_of_another_user_does_not() {
        let root = tempfile::tempdir().unwrap();
        let line = "kube-apiserver --etcd-servers=https://127.0.0.1:2379 --etcd-servers-overrides=/secrets#https://a:1";
        process(root.path(), 7, "0\t0\t0\t0", line);
        process(root.path(), 8, "1000\t1000\t1000\t1000", "kube-apiserver --etcd-servers=https://b:1");
        let found = Cluster::find(root.path());
        assert!(found.is_divided && found.unread.is_none(), "{found:?}");
        assert_eq!(found.endpoints[0].to_string(), "https://127.0.0.1:2379");
        for users in ["1000\t1000\t1000\t1000", "1000\t0\t0\t0"] {
            process(root.path(), 7, users, line);
            let found = Cluster::find(root.path());
            assert!(found.endpoints.is_empty() && !found.is_divided && found.unread.is_some(), "{found:?}");
        }
    }

    #[test]
    fn a_process_may_have_flags_that_the_manifest_does_not_have_yet() {
        let manifest = "spec:\n  securityContext: {runAsUser: 65532}\n  containers:\n  - command: [kube-apiserver, --etcd-servers=https://127.0.0.1:2379]\n";
        let root = with_file(KUBEADM, manifest);
        let line = "kube-apiserver --etcd-servers=https://127.0.0.1:2379 --etcd-servers-overrides=/secrets#https://a:1";
        process(root.path(), 7, "65532\t65532\t65532\t65532", line);
        assert!(Cluster::find(root.path()).is_divided);
    }
}
