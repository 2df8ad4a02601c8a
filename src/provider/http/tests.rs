//! Servers that are slow to shake hands, and names of which one address is silent.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream as StdStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::types::Explained;

const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Speaks TLS after `pause`, and answers everything at once from then on.
struct Slow {
    at: SocketAddr,
    config: Tls,
    accepted: Arc<AtomicUsize>,
}

impl Slow {
    fn start(pause: Duration) -> Self {
        Self::with(pause, IsCa::NoCa)
    }

    /// Its certificate is its own anchor.
    fn with(pause: Duration, is_ca: IsCa) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).unwrap();
        let lc = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(lc).with_safe_default_protocol_versions().unwrap();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let config = config(&TrustAnchors::File(folder.path().join("ca.pem")), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (server, accepted) = (Arc::new(server), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let server = Arc::clone(&server);
                thread::spawn(move || {
                    thread::sleep(pause);
                    let mut session = rustls::ServerConnection::new(server).unwrap();
                    let mut tls = rustls::Stream::new(&mut session, &mut stream);
                    while tls.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                        if tls.write_all(REPLY).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { at, config, accepted }
    }

    fn client(&self) -> Client {
        Client::new(
            format!("https://{}", self.at).parse().unwrap(),
            self.config.clone(),
            Duration::from_secs(30),
            Home::here(),
        )
    }
}

async fn get(client: &Client) -> Result<Reply, ProviderError> {
    client.ask(Ask { method: Method::GET, path: "/", headers: &[], body: None }).await
}

#[tokio::test]
async fn a_connection_that_takes_longer_than_each_attempt_serves_the_attempt_after_it() {
    let slow = Slow::start(Duration::from_millis(600));
    let client = slow.client();
    let mut attempts = 0;
    while timeout(Duration::from_millis(200), get(&client)).await.is_err() {
        attempts += 1;
        assert!(attempts < 20, "each attempt began anew");
    }
    assert!(attempts > 0);
    assert!(slow.accepted.load(Ordering::SeqCst) <= 8);
}

#[tokio::test]
async fn all_that_wait_are_served_and_a_failed_connection_is_an_answer_for_all() {
    let slow = Slow::start(Duration::from_millis(50));
    let client = Arc::new(slow.client());
    let asked: Vec<_> = (0..64)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { get(&client).await.map(|reply| reply.status) })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap(), StatusCode::OK);
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Arc::new(Client::new(
        format!("http://{gone}").parse().unwrap(),
        slow.config.clone(),
        Duration::MAX,
        Home::here(),
    ));
    let asked: Vec<_> = (0..64)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { get(&client).await.err().map(|error| error.kind()) })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Some(ErrorKind::Away));
    }
}

/// A runtime on a thread of its own, which runs until the end of the test.
fn elsewhere() -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

