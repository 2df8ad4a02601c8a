//! Bodies that may hold a plaintext or a token: read and written through buffers that are wiped.

use ::http::HeaderValue;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
#[cfg(any(test, feature = "azure", feature = "vault"))]
use serde::Serializer as _;
use zeroize::{Zeroize, Zeroizing};

use super::super::{ErrorKind, ProviderError};

/// Bytes of an answer. Vault's own limit for a request is 32 MiB; no answer that we ask for has 64 KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Bytes to send. Wiped when the connection has let go of them, if they were given in a buffer that wipes itself.
pub(crate) struct Body {
    kind: HeaderValue,
    bytes: Bytes,
}

impl Body {
    /// JSON of an object of texts. Room for all of it is made first, so that no growing leaves a copy behind.
    #[cfg(any(test, feature = "azure", feature = "vault"))]
    pub(crate) fn json(fields: &[(&str, &str)]) -> Self {
        // An escaped control character is the longest: six bytes for one.
        let room = fields.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 6).sum::<usize>() + 2;
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        // It is written piece by piece. Texts are never refused, and a vector takes everything.
        _ = serde_json::Serializer::new(&mut *body).collect_map(fields.iter().copied());
        Self { kind: HeaderValue::from_static("application/json"), bytes: Bytes::from_owner(body) }
    }

    /// Bytes of another kind, or such as somebody else holds too.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(crate) fn of(kind: HeaderValue, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    /// Content type and content.
    pub(super) fn into_parts(self) -> (HeaderValue, Bytes) {
        (self.kind, self.bytes)
    }

    /// The bytes, to seal them.
    #[cfg(any(test, feature = "vault"))]
    pub(crate) fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, for a library that hands them to [`super::Client`] itself.
    #[cfg(feature = "azure")]
    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// All of an answer, or an error when it is longer than the limit.
pub(super) async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
    let mut all = Zeroizing::new(Vec::with_capacity(4096));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(super::broken)?.into_data() else { continue };
        if all.len() + data.len() > ANSWER_MAX_BYTES {
            return Err(ProviderError::new(
                ErrorKind::Protocol,
                format!("an answer of more than {ANSWER_MAX_BYTES} bytes"),
            ));
        }
        append(&mut all, &data);
    }
    Ok(all)
}

/// As `extend_from_slice`, and what was left behind by growing is wiped.
fn append(all: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if all.capacity() - all.len() < data.len() {
        let mut wider = Vec::with_capacity(2 * (all.len() + data.len()));
        wider.extend_from_slice(all);
        all.zeroize();
        **all = wider;
    }
    all.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_whatever_the_texts_and_is_never_moved() {
        let hard = "a\"b\\c\n\u{1}\u{7f}ü/+=";
        let body = Body::json(&[("plain", "text"), (hard, hard)]);
        let read: std::collections::BTreeMap<String, String> = serde_json::from_slice(body.expose()).unwrap();
        assert_eq!(read["plain"], "text");
        assert_eq!(read[hard], hard);
        assert_eq!(Body::json(&[]).expose(), b"{}");
    }

    #[test]
    fn growing_keeps_the_bytes() {
        let mut all = Zeroizing::new(Vec::new());
        for part in [&b"abc"[..], b"", &[7; 10_000], b"d"] {
            append(&mut all, part);
        }
        assert_eq!((all.len(), &all[..4], all[10_003]), (10_004, &b"abc\x07"[..], b'd'));
    }
}
