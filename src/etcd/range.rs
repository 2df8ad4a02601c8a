//! A range of etcd's keys: the question, and the answer as it arrives, object by object.
//!
//! An answer is one gRPC message that may be far longer than what anybody wants in memory: a page of 500 objects of 1.5 MiB.
//! So it is read as a stream ([`Answer::feed`]), and no more of it is kept than the object that is not whole yet.
//! Fields and numbers: etcd `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto`.

use super::Stored;
use super::proto::{Fields, NotAMessage, Value, varint};

/// Bytes of one object with its key. etcd takes 1.5 MiB a request unless told otherwise (`--max-request-bytes`), and warns beyond 10 MB.
pub const OBJECT_MAX_BYTES: usize = 16 << 20;
/// gRPC: one byte for compression, four for the length.
const PREFIX_BYTES: usize = 5;
/// Bytes of a field's tag and length: two varints, of which the first has one byte for the numbers that there are.
const FIELD_HEAD_MAX_BYTES: usize = 20;

/// `etcdserverpb.RangeRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
    #[prost(bool, tag = "9")]
    pub(super) count_only: bool,
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RangeError {
    #[error("the answer is compressed, which was not offered")]
    Compressed,
    #[error("the answer is not a range of keys")]
    Message,
    #[error("an object is longer than {} MiB", OBJECT_MAX_BYTES >> 20)]
    TooLong,
    #[error("the answer was cut short")]
    Cut,
}

impl From<NotAMessage> for RangeError {
    fn from(_: NotAMessage) -> Self {
        Self::Message
    }
}

/// What an answer says beside its objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Of the etcd as a whole, the same at each of its members. 0: kine has none.
    pub(super) cluster_id: u64,
    /// Of the store when it answered.
    pub(super) revision: i64,
    /// There are more keys in the range than the limit.
    pub(super) more: bool,
    /// Keys in the range.
    pub(super) count: i64,
    /// Objects that were in this answer.
    pub(super) objects: usize,
    /// Bytes of them.
    pub(super) bytes: usize,
}

/// An answer that is arriving.
#[derive(Default)]
pub(super) struct Answer {
    pending: Vec<u8>,
    /// Bytes of the message that have not come yet; `None` before its prefix.
    left: Option<usize>,
    summary: Summary,
}

impl Answer {
    /// Takes the next bytes, and gives each object that is whole.
    pub(super) fn feed<E: From<RangeError>>(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        if self.left.is_none() {
            let Some((&[compressed, a, b, c, d], body)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
                self.pending = pending;
                return Ok(());
            };
            if compressed != 0 {
                return Err(RangeError::Compressed.into());
            }
            let len = u32::from_be_bytes([a, b, c, d]);
            self.left = Some(usize::try_from(len).map_err(|_| RangeError::TooLong)?);
            rest = body;
        }
        let mut left = self.left.unwrap_or_default();
        if rest.len() > left {
            return Err(RangeError::Message.into());
        }
        while let Some(len) = field_bytes(rest)? {
            let (field, next) = rest.split_at_checked(len).ok_or(RangeError::Message)?;
            left = left.checked_sub(len).ok_or(RangeError::Message)?;
            self.take(field, each)?;
            rest = next;
        }
        self.left = Some(left);
        let done = pending.len() - rest.len();
        self.pending = pending;
        self.pending.drain(..done);
        Ok(())
    }