#[tokio::test]
async fn a_connection_is_made_at_home_and_lives_where_it_was_asked_for() {
    let server = Slow::start(Duration::ZERO);
    let home = elsewhere();
    let (client, other) = {
        let _entered = home.enter();
        (server.client(), server.client())
    };
    assert_eq!(get(&client).await.unwrap().status, StatusCode::OK);
    // Home has no time for it any more, and nobody here needs it.
    let (done, busy) = std::sync::mpsc::channel::<()>();
    home.spawn(async move {
        let _ = busy.recv();
    });
    for _ in 0..10 {
        let answer = timeout(Duration::from_secs(10), get(&client)).await;
        assert_eq!(answer.expect("waits for home").unwrap().status, StatusCode::OK);
    }
    assert!(timeout(Duration::from_millis(100), get(&other)).await.is_err(), "its handshake was made here");
    done.send(()).unwrap();
    assert_eq!(get(&other).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_probe_at_home_keeps_the_connection_warm_by_which_texts_go() {
    let server = Slow::start(Duration::ZERO);
    let home = elsewhere();
    let client = {
        let _entered = home.enter();
        Arc::new(server.client())
    };
    get(&client).await.unwrap();
    for _ in 0..3 {
        let probing = Arc::clone(&client);
        home.spawn(async move { get(&probing).await.map(drop) }).await.unwrap().unwrap();
        get(&client).await.unwrap();
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
}

/// Answers no SYN: its line of connections is full, and nobody takes one out.
fn silent(at: SocketAddrV4) -> (OwnedFd, Vec<StdStream>) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(at)).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let wait = Duration::from_millis(100);
    let filled = std::iter::from_fn(|| StdStream::connect_timeout(&at.into(), wait).ok()).take(8).collect();
    assert!(StdStream::connect_timeout(&at.into(), wait).is_err());
    (socket, filled)
}

fn two_addresses(_: &str) -> std::io::Result<Vec<IpAddr>> {
    Ok(vec![[127, 0, 0, 2].into(), [127, 0, 0, 1].into()])
}

impl Slow {
    /// The same server under a name that has another address before.
    fn named(&self) -> Client {
        let address = Address::of_parts(true, "127.0.0.1", self.at.port()).unwrap().called("two.test");
        let way = Way { address, tls: self.config.clone(), names: Names::new(two_addresses) };
        Client { pool: Pool::new(way, Home::here()), timeout: Duration::from_secs(30), sent: Sent::default() }
    }
}

#[tokio::test]
async fn a_name_of_which_the_first_address_is_silent_is_reached_by_the_second_and_that_is_first_from_then_on() {
    let server = Slow::start(Duration::ZERO);
    let (_socket, _filled) = silent(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), server.at.port()));
    let client = server.named();
    let begun = Instant::now();
    assert_eq!(get(&client).await.unwrap().status, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_millis(250));
    let way = client.pool.connect();
    assert_eq!(way.names.addresses("two.test", server.at.port()).await.unwrap()[0], IpAddr::from([127, 0, 0, 1]));
}

#[tokio::test]
async fn an_address_that_takes_a_connection_and_says_nothing_is_passed_over() {
    let server = Slow::start(Duration::ZERO);
    // The kernel takes it, and nobody reads.
    let _deaf = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), server.at.port())).unwrap();
    assert_eq!(get(&server.named()).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_address_that_refuses_costs_no_time() {
    let server = Slow::start(Duration::ZERO);
    let begun = Instant::now();
    assert_eq!(get(&server.named()).await.unwrap().status, StatusCode::OK);
    assert!(begun.elapsed() < SHAKING_TIMEOUT);
}

#[tokio::test]
async fn a_certificate_that_is_itself_an_authoritys_is_told_as_that_and_not_as_somebody_between() {
    let server = Slow::with(Duration::ZERO, IsCa::Ca(BasicConstraints::Unconstrained));
    let error = get(&server.client()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unfit, "{error:?}");
    assert!(error.hint().contains("CA:FALSE"), "{}", error.hint());
}

#[tokio::test]
async fn a_server_with_which_we_share_no_form_of_tls_is_unfit_and_no_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            // A fatal alert: handshake_failure.
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]);
        }
    });
    let config = Slow::start(Duration::ZERO).config;
    let client = Client::new(format!("https://{at}").parse().unwrap(), config, Duration::from_secs(30), Home::here());
    let error = get(&client).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unfit, "{error:?}");
    assert!(error.hint().contains("P-384"), "{}", error.hint());
}

#[test]
fn an_authority_that_others_could_have_written_signs_for_nobody() {
    use std::os::unix::fs::PermissionsExt;

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, certificate.pem()).unwrap();
    let taken = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        super::tls::config(&TrustAnchors::File(path.clone()), None).map(drop)
    };
    assert!(taken(0o644).is_ok());
    for mode in [0o664, 0o646] {
        let error = taken(mode).unwrap_err();
        assert!(error.kind() == ErrorKind::Unfit && format!("{error:?}").contains("chmod go-w"), "{error:?}");
    }
}

