//! Whole nodes with providers: `nodeseal dev` with a software TPM each, one Vault, and a proxy before each of its keys that is late,
//! loses and lies as it is told.

mod calendar;
mod canary;
mod direct;
mod files;
mod measured;
mod nodes;
mod reload;
mod rotation;
mod several;
mod start;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use test_support::client::{Answer, Client, next_uid, v2};
use test_support::node::Node;
use test_support::process::until;

use crate::conformance::Ground;
use crate::dev::NODESEAL;
use crate::vault::Mine;

/// Fast enough for tests; the service warns that it is too fast for a provider.
const FAST: &str = "[write]\nprobe_every = \"1s\"\nactivation_delay = \"2s\"\n";

/// Rules of a node that may be told of these Vaults by a reload: its sandbox holds it to the ports and files that it was given at the start.
fn with_room_for(others: &[&Mine], rules: &str) -> String {
    let ports: Vec<u16> = others.iter().map(|vault| vault.url().rsplit_once(':').unwrap().1.parse().unwrap()).collect();
    let roots: Vec<_> =
        nodeseal::sandbox::Needs::default().system_roots().paths.into_iter().map(|need| need.path).collect();
    format!("sandbox = {{ allow_ports = {ports:?}, allow_paths = {roots:?} }}\n{rules}")
}

/// A debug build with a TPM of software, on a machine that runs other tests.
const SOON: Duration = Duration::from_secs(60);

/// The table of a Vault key.
fn table(name: &str, vault: &Mine, more: &str) -> String {
    format!(
        "[[provider]]\nname = \"{name}\"\nkind = \"vault\"\naddress = \"{}\"\nmount = \"{}\"\nkey = \"kubernetes\"\n{more}\n\
         auth = {{ method = \"approle\", role = \"{}\", credential = \"{name}-login\" }}\n",
        vault.url(),
        vault.name,
        vault.name
    )
}

/// Seals a login to a node.
fn seal(config: &Path, name: &str, content: &str) {
    let mut command = Command::new(NODESEAL);
    command.arg("--config").arg(config).args(["credentials", "seal", name]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A node with these providers, set up and serving.
fn start(providers: &[(&str, &Mine, &str)], rules: &str) -> Node {
    let mut node = prepare(providers, rules);
    let lines = begin(&mut node, providers);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    node
}

fn prepare(providers: &[(&str, &Mine, &str)], rules: &str) -> Node {
    let tables: String = providers.iter().map(|(name, vault, more)| table(name, vault, more)).collect();
    Node::prepare("", &format!("{rules}{tables}"))
}

/// Starts it and seals its logins; does not wait until it serves.
fn begin(node: &mut Node, providers: &[(&str, &Mine, &str)]) -> std::sync::mpsc::Receiver<String> {
    let lines = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    let config = node.config();
    for (name, vault, _) in providers {
        until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
        seal(&config, &format!("{name}-login"), &vault.login());
    }
    lines
}

fn fresh() -> Vec<u8> {
    let mut plaintext = vec![0; 32];
    getrandom::fill(&mut plaintext).unwrap();
    plaintext
}

/// What kube-apiserver stores for a seed, annotations and all.
#[derive(Clone)]
struct Text {
    plaintext: Vec<u8>,
    stored: v2::EncryptResponse,
}

impl Text {
    fn new(client: &Client) -> Self {
        Self::try_new(client).unwrap()
    }

    fn try_new(client: &Client) -> Answer<Self> {
        let plaintext = fresh();
        client.encrypt(&plaintext).map(|stored| Self { plaintext, stored })
    }

    fn request(&self) -> v2::DecryptRequest {
        let v2::EncryptResponse { ciphertext, key_id, annotations } = self.stored.clone();
        v2::DecryptRequest { ciphertext, uid: next_uid(), key_id, annotations }
    }

    fn open(&self, client: &Client) -> Answer<Vec<u8>> {
        client.decrypt_request(self.request())
    }

    fn assert_opens(&self, client: &Client) {
        assert_eq!(self.open(client).unwrap(), self.plaintext);
    }

    /// It brings a copy of its KEK by a provider, whichever KEK it is of.
    fn opens_elsewhere(&self) -> bool {
        let by_provider = [".wrap.nodeseal.internal", ".direct.nodeseal.internal"];
        self.stored.annotations.keys().any(|name| by_provider.iter().any(|end| name.ends_with(end)))
    }

    fn wraps(&self) -> usize {
        self.stored.annotations.keys().filter(|name| name.ends_with(".wrap.nodeseal.internal")).count()
    }
}

fn status(node: &Node) -> Value {
    node.ask(&["status"])
}

/// The exit code says whether it is healthy; the JSON is there either way.
fn any_status(node: &Node) -> Value {
    node.tool(&["status", "--json"]).json()
}

fn until_status(node: &Node, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(SOON, what, || {
        let status = any_status(node);
        is(&status).then_some(status)
    })
}

/// Changes the running node's file.
fn rewrite(node: &Node, change: impl FnOnce(&mut toml::Table)) {
    let mut file: toml::Table = fs::read_to_string(node.config()).unwrap().parse().unwrap();
    change(&mut file);
    let new = node.config().with_extension("edited");
    fs::write(&new, file.to_string()).unwrap();
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(&new, node.config()).unwrap();
}

/// The tables of these providers, as the file has them.
fn tables(providers: &[(&str, &Mine, &str)]) -> toml::Value {
    let text: String = providers.iter().map(|(name, vault, more)| table(name, vault, more)).collect();
    text.parse::<toml::Table>().unwrap()["provider"].clone()
}

impl Mine {
    /// The same, good for one login.
    fn login_that_serves_once(&self) -> String {
        json!({ "role_id": self.role_id, "secret_id": self.secret_id_that_serves(1) }).to_string()
    }

    /// What is sealed for an AppRole.
    fn login(&self) -> String {
        json!({ "role_id": self.role_id, "secret_id": self.secret_id }).to_string()
    }
}
