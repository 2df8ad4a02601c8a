//! An etcd that answers ranges of what it is given, for tests.

use std::path::Path;

/// `etcdserverpb.RangeRequest`, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    end: Vec<u8>,
    #[prost(bool, tag = "9")]
    count_only: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Range {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    count: i64,
}

/// An etcd with these objects, at a socket of this folder. So many of them it counts and does not give.
pub(crate) fn etcd(folder: &Path, objects: Vec<(&'static str, Vec<u8>)>, lost: usize) -> String {
    let path = folder.join("etcd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                let mut bytes = Vec::new();
                // The question comes in one frame.
                if let Some(Ok(chunk)) = std::future::poll_fn(|context| {
                    let polled = request.body_mut().poll_data(context);
                    if polled.is_pending() {
                        let _ = connection.poll_closed(context);
                        return request.body_mut().poll_data(context);
                    }
                    polled
                })
                .await
                {
                    bytes.extend_from_slice(&chunk);
                }
                let asked = <Asked as prost::Message>::decode(&bytes[5..]).unwrap();
                let is_asked = |key: &str| key.as_bytes() >= &asked.key[..] && key.as_bytes() < &asked.end[..];
                let found: Vec<_> = objects.iter().filter(|(key, _)| is_asked(key)).collect();
                let kvs = found.iter().skip(lost).filter(|_| !asked.count_only).map(|(key, value)| KeyValue {
                    key: key.as_bytes().to_vec(),
                    mod_revision: 5,
                    value: value.clone(),
                });
                let count = i64::try_from(found.len()).unwrap();
                let range = Range { header: Some(Header { revision: 9 }), kvs: kvs.collect(), count };
                let response = http::Response::builder().header("content-type", "application/grpc").body(());
                let mut body = respond.send_response(response.unwrap(), false).unwrap();
                body.send_data(crate::kms::frame(&range), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                body.send_trailers(trailers).unwrap();
            }
        });
    });
    format!("unix://{}", path.display())
}
