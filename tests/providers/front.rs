//! What a proxy is to HTTP, for unix sockets: stands before a server's socket and can be late, lose, hang, or answer by itself.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Answers a connection in the server's place.
pub type Act = Arc<dyn Fn(UnixStream) + Send + Sync>;

#[derive(Clone)]
pub enum Mode {
    Pass,
    /// The connection is closed at once.
    Reset,
    /// Nothing is ever answered.
    Silent,
    /// The answer waits.
    Late(Duration),
    /// The first bytes of the answer and no more.
    Half,
    Act(Act),
}

pub struct Front {
    dir: tempfile::TempDir,
    asked: Arc<AtomicUsize>,
    mode: Arc<Mutex<Mode>>,
}

impl Front {
    pub fn before(server: PathBuf) -> Self {
        let dir = tempfile::Builder::new().prefix("nodeseal-").tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("front")).unwrap();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (mode.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (mode, server) = (shared.lock().unwrap().clone(), server.clone());
                // The end of either side ends the connection.
                thread::spawn(move || serve(stream, &server, mode));
            }
        });
        Self { dir, asked, mode }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("front")
    }

    /// Connections so far: each question has its own.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

fn serve(mut client: UnixStream, server: &Path, mode: Mode) -> Option<()> {
    match mode {
        Mode::Reset => return client.shutdown(Shutdown::Both).ok(),
        Mode::Silent => {
            // Until the client gives up.
            while matches!(client.read(&mut [0; 1024]), Ok(1..)) {}
            thread::sleep(Duration::from_secs(30));
            return None;
        }
        Mode::Act(act) => {
            act(client);
            return None;
        }
        Mode::Pass | Mode::Late(_) | Mode::Half => {}
    }
    let mut upstream = UnixStream::connect(server).ok()?;
    let (mut asked, mut asking) = (upstream.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut asking, &mut asked);
        let _ = asked.shutdown(Shutdown::Write);
    });
    let mut part = [0; 16384];
    let len = upstream.read(&mut part).ok()?;
    if let Mode::Late(pause) = mode {
        thread::sleep(pause);
    }
    let first = if matches!(mode, Mode::Half) { len / 2 } else { len };
    client.write_all(&part[..first]).ok()?;
    if !matches!(mode, Mode::Half) {
        let _ = std::io::copy(&mut upstream, &mut client);
    }
    client.shutdown(Shutdown::Both).ok()
}
