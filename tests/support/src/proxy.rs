//! A proxy between a provider and its server that can be late, lose, hang or lie, and that writes down what it saw.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One request.
#[derive(Clone)]
pub struct Seen {
    /// Request line and header lines.
    pub head: String,
    pub body: String,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// An answer on its way back.
#[derive(Clone)]
pub struct Given {
    pub status: u16,
    pub kind: String,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
    pub body: String,
}

type Change = Arc<dyn Fn(&Seen, Given) -> Given + Send + Sync>;

#[derive(Clone)]
pub enum Mode {
    Pass,
    /// The connection is closed at once.
    Reset,
    /// The request is taken and never answered.
    Silent,
    /// The answer waits.
    Late(Duration),
    /// The answer stops in the middle.
    Half,
    Change(Change),
}

pub struct Proxy {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Proxy {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = (Arc::new(Mutex::new(Mode::Pass)), Arc::new(Mutex::new(Vec::new())));
        let shared = (mode.clone(), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mode, seen) = shared.clone();
                // The end of either side ends the connection.
                thread::spawn(move || serve(stream, server, &mode, &seen));
            }
        });
        Self { address, mode, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For what stands before it.
    pub fn server_side(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn change(&self, change: impl Fn(&Seen, Given) -> Given + Send + Sync + 'static) {
        self.set(Mode::Change(Arc::new(change)));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path().contains(path)).count()
    }
}

/// Head and body of a message; `None` at the end of the stream.
fn message(stream: &mut TcpStream, to_end: bool) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 16384];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let len = stream.read(&mut part).ok().filter(|len| *len > 0)?;
        bytes.extend_from_slice(&part[..len]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end + 4);
    let len =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    while (to_end && len.is_none()) || body.len() < len.unwrap_or(0) {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(len) => body.extend_from_slice(&part[..len]),
        }
    }
    Some((head, body))
}

fn serve(mut client: TcpStream, server: SocketAddr, mode: &Mutex<Mode>, seen: &Mutex<Vec<Seen>>) -> Option<()> {
    loop {
        if matches!(*mode.lock().unwrap(), Mode::Reset) {
            return client.shutdown(Shutdown::Both).ok();
        }
        let (head, body) = message(&mut client, false)?;
        let request = Seen { head, body: String::from_utf8_lossy(&body).into_owned() };
        seen.lock().unwrap().push(request.clone());
        let now = mode.lock().unwrap().clone();
        match now {
            Mode::Reset => return client.shutdown(Shutdown::Both).ok(),
            Mode::Silent => {
                // Until the client gives up.
                let _ = client.read(&mut [0]);
                return None;
            }
            _ => {}
        }
        let given = forward(&request, &body, server)?;
        let given = match &now {
            Mode::Change(change) => change(&request, given),
            Mode::Late(pause) => {
                thread::sleep(*pause);
                given
            }
            _ => given,
        };
        let Given { status, kind, challenge, body } = given;
        let challenge = challenge.map(|text| format!("WWW-Authenticate: {text}\r\n")).unwrap_or_default();
        let location = if status == 307 { "Location: https://active.example:8200/v1/x?y=z\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{location}{challenge}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).ok()?;
        if matches!(now, Mode::Half) {
            client.write_all(&body.as_bytes()[..body.len() / 2]).ok()?;
            return client.shutdown(Shutdown::Both).ok();
        }
        client.write_all(body.as_bytes()).ok()?;
    }
}

/// As HTTP/1.0, so that the answer comes in one piece and ends with the connection.
fn forward(request: &Seen, body: &[u8], server: SocketAddr) -> Option<Given> {
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream.write_all(request.head.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes()).ok()?;
    upstream.write_all(b"\r\n\r\n").ok()?;
    upstream.write_all(body).ok()?;
    let (head, body) = message(&mut upstream, true)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let head = Seen { head, body: String::new() };
    let kind = head.header("content-type").unwrap_or("text/plain").to_owned();
    let challenge = head.header("www-authenticate").map(str::to_owned);
    Some(Given { status, kind, challenge, body: String::from_utf8_lossy(&body).into_owned() })
}
