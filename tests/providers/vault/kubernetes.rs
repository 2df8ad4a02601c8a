//! The login of Kubernetes: Vault's own plugin, and an API server that answers nothing but TokenReviews.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nodeseal::provider::vault::{Vault, VaultAuth, VaultSettings};
use nodeseal::provider::{ErrorKind, Kek};
use rcgen::KeyPair;
use serde_json::{Value, json};
use test_support::proxy::Proxy;

use super::Mine;
use super::logins::jwt;
use super::server::{KUBERNETES, Server};
use crate::conformance::refused;

/// Says of every token that it is that of `system:serviceaccount:kube-system:nodeseal`.
fn token_reviews() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || review(stream));
        }
    });
    address
}

fn review(mut stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut len = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        len = line.to_ascii_lowercase().strip_prefix("content-length:").map_or(len, |len| len.trim().parse().unwrap());
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let mut review: Value = serde_json::from_slice(&body).ok()?;
    review["status"] = json!({
        "authenticated": true, "audiences": review["spec"]["audiences"],
        "user": { "username": "system:serviceaccount:kube-system:nodeseal", "uid": "1-2-3" }
    });
    let body = review.to_string();
    let len = body.len();
    write!(stream, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}")
        .ok()
}

fn service_account(key: &KeyPair, name: &str) -> String {
    let account = json!({ "namespace": "kube-system", "serviceaccount": { "name": name, "uid": "1-2-3" } });
    // An algorithm that the plugin takes. It leaves the signature itself to the TokenReview.
    jwt(key, "ES256", json!({ "sub": "x", "aud": ["vault"], "kubernetes.io": account }))
}

#[tokio::test]
async fn a_service_account_logs_in_by_its_projected_token() {
    let mine = Mine::new();
    // Its own server: the plugin is a process of Vault's, and ends when Vault is asked to end.
    let server = Server::with_plugin();
    server.post("sys/auth/kubernetes", json!({ "type": KUBERNETES }));
    let host = format!("http://{}", token_reviews());
    let config = json!({ "kubernetes_host": host, "disable_local_ca_jwt": true, "token_reviewer_jwt": "reviewer" });
    server.post("auth/kubernetes/config", config);
    server.post("sys/mounts/transit", json!({ "type": "transit" }));
    server.post("transit/keys/kubernetes", json!({}));
    server.allow("transit", &["encrypt", "decrypt", "keys"]);
    let role = json!({
        "bound_service_account_names": ["nodeseal"], "bound_service_account_namespaces": ["kube-system"],
        "audience": "vault", "token_policies": ["transit"]
    });
    server.post("auth/kubernetes/role/nodeseal", role);

    let key = KeyPair::generate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, service_account(&key, "other")).unwrap();
    let (mount, role) = ("kubernetes".parse().unwrap(), Some("nodeseal".parse().unwrap()));
    let auth = VaultAuth::Jwt { mount, role, file: file.clone() };
    let proxy = Proxy::before(server.plain());
    let (address, mount) = (proxy.url().parse().unwrap(), "transit".parse().unwrap());
    let vault = Vault::new(
        VaultSettings { address, mount, ..mine.settings(auth) },
        Arc::<crate::credentials::Memory>::default(),
    );
    refused(&mine, vault.probe().await, &[ErrorKind::Login]);
    fs::write(&file, service_account(&key, "nodeseal")).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    vault.probe().await.unwrap();
    assert_eq!(proxy.count("auth/kubernetes/login"), 2);
}