    fn take<E: From<RangeError>>(
        &mut self,
        field: &[u8],
        each: &mut dyn FnMut(Stored<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let message = |_| RangeError::Message;
        for field in Fields::new(field) {
            match field.map_err(message)? {
                // ResponseHeader
                (1, Value::Bytes(header)) => {
                    for field in Fields::new(header) {
                        match field.map_err(message)? {
                            (1, Value::Varint(cluster_id)) => self.summary.cluster_id = cluster_id,
                            (3, Value::Varint(revision)) => self.summary.revision = revision.cast_signed(),
                            _ => {}
                        }
                    }
                }
                (2, Value::Bytes(entry)) => {
                    let stored = key_value(entry)?;
                    self.summary.objects += 1;
                    self.summary.bytes += entry.len();
                    each(stored)?;
                }
                (3, Value::Varint(more)) => self.summary.more = more != 0,
                (4, Value::Varint(count)) => self.summary.count = count.cast_signed(),
                _ => {}
            }
        }
        Ok(())
    }

    /// After the last bytes.
    pub(super) fn end(self) -> Result<Summary, RangeError> {
        if self.left == Some(0) && self.pending.is_empty() { Ok(self.summary) } else { Err(RangeError::Cut) }
    }
}

/// Bytes of the field at the start, once all of them are there.
fn field_bytes(bytes: &[u8]) -> Result<Option<usize>, RangeError> {
    let enough = bytes.len() >= FIELD_HEAD_MAX_BYTES;
    let cut = || if enough { Err(RangeError::Message) } else { Ok(None) };
    let Some((tag, rest)) = varint(bytes) else { return cut() };
    let head = bytes.len() - rest.len();
    let len = match tag & 7 {
        0 => match varint(rest) {
            Some((_, next)) => rest.len() - next.len(),
            None => return cut(),
        },
        1 => 8,
        2 => match varint(rest) {
            Some((len, next)) => {
                let len =
                    usize::try_from(len).ok().filter(|len| *len <= OBJECT_MAX_BYTES).ok_or(RangeError::TooLong)?;
                rest.len() - next.len() + len
            }
            None => return cut(),
        },
        5 => 4,
        _ => return Err(RangeError::Message),
    };
    Ok((bytes.len() >= head + len).then_some(head + len))
}

/// `mvccpb.KeyValue`
pub(super) fn key_value(entry: &[u8]) -> Result<Stored<'_>, RangeError> {
    let mut stored = Stored { key: &[], value: &[], mod_revision: 0 };
    for field in Fields::new(entry) {
        match field? {
            (1, Value::Bytes(key)) => stored.key = key,
            (3, Value::Varint(revision)) => stored.mod_revision = revision.cast_signed(),
            (5, Value::Bytes(value)) => stored.value = value,
            // Creation, version and lease.
            _ => {}
        }
    }
    if stored.key.is_empty() { Err(RangeError::Message) } else { Ok(stored) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `(key, value)` as etcd would answer with them.
    fn answer(objects: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut message = vec![0x0A, 4, 0x08, 6, 0x18, 9];
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut field);
            field.extend_from_slice(bytes);
            field
        };
        for (key, value) in objects {
            let entry = [field(1, key), vec![0x18, 7], field(5, value)].concat();
            message.extend(field(2, &entry));
        }
        message.extend([0x18, 1, 0x20, 5]);
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    type Objects = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(bytes: &[u8], chunk: usize) -> Result<(Objects, Summary), RangeError> {
        let (mut answer, mut objects) = (Answer::default(), Vec::new());
        for part in bytes.chunks(chunk) {
            answer.feed::<RangeError>(part, &mut |stored| {
                assert_eq!(stored.mod_revision, 7);
                objects.push((stored.key.to_vec(), stored.value.to_vec()));
                Ok(())
            })?;
        }
        Ok((objects, answer.end()?))
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_however_it_is_cut_into_pieces(
            objects in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..40), proptest::collection::vec(any::<u8>(), 0..400)), 0..8),
            chunk in 1_usize..500,
        ) {
            let bytes = answer(&objects);
            let (found, summary) = read(&bytes, chunk).unwrap();
            prop_assert_eq!(summary.objects, objects.len());
            prop_assert_eq!((summary.cluster_id, summary.revision, summary.more, summary.count), (6, 9, true, 5));
            prop_assert_eq!(found, objects);
            for cut in 0..bytes.len() {
                prop_assert!(read(&bytes[..cut], chunk).is_err(), "{}", cut);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), chunk in 1_usize..50) {
            let _ = read(&bytes, chunk);
        }
    }

    #[test]
    fn a_length_that_no_object_has_is_refused_before_anything_is_kept() {
        let mut bytes = vec![0, 0xFF, 0xFF, 0xFF, 0xFF, 0x12];
        prost::encoding::encode_varint(OBJECT_MAX_BYTES as u64 + 1, &mut bytes);
        assert_eq!(read(&bytes, 64), Err(RangeError::TooLong));
        assert_eq!(read(&[1, 0, 0, 0, 0], 64), Err(RangeError::Compressed));
    }
}
