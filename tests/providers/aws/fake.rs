//! A server that answers one line for each operation and remembers what it was asked. For answers that no honest server gives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

pub const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub const MATERIAL: &str = "96083e4fb6dbc41d77578a213a6b6669c044dd4c143e96755396d2bf11fd6068";

/// Operation and input.
pub type Asked = (String, Value);

type Script = dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync;

pub struct Fake {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub fn start(script: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Arc<Script>) = (Arc::clone(&asked), Arc::new(script));
        // It lives as long as the test's process: the provider may ask until then.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(stream, &log, &*script));
            }
        });
        Self { port, asked }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn operations(&self) -> Vec<String> {
        self.asked().into_iter().map(|(operation, _)| operation).collect()
    }
}

/// An answer of DescribeKey for a good key, with the material that it has now.
pub fn described(material: Option<&str>) -> (u16, Value) {
    let mut about = json!({"KeyMetadata": {
        "Arn": KEY, "KeyId": KEY.rsplit('/').next(), "Enabled": true, "KeyState": "Enabled",
        "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT",
    }});
    if let Some(material) = material {
        about["KeyMetadata"]["CurrentKeyMaterialId"] = material.into();
    }
    (200, about)
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Asked>>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut operation, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => operation = value.rsplit('.').next().unwrap().to_owned(),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let input = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, answer) = script(&operation, &input);
        log.lock().unwrap().push((operation, input));
        // A text is sent as it is: a proxy's error page.
        let body = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/x-amz-json-1.1\r\n");
        if write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}
