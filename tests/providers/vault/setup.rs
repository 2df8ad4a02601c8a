//! The script and the policy that `nodeseal setup` writes, on a Vault of their own.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use nodeseal::provider::Kek;
use nodeseal::provider::vault::{TrustAnchors, Vault, VaultAuth, VaultSettings};
use nodeseal::types::Key;
use serde_json::{Value, json};
use test_support::proxy::Proxy;

use super::server::{ROOT_TOKEN, Server, program};
use crate::conformance::{Of, TIMEOUT};
use crate::credentials::Memory;
use crate::setup::Written;

/// As a login with this token. HTTP/1.0, so that the answer ends with the connection.
fn ask(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(server.plain()).unwrap();
    let (body, token) = (body.to_string(), format!("X-Vault-Token: {token}\r\n"));
    let len = body.len();
    write!(stream, "{method} /v1/{path} HTTP/1.0\r\n{token}Content-Length: {len}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Runs the script as an administrator would.
fn set_up(server: &Server, written: &Written) {
    let vault = program("vault");
    let folder = vault.parent().unwrap();
    let output = Command::new("sh")
        .arg(written.path("vault/setup.sh"))
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("HOME", written.home())
        .env("VAULT_ADDR", format!("http://{}", server.plain()))
        .env("VAULT_TOKEN", ROOT_TOKEN)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What a policy must never let a node do, each with a body that an administrator's request could have.
fn others() -> Vec<(&'static str, &'static str)> {
    let on_key = [
        ("POST", "kv/keys/kubernetes"),
        ("DELETE", "kv/keys/kubernetes"),
        ("LIST", "kv/keys"),
        ("GET", "kv/keys/other"),
        ("POST", "kv/keys/other"),
        ("POST", "kv/keys/kubernetes/config"),
        ("POST", "kv/keys/kubernetes/rotate"),
        ("POST", "kv/keys/kubernetes/trim"),
        ("POST", "kv/keys/kubernetes/import_version"),
        ("GET", "kv/export/encryption-key/kubernetes"),
        ("GET", "kv/backup/kubernetes"),
        ("POST", "kv/restore/kubernetes"),
        ("GET", "kv/encrypt/kubernetes"),
        ("DELETE", "kv/encrypt/kubernetes"),
        ("POST", "kv/encrypt/other"),
        ("POST", "kv/decrypt/other"),
        ("POST", "kv/encrypt/kubernetes2"),
        ("POST", "kv/encrypt/kubernetes/more"),
        ("POST", "kv/rewrap/kubernetes"),
        ("POST", "kv/datakey/plaintext/kubernetes"),
        ("POST", "kv/datakey/wrapped/kubernetes"),
        ("POST", "kv/hmac/kubernetes"),
        ("POST", "kv/sign/kubernetes"),
        ("POST", "kv/random"),
        ("GET", "kv/wrapping_key"),
        ("POST", "kv/config/keys"),
        ("POST", "kv/cache-config"),
        ("POST", "transit/encrypt/kubernetes"),
    ];
    let elsewhere = [
        ("GET", "sys/policies/acl/nodes"),
        ("POST", "sys/policies/acl/nodes"),
        ("GET", "sys/mounts"),
        ("POST", "sys/mounts/more"),
        ("DELETE", "sys/mounts/kv"),
        ("POST", "sys/remount"),
        ("GET", "sys/auth"),
        ("POST", "sys/auth/more"),
        ("PUT", "sys/seal"),
        ("GET", "sys/audit"),
        ("GET", "sys/raw/core"),
        ("GET", "auth/approle/role/nodes"),
        ("GET", "auth/approle/role/nodes/role-id"),
        ("POST", "auth/approle/role/nodes/secret-id"),
        ("POST", "auth/token/create"),
        ("GET", "secret/data/x"),
    ];
    on_key.into_iter().chain(elsewhere).collect()
}

const VALUES: &str = "cluster = \"prod\"\nkubernetes = \"k3s\"\n[vault]\naddress = \"https://vault.example:8200\"\n\
                      mount = \"kv\"\nkey = \"kubernetes\"\nrole = \"nodes\"\n";

#[tokio::test]
async fn the_policy_of_a_set_up_allows_what_nodeseal_asks_for_and_nothing_else() {
    let (server, written) = (Server::start(), Written::of(VALUES));
    set_up(&server, &written);
    let policy = server.get("sys/policies/acl/nodes");
    assert_eq!(policy["data"]["policy"].as_str().unwrap(), written.read("vault/policy.hcl"));
    let key = server.get("kv/keys/kubernetes");
    assert_eq!((&key["data"]["type"], &key["data"]["deletion_allowed"]), (&json!("aes256-gcm96"), &json!(false)));
    let text = |answer: Value, field: &str| answer["data"][field].as_str().unwrap().to_owned();
    let role_id = text(server.get("auth/approle/role/nodes/role-id"), "role_id");
    let secret_id = text(server.post("auth/approle/role/nodes/secret-id", json!({})), "secret_id");
    let login = json!({ "role_id": role_id, "secret_id": secret_id });

    // All that the provider does, as a node with this set-up does it.
    let proxy = Proxy::before(server.plain());
    let auth = VaultAuth::AppRole {
        mount: "approle".parse().unwrap(),
        role: Some("nodes".parse().unwrap()),
        credential: "vault-approle".parse().unwrap(),
    };
    let settings = VaultSettings {
        address: proxy.url().parse().unwrap(),
        namespace: None,
        mount: "kv".parse().unwrap(),
        key: "kubernetes".parse().unwrap(),
        created: None,
        auth,
        roots: TrustAnchors::System,
        timeout: TIMEOUT,
    };
    let vault = Vault::new(settings, Memory::with("vault-approle", &login.to_string()));
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    vault.probe().await.unwrap();
    let wrapped = vault.wrap_key(&key, of.context()).await.unwrap();
    assert_eq!(vault.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    let seen = proxy.seen();
    let asked: BTreeSet<(&str, &str)> =
        seen.iter().map(|seen| (seen.head.split(' ').next().unwrap(), seen.path())).collect();
    let wanted = [
        ("GET", "/v1/kv/keys/kubernetes"),
        ("POST", "/v1/auth/approle/login"),
        ("POST", "/v1/kv/decrypt/kubernetes"),
        ("POST", "/v1/kv/encrypt/kubernetes"),
    ];
    assert_eq!(asked, BTreeSet::from(wanted));

    let given = server.post("auth/approle/login", login);
    let token = given["auth"]["client_token"].as_str().unwrap();
    assert_eq!(given["auth"]["token_policies"], json!(["default", "nodes"]));
    let plain = json!({ "plaintext": "AAAA" });
    assert_eq!(ask(&server, token, "POST", "kv/encrypt/kubernetes", &plain).0, 200);
    for (method, path) in others() {
        let (status, answer) = ask(&server, token, method, path, &json!({ "plaintext": "AAAA", "type": "transit" }));
        assert_eq!(status, 403, "{method} {path}: {answer}");
    }
    // The proof that these are requests which an administrator may make, and not ones that Vault refuses to all.
    assert_eq!(ask(&server, ROOT_TOKEN, "GET", "kv/backup/none", &Value::Null).0, 500);
    assert_eq!(ask(&server, ROOT_TOKEN, "POST", "kv/rewrap/kubernetes", &json!({})).0, 400);
    // A key that is gone is not made again by who encrypts with it.
    server.post("kv/keys/kubernetes/config", json!({ "deletion_allowed": true }));
    server.delete("kv/keys/kubernetes");
    assert_eq!(ask(&server, token, "POST", "kv/encrypt/kubernetes", &plain).0, 403);
    assert_eq!(ask(&server, ROOT_TOKEN, "GET", "kv/keys/kubernetes", &Value::Null).0, 404);
}

#[test]
fn the_script_of_a_set_up_runs_again_and_keeps_the_key() {
    let (server, written) = (Server::start(), Written::of(VALUES));
    set_up(&server, &written);
    server.post("kv/keys/kubernetes/rotate", json!({}));
    let role = server.get("auth/approle/role/nodes/role-id")["data"]["role_id"].clone();
    let keys = server.get("kv/keys/kubernetes")["data"].clone();
    set_up(&server, &written);
    assert_eq!(server.get("kv/keys/kubernetes")["data"], keys);
    assert_eq!(server.get("auth/approle/role/nodes/role-id")["data"]["role_id"], role);
}
