//! An API server that answers as a test says, over TLS and HTTP/2.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Client, Kubeconfig};

/// What it was asked, each as `METHOD PATH BODY`.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// What it says to each question: a status and a body. A status of 0 ends the connection in the place of an answer.
pub(crate) type Answers = Vec<(u16, String)>;

/// A server that gives these answers in turn and a client of it.
pub(crate) async fn server(answers: Answers) -> (Client, Asked) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["kubernetes.default.svc".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
    std::fs::write(
        &file,
        format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{token: abc}}}}]\nclusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{port}', tls-server-name: kubernetes.default.svc, certificate-authority: ca.crt}}}}]\n"
        ),
    )
    .unwrap();
    let client = Client::new(Kubeconfig::read(&file).unwrap()).unwrap();
    let asked = Asked::default();
    tokio::spawn(serve(listener, acceptor, answers, Arc::clone(&asked)));
    (client, asked)
}

async fn serve(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, answers: Answers, asked: Asked) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (end, mut is_over) = mpsc::channel(1);
        loop {
            // Bodies come while the connection is asked for the next question.
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                        tokio::spawn(answer(request, respond, answers, asked, end.clone()));
                    }
                    Some(Err(_)) | None => break,
                },
                _ = is_over.recv() => break,
            }
        }
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    answers: Arc<Mutex<std::vec::IntoIter<(u16, String)>>>,
    asked: Asked,
    end: mpsc::Sender<()>,
) {
    let (head, mut body) = request.into_parts();
    assert_eq!(head.headers["authorization"], "Bearer abc");
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    let path = head.uri.path_and_query().unwrap();
    asked.lock().unwrap().push(format!("{} {path} {}", head.method, String::from_utf8_lossy(&text)));
    let (status, answer) = answers.lock().unwrap().next().unwrap_or((500, String::new()));
    if status == 0 {
        return end.send(()).await.unwrap();
    }
    let response = http::Response::builder().status(status).header("retry-after", "0").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(Bytes::from(answer), true).unwrap();
}
