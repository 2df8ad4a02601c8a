//! Known secrets go through everything while every log is at its finest level, and are found nowhere.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use nodeseal::types::Key;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{CLIENT, Mine};
use crate::conformance::{Ground, Of};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn nothing_of_the_sdk_is_in_the_log_at_its_finest_level() {
    let mine = Mine::rsa();
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(log.clone()).finish();
    // On this thread, where all of it runs.
    tracing::subscriber::with_default(subscriber, || {
        tracing::trace!("the log works");
        let runtime = test_support::runtime::own();
        runtime.block_on(async {
            let kek = mine.kek();
            let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
            for _ in 0..2 {
                let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
                kek.unwrap_key(&wrapped, of.context()).await.unwrap();
                mine.server.door("revoke", &json!({}));
            }
            mine.server.door("client", &json!({ "client": CLIENT, "secret": "another" }));
            assert!(kek.probe().await.is_err() && mine.stranger().probe().await.is_err());
        });
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("the log works"));
    for word in mine.canaries().iter().map(String::as_str).chain(["azure_core", "typespec", "azure_identity", "Bearer"])
    {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

/// What the child is told. A test cannot change its own environment safely, so this one runs itself again.
const TOLD: &str = "NODESEAL_TEST_TOLD";

#[test]
fn nothing_of_the_environment_is_followed() {
    let runtime = test_support::runtime::own();
    if std::env::var_os(TOLD).is_some() {
        let mine = Mine::rsa();
        return runtime.block_on(async { drop(mine.kek().probe().await.unwrap()) });
    }
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}", trap.local_addr().unwrap());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "azure::log::nothing_of_the_environment_is_followed", "--nocapture"]).env(TOLD, "1");
    for name in ["AZURE_AUTHORITY_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"] {
        child.env(name, &url);
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        child.env(name, &url);
    }
    child.env("AZURE_TENANT_ID", "another").env("AZURE_CLIENT_ID", "another").env("AZURE_CLIENT_SECRET", "another");
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(trap.accept().is_err(), "somebody came");
}
