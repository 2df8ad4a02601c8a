//! moto's server on a port of its own: started, asked as an administrator would, and ended with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// moto's own account.
pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-central-1";

/// Python, on a machine that runs other tests.
const START_LIMIT: Duration = Duration::from_secs(60);

pub struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With TLS; only [`Moto::port`] is of use then.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(&["--ssl-cert", certificate.to_str().unwrap(), "--ssl-key", key.to_str().unwrap()])
    }

    fn start_with(arguments: &[&str]) -> Self {
        // The port is free when it is asked for. Should another process take it meanwhile, moto ends, and another one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = Command::new(python())
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/providers/aws/server.py"))
                .args(["--host", "127.0.0.1", "--port", &port.to_string()])
                .args(arguments)
                .env_remove("MOTO_PORT")
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let give_up = Instant::now() + START_LIMIT;
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                assert!(Instant::now() < give_up, "moto does not listen within {START_LIMIT:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("moto does not start");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// No answer from now on, and no listener.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// One operation of KMS.
    pub fn kms(&self, operation: &str, input: &Value) -> Value {
        let headers = format!(
            "X-Amz-Target: TrentService.{operation}\r\nContent-Type: application/x-amz-json-1.1\r\n{}",
            authorization("kms")
        );
        let text = self.post("/", &headers, &input.to_string());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{operation}: {text}"))
    }

    /// The ARN of a new symmetric key.
    pub fn key(&self) -> String {
        self.key_of(&json!({"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"}))
    }

    pub fn key_of(&self, input: &Value) -> String {
        let made = self.kms("CreateKey", input);
        made["KeyMetadata"]["Arn"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// A user who may do this, and nothing else: the id and the secret of its access key.
    pub fn user(&self, name: &str, may: &str) -> (String, String) {
        self.iam(&format!("Action=CreateUser&UserName={name}"));
        self.permit(name, may);
        self.access_key(name)
    }

    /// What a user may do from now on.
    pub fn permit(&self, user: &str, may: &str) {
        let policy =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": may, "Resource": "*"}]});
        self.put_policy(user, &policy);
    }

    /// The same, as a whole policy.
    pub fn put_policy(&self, user: &str, policy: &Value) {
        self.iam(&format!(
            "Action=PutUserPolicy&UserName={user}&PolicyName=p&PolicyDocument={}",
            encoded(&policy.to_string())
        ));
    }

    pub fn access_key(&self, user: &str) -> (String, String) {
        let made = self.iam(&format!("Action=CreateAccessKey&UserName={user}"));
        (between(&made, "AccessKeyId"), between(&made, "SecretAccessKey"))
    }

    /// A role whose login may do this.
    pub fn role(&self, name: &str, may: &str) -> String {
        let everybody = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]});
        let policy =
            json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": may, "Resource": "*"}]});
        let made = self.iam(&format!(
            "Action=CreateRole&RoleName={name}&AssumeRolePolicyDocument={}",
            encoded(&everybody.to_string())
        ));
        self.iam(&format!(
            "Action=PutRolePolicy&RoleName={name}&PolicyName=p&PolicyDocument={}",
            encoded(&policy.to_string())
        ));
        between(&made, "Arn")
    }

    /// From now on signatures and rights are checked; before, everything is allowed.
    pub fn enforce(&self) {
        self.post("/moto-api/reset-auth", "", "0");
    }

    /// Everything is allowed again, so that an administrator can go on.
    pub fn relax(&self) {
        self.post("/moto-api/reset-auth", "", "1000000");
    }

    pub fn iam(&self, form: &str) -> String {
        let headers = format!("Content-Type: application/x-www-form-urlencoded\r\n{}", authorization("iam"));
        self.post("/", &headers, &format!("{form}&Version=2010-05-08"))
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path} {body}\n{answer}");
        body.to_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Made once for all tests of this process.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/venv.sh");
        let made = Command::new(script).arg("providers/aws").stderr(Stdio::inherit()).output().unwrap();
        assert!(made.status.success(), "{script} failed");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    })
}

/// What moto takes service and region from; it is not signed.
fn authorization(service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=admin/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n"
    )
}

fn between(xml: &str, tag: &str) -> String {
    let inner = xml.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once("</"));
    inner.unwrap_or_else(|| panic!("no {tag} in {xml}")).0.to_owned()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
