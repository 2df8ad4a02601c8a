//! A Vault of the tests, in memory, ended with the tests even when they are killed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::tls::{Authority, Trouble};

pub const ROOT_TOKEN: &str = "root-of-the-tests";
/// A machine under load takes seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The plugin of the login of Kubernetes, which is its type too.
pub const KUBERNETES: &str = "vault-plugin-auth-kubernetes";

/// One process. Its listeners: one in clear, one with a good certificate, and one for each trouble with certificates.
pub struct Server {
    plain: SocketAddr,
    tls: [SocketAddr; 3],
    folder: tempfile::TempDir,
    plugins: Option<tempfile::TempDir>,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Vault ends its plugins when it is asked to end, and not when it is killed.
        let _ = kill(Pid::from_raw(self.process.id().try_into().unwrap()), Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < END_TIMEOUT {
            if self.process.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves all tests of this program. Each has a mount of its own.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Server::start();
        for method in ["approle", "jwt", "cert"] {
            server.post(&format!("sys/auth/{method}"), json!({ "type": method }));
        }
        server
    })
}

/// A name that no other test has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn program(name: &str) -> PathBuf {
    let cache = || {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home).unwrap().join("nodeseal/servers")
    };
    let program = std::env::var_os("NODESEAL_SERVERS").map_or_else(cache, PathBuf::from).join(name);
    assert!(program.exists(), "{} is missing: tests/providers/build-vault.sh builds it", program.display());
    program
}

/// Free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [_; N] = std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Server {
    pub fn start() -> Self {
        // Another process may take a port between our look and Vault's.
        (0..3).find_map(|_| Self::try_start(&[])).expect("Vault does not start")
    }

    /// Takes [`KUBERNETES`] for a type of login.
    pub fn with_plugin() -> Self {
        // Vault takes every file of the folder for a plugin, and no links.
        let folder = tempfile::tempdir().unwrap();
        fs::copy(program(KUBERNETES), folder.path().join(KUBERNETES)).unwrap();
        let argument = format!("-dev-plugin-dir={}", folder.path().display());
        let mut server = (0..3).find_map(|_| Self::try_start(&[&argument])).expect("Vault does not start");
        server.plugins = Some(folder);
        server
    }

    fn try_start(more: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ports = free_ports::<4>();
        let mut config = String::from("disable_mlock = true\n");
        for (trouble, port) in [Trouble::None, Trouble::Expired, Trouble::OtherName].into_iter().zip(&ports[1..]) {
            let (chain, key) = authority.server(trouble);
            let file = |what: &str, text: &str| {
                let path = folder.path().join(format!("{port}.{what}"));
                fs::write(&path, text).unwrap();
                path.display().to_string()
            };
            config.push_str(&format!(
                "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"\n}}\n",
                file("crt", &chain),
                file("key", &key)
            ));
        }
        let config_file = folder.path().join("vault.hcl");
        fs::write(&config_file, config).unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // The end of the thread that starts a process ends the process: this one waits for ever.
        let (send, started) = mpsc::channel();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program("vault"))
            .args(["server", "-dev", "-dev-no-store-token", "-log-level=warn"])
            .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{}", ports[0]))
            .arg(format!("-config={}", config_file.display()))
            .args(more)
            .env_clear()
            .env("HOME", folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        thread::spawn(move || {
            send.send(command.spawn()).unwrap();
            loop {
                thread::park();
            }
        });
        let process = started.recv().unwrap().expect("setpriv of util-linux");
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tls = [address(ports[1]), address(ports[2]), address(ports[3])];
        let mut server = Self { plain: address(ports[0]), tls, folder, plugins: None, process };
        let begun = Instant::now();
        while begun.elapsed() < READY_TIMEOUT {
            if matches!(server.ask("GET", "sys/health", ""), Some((200, _))) {
                return Some(server);
            }
            if server.process.try_wait().unwrap().is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{}", fs::read_to_string(server.folder.path().join("log")).unwrap());
        None
    }

    pub const fn plain(&self) -> SocketAddr {
        self.plain
    }

    pub fn tls(&self, trouble: Trouble) -> String {
        format!("https://{}", self.tls[trouble as usize])
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// As the operator. HTTP/1.0, so that the answer ends with the connection.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        self.ask_with(method, path, body, "")
    }

    fn ask_with(&self, method: &str, path: &str, body: &str, more: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.plain).ok()?;
        let len = body.len();
        write!(
            stream,
            "{method} /v1/{path} HTTP/1.0\r\nX-Vault-Token: {ROOT_TOKEN}\r\n{more}Content-Length: {len}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    fn must(&self, method: &str, path: &str, body: &str, more: &str) -> Value {
        let (status, answer) = self.ask_with(method, path, body, more).unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub fn get(&self, path: &str) -> Value {
        self.must("GET", path, "", "")
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        self.must("POST", path, &body.to_string(), "")
    }

    /// The answer is not given but wrapped: its one-time token.
    pub fn post_wrapped(&self, path: &str, body: Value) -> String {
        let answer = self.must("POST", path, &body.to_string(), "X-Vault-Wrap-TTL: 120s\r\n");
        answer["wrap_info"]["token"].as_str().unwrap().to_owned()
    }

    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, "", "");
    }

    /// The policy that docs/providers/vault.md gives, of these of its rights.
    pub fn allow(&self, name: &str, rights: &[&str]) {
        self.allow_on(name, name, rights);
    }

    /// The same by a policy of this name, on that mount.
    pub fn allow_on(&self, policy_name: &str, name: &str, rights: &[&str]) {
        let mut policy = String::from("# Nothing but what follows.\n");
        for right in rights {
            let may = if *right == "keys" { "read" } else { "update" };
            policy.push_str(&format!("path \"{name}/{right}/kubernetes\" {{ capabilities = [\"{may}\"] }}\n"));
        }
        self.post(&format!("sys/policies/acl/{policy_name}"), json!({ "policy": policy }));
    }
}