/// Speaks HTTP at this address, and counts what it is asked.
fn speaks(at: SocketAddr, answer: Option<&'static [u8]>) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(at).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                    if answer.is_some_and(|answer| stream.write_all(answer).is_err()) {
                        return;
                    }
                }
            });
        }
    });
    asked
}

/// Six calls to a name whose first address gives this answer, and whose second one is well.
async fn six_to_a_name_whose_first_address(answers: Option<&'static [u8]>) -> Vec<Option<u16>> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = speaks(SocketAddr::new([127, 0, 0, 2].into(), free.port()), answers);
    let _well = speaks(free, Some(REPLY));
    let address = Address::of_parts(false, "127.0.0.1", free.port()).unwrap().called("two.test");
    let way = Way { address, tls: Slow::start(Duration::ZERO).config, names: Names::new(two_addresses) };
    let pool = Pool::new(way, Home::here());
    let client = Client { pool, timeout: Duration::from_millis(400), sent: Sent::default() };
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(get(&client).await.ok().map(|reply| reply.status.as_u16()));
    }
    assert_eq!(first.load(Ordering::SeqCst), 1, "{seen:?}");
    seen
}

#[tokio::test]
async fn an_address_that_takes_a_request_and_does_not_answer_is_the_last_one_from_then_on() {
    let seen = six_to_a_name_whose_first_address(None).await;
    assert_eq!(seen, [None, Some(200), Some(200), Some(200), Some(200), Some(200)]);
}

#[tokio::test]
async fn an_address_whose_server_cannot_serve_is_the_last_one_from_then_on_and_its_connections_are_not_used_again() {
    const SEALED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
    let seen = six_to_a_name_whose_first_address(Some(SEALED)).await;
    assert_eq!(seen, [Some(503), Some(200), Some(200), Some(200), Some(200), Some(200)]);
}

#[test]
fn each_status_says_whether_another_server_is_worth_a_try() {
    let said = |serves| {
        let of = |code: &u16| Serves::of(StatusCode::from_u16(*code).unwrap()) == serves;
        [200, 204, 307, 400, 403, 404, 412, 429, 472, 473, 500, 502, 503, 504]
            .into_iter()
            .filter(of)
            .collect::<Vec<_>>()
    };
    assert_eq!(said(Serves::Yes), [200, 204, 400, 403, 404, 429]);
    assert_eq!(said(Serves::Perhaps), [412, 500]);
    assert_eq!(said(Serves::No), [307, 472, 473, 502, 503, 504]);
}

#[tokio::test]
async fn a_server_that_is_slow_and_answers_is_not_taken_for_one_that_hangs_where_the_other_one_does() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hangs = speaks(SocketAddr::new([127, 0, 0, 2].into(), free.port()), None);
    let listener = TcpListener::bind(free).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                    // Longer than what makes an address doubtful, and well within an attempt.
                    thread::sleep(DOUBTFUL_AFTER * 3 / 2);
                    if stream.write_all(REPLY).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let address = Address::of_parts(false, "127.0.0.1", free.port()).unwrap().called("two.test");
    let way = Way { address, tls: Slow::start(Duration::ZERO).config, names: Names::new(two_addresses) };
    let client =
        Client { pool: Pool::new(way, Home::here()), timeout: Duration::from_millis(800), sent: Sent::default() };
    let client = Arc::new(client);
    // It is known by now which one answers.
    while get(&client).await.is_err() {}
    let before = hangs.load(Ordering::SeqCst);
    let callers: Vec<_> = (0..8u32)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50) * number).await;
                let mut lost = 0;
                for _ in 0..8 {
                    lost += u32::from(get(&client).await.is_err());
                }
                lost
            })
        })
        .collect();
    let mut lost = 0;
    for caller in callers {
        lost += caller.await.unwrap();
    }
    let asked = hangs.load(Ordering::SeqCst) - before;
    assert_eq!(lost, 0, "of 64 calls; {asked} have asked the one that hangs");
}
