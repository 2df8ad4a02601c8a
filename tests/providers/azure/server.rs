//! The Azure of the tests (`server.py`), one for each test, ended with it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Python, on a machine that runs other tests.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    ready: Value,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // It ends when the pipe to its standard input does: with this process, however that ends.
        let child = python("server.py", folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        let mut child = child.unwrap();
        let begun = Instant::now();
        let ready = loop {
            if let Ok(text) = fs::read_to_string(folder.path().join("ready.json")) {
                break serde_json::from_str(&text).unwrap();
            }
            let ended = child.try_wait().unwrap().is_some();
            let log = || fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(!ended && begun.elapsed() < READY_TIMEOUT, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, folder, ready }
    }

    fn port(&self, name: &str) -> u16 {
        self.ready[name].as_u64().unwrap().try_into().unwrap()
    }

    pub fn plain(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port("plain")).into()
    }

    pub fn tls(&self) -> String {
        format!("https://127.0.0.1:{}", self.port("tls"))
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn tenant(&self) -> &str {
        self.ready["tenant"].as_str().unwrap()
    }

    pub fn resource(&self) -> &str {
        self.ready["resource"].as_str().unwrap()
    }

    /// As an administrator of the tenant.
    pub fn door(&self, operation: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.plain()).unwrap();
        let body = body.to_string();
        let len = body.len();
        write!(stream, "POST /door/{operation} HTTP/1.0\r\nContent-Length: {len}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{operation}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// As somebody who may do everything with keys.
    pub fn keys(&self, method: &str, path: &str, body: &Value) -> Value {
        self.door("key", &json!({ "method": method, "path": path, "body": body }))
    }

    /// Microsoft's own clients, on this server.
    pub fn microsofts_clients(&self) -> Output {
        python("clients.py", self.folder.path()).output().unwrap()
    }
}

/// Made once for all tests of this process.
fn python(script: &str, folder: &Path) -> Command {
    static PYTHON: OnceLock<String> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/venv.sh");
        let made = Command::new(script).arg("providers/azure").stderr(Stdio::inherit()).output().unwrap();
        assert!(made.status.success(), "{script} failed");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    });
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/azure").join(script)).arg(folder);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
