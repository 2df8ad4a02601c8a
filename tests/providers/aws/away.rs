//! No answer, none in time, and an answer of somebody else.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use nodeseal::provider::aws::AwsKek;
use nodeseal::provider::{ErrorKind, Kek};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::fake::KEY;
use super::ground::{Local, anybody, open, run, settings, static_keys};
use super::moto::Moto;

#[test]
fn a_server_that_is_gone_is_away() {
    let mut moto = Moto::start();
    let provider = open(&moto.endpoint(), &moto.key());
    run(async {
        provider.probe().await.unwrap();
        moto.stop();
        let error = provider.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Away, "{error}");
    });
}

#[test]
fn a_server_that_never_answers_is_away_within_the_limit() {
    // Accepts in the kernel, and nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut settings = settings(&endpoint, KEY, static_keys());
    settings.timeout = Duration::from_millis(300);
    let provider = AwsKek::open(settings, anybody()).unwrap();
    let local = Local::new("c1", 1);
    let begin = Instant::now();
    let error = run(provider.wrap_key(&local.key, local.context())).err().unwrap();
    let took = begin.elapsed();
    assert_eq!(error.kind(), ErrorKind::Away, "{error}");
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn an_answer_that_ends_in_the_middle_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"KeyMetadata\": {");
        }
    });
    let error = run(open(&endpoint, KEY).probe()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away, "{error}");
}

#[test]
fn a_name_that_nobody_knows_is_away() {
    // RFC 6761: never resolves.
    let provider = open("https://kms.invalid", KEY);
    assert_eq!(run(provider.probe()).unwrap_err().kind(), ErrorKind::Away);
}

#[test]
fn a_peer_that_another_authority_signed_is_refused_and_the_right_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(place(name), params.self_signed(&key).unwrap().pem()).unwrap();
        (params, key)
    };
    let (params, signer) = authority("right.pem");
    authority("wrong.pem");
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&own, &Issuer::new(params, signer)).unwrap();
    fs::write(place("server.pem"), certificate.pem()).unwrap();
    fs::write(place("server.key"), own.serialize_pem()).unwrap();
    let moto = Moto::start_with_tls(&place("server.pem"), &place("server.key"));

    let ask = |host: &str, ca_file: Option<&str>| {
        let mut settings = settings(&format!("https://{host}:{}", moto.port()), KEY, static_keys());
        settings.ca_file = ca_file.map(place);
        let provider = AwsKek::open(settings, anybody()).unwrap();
        run(provider.probe()).unwrap_err()
    };
    // It has no such key, and that it says so is an answer through TLS.
    assert_eq!(ask("localhost", Some("right.pem")).kind(), ErrorKind::NoKey);
    for (host, ca_file) in [("localhost", Some("wrong.pem")), ("localhost", None), ("127.0.0.1", Some("right.pem"))] {
        let error = ask(host, ca_file);
        assert_eq!(error.kind(), ErrorKind::Peer, "{host} {ca_file:?}: {error}");
    }
}

#[test]
fn a_server_without_tls_is_not_the_peer() {
    let moto = Moto::start();
    let provider = open(&format!("https://127.0.0.1:{}", moto.port()), KEY);
    let error = run(provider.probe()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Peer | ErrorKind::Away | ErrorKind::Protocol), "{error}");
}
