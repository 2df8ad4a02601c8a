//! TLS before a server that speaks in clear: slow to shake hands, under certificates that change, and under a name of which the first
//! address is silent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What is served from now on.
struct Face {
    config: Arc<ServerConfig>,
    /// Before each handshake.
    pause: Duration,
}

pub struct TlsFront {
    host: String,
    at: SocketAddr,
    folder: tempfile::TempDir,
    face: Arc<Mutex<Face>>,
    accepted: Arc<AtomicUsize>,
    hang_ups: watch::Sender<()>,
    _silent: Option<Silent>,
}

/// An authority of its own, and its certificate.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn signs(&self, host: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let lc = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(lc).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

impl TlsFront {
    pub fn before(server: SocketAddr) -> Self {
        Self::at(server, Ipv4Addr::LOCALHOST, "127.0.0.1", None)
    }

    /// By a name, for what is looked up by this thread and those that it starts from now on: it gets a view of its own on /etc/hosts, which
    /// only root can have. The first of the two addresses never answers.
    pub fn with_two_addresses(server: SocketAddr) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Neither is the source of a connection to it, which RFC 6724 would put first.
        let (first, second) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
        let host = format!("two-{}.test", NEXT.fetch_add(1, Ordering::Relaxed));
        let front = Self::at(server, second, &host, Some(first));
        let hosts = front.folder.path().join("hosts");
        fs::write(&hosts, format!("{first} {host}\n{second} {host}\n127.0.0.1 localhost\n")).unwrap();
        let none = None::<&Path>;
        unshare(CloneFlags::CLONE_NEWNS).expect("root may have a view of its own");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some(&hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).unwrap();
        front
    }

    fn at(server: SocketAddr, address: Ipv4Addr, host: &str, silent: Option<Ipv4Addr>) -> Self {
        let (listener, silent) = (0..16)
            .find_map(|_| {
                let listener = TcpListener::bind((address, 0)).unwrap();
                let port = listener.local_addr().unwrap().port();
                match silent.map(|silent| Silent::at(SocketAddrV4::new(silent, port))) {
                    None => Some((listener, None)),
                    Some(silent) => silent.map(|silent| (listener, Some(silent))),
                }
            })
            .expect("no port is free at both addresses");
        let at = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let face = Arc::new(Mutex::new(Face { config: authority.signs(host), pause: Duration::ZERO }));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (hang_ups, hung_up) = watch::channel(());
        let shared = (Arc::clone(&face), Arc::clone(&accepted));
        thread::spawn(move || serve(&listener, server, &shared.0, &shared.1, &hung_up));
        let front = Self { host: host.to_owned(), at, folder, face, accepted, hang_ups, _silent: silent };
        front.trust(&authority);
        front
    }

    pub fn url(&self) -> String {
        format!("https://{}:{}", self.host, self.at.port())
    }

    pub fn roots(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes the file of roots anew.
    pub fn trust(&self, authority: &Authority) {
        let new = self.folder.path().join("new.pem");
        fs::write(&new, authority.0.pem()).unwrap();
        fs::rename(new, self.roots()).unwrap();
    }

    /// New connections see a certificate of this authority.
    pub fn certify(&self, authority: &Authority) {
        self.face.lock().unwrap().config = authority.signs(&self.host);
    }

    /// Every connection is closed, as by a server that starts anew: they are kept for as long as they are used.
    pub fn hang_up(&self) {
        self.hang_ups.send_replace(());
    }

    pub fn be_slow(&self, pause: Duration) {
        self.face.lock().unwrap().pause = pause;
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

fn serve(
    listener: &TcpListener,
    server: SocketAddr,
    face: &Mutex<Face>,
    accepted: &AtomicUsize,
    hung_up: &watch::Receiver<()>,
) {
    listener.set_nonblocking(true).unwrap();
    let runtime = test_support::runtime::own();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            let Face { config, pause } = &*face.lock().unwrap();
            let (acceptor, pause) = (TlsAcceptor::from(Arc::clone(config)), *pause);
            let mut hung_up = hung_up.clone();
            hung_up.mark_unchanged();
            // The end of either side ends it.
            tokio::spawn(async move {
                let relayed = async {
                    tokio::time::sleep(pause).await;
                    let mut tls = acceptor.accept(stream).await?;
                    let mut upstream = tokio::net::TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut tls, &mut upstream).await
                };
                tokio::select! {
                    relayed = relayed => relayed.map(drop),
                    _ = hung_up.changed() => Ok(()),
                }
            });
        }
    });
}

/// Answers no SYN: its line of connections is full, and nobody takes one out.
struct Silent {
    _socket: OwnedFd,
    _filled: Vec<TcpStream>,
}

impl Silent {
    /// `None` where somebody else listens.
    fn at(at: SocketAddrV4) -> Option<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(at)).ok()?;
        listen(&socket, Backlog::new(0).unwrap()).unwrap();
        let wait = Duration::from_millis(100);
        let filled = std::iter::from_fn(|| TcpStream::connect_timeout(&at.into(), wait).ok()).take(8).collect();
        assert!(TcpStream::connect_timeout(&at.into(), wait).is_err());
        Some(Self { _socket: socket, _filled: filled })
    }
}
