//! Sits between the engine and a software TPM, as somebody on the bus would: sees every command, and answers what it likes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use test_support::swtpm::{Swtpm, free_port_pair};

// TPM_CC, TPM 2.0 Part 2 §6.5.2.
pub const EVICT_CONTROL: u32 = 0x120;
pub const NV_UNDEFINE_SPACE: u32 = 0x122;
pub const NV_DEFINE_SPACE: u32 = 0x12A;
pub const CREATE_PRIMARY: u32 = 0x131;
pub const NV_INCREMENT: u32 = 0x134;
pub const NV_READ: u32 = 0x14E;
pub const CREATE: u32 = 0x153;
pub const IMPORT: u32 = 0x156;
pub const LOAD: u32 = 0x157;
pub const UNSEAL: u32 = 0x15E;
pub const NV_READ_PUBLIC: u32 = 0x169;
pub const READ_PUBLIC: u32 = 0x173;
pub const START_AUTH_SESSION: u32 = 0x176;
pub const PCR_READ: u32 = 0x17E;
pub const POLICY_GET_DIGEST: u32 = 0x189;

/// The TPM behind: sends a command, gives its answer.
pub type Tpm<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<u8>;

/// A way through, open until the process ends.
pub struct Interposer {
    port: u16,
    seen: Arc<Mutex<Vec<Exchange>>>,
}

/// A command and its answer.
pub type Exchange = (Vec<u8>, Vec<u8>);

impl Interposer {
    /// `script` gets each command's code and bytes and the TPM behind, and gives the answer.
    pub fn before(tpm: &Swtpm, mut script: impl FnMut(u32, &[u8], Tpm<'_>) -> Vec<u8> + Send + 'static) -> Self {
        let target = tpm.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (port, commands, control) = listeners();
        let log = Arc::clone(&seen);
        // One client after the other, as swtpm has it: it queues no more than one connection, and a second would wait for the
        // kernel's retransmission.
        thread::spawn(move || commands.incoming().for_each(|client| serve(client.unwrap(), target, &mut script, &log)));
        thread::spawn(move || control.incoming().for_each(|client| pump(client.unwrap(), connect(target + 1))));
        Self { port, seen }
    }

    /// Answers `rc` to the first `times` commands with this code.
    pub fn answering(tpm: &Swtpm, command: u32, rc: u32, times: usize) -> Self {
        let mut left = times;
        Self::before(tpm, move |code, bytes, tpm| {
            if code == command && left > 0 {
                left -= 1;
                response(rc)
            } else {
                tpm(bytes)
            }
        })
    }

    /// Port of the command channel.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often a command was sent to us.
    pub fn count(&self, command: u32) -> usize {
        self.seen.lock().unwrap().iter().filter(|(bytes, _)| code(bytes) == command).count()
    }

    /// Everything that went through, with our answers.
    pub fn record(&self) -> Vec<Exchange> {
        self.seen.lock().unwrap().clone()
    }
}

/// Another process may take a port between the look at it and the bind.
fn listeners() -> (u16, TcpListener, TcpListener) {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let pair = |port| Some((port, bind(port).ok()?, bind(port + 1).ok()?));
    (0..100).find_map(|_| pair(free_port_pair())).expect("two ports that are free beside each other")
}

/// An answer that is a response code and nothing else.
pub fn response(rc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 0x01, 0, 0, 0, 10];
    bytes.extend_from_slice(&rc.to_be_bytes());
    bytes
}

fn serve(
    mut client: TcpStream,
    target: u16,
    script: &mut impl FnMut(u32, &[u8], Tpm<'_>) -> Vec<u8>,
    seen: &Mutex<Vec<Exchange>>,
) {
    let mut upstream = connect(target);
    let mut tpm = move |command: &[u8]| {
        upstream.write_all(command).unwrap();
        read_message(&mut upstream).unwrap_or_default()
    };
    while let Some(command) = read_message(&mut client) {
        let answer = script(code(&command), &command, &mut tpm);
        seen.lock().unwrap().push((command, answer.clone()));
        if answer.is_empty() || client.write_all(&answer).is_err() {
            return;
        }
    }
}

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

/// A command or an answer: tag, size of the whole, and the rest.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    stream.read_exact(&mut message).ok()?;
    let size = u32::from_be_bytes(message[2..6].try_into().unwrap()) as usize;
    message.resize(size.max(10), 0);
    stream.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

fn pump(client: TcpStream, upstream: TcpStream) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_tpm, mut to_tpm) = (upstream.try_clone().unwrap(), upstream);
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_tpm);
        let _ = to_tpm.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut from_tpm, &mut to_client);
    let _ = to_client.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()
}
