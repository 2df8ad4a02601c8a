//! Protocol buffers, read where they lie: field after field of one message, borrowed, without a copy.
//!
//! Total over any bytes. What it refuses: a message that is cut, a varint of more than 64 bits, and the group wire types 3 and
//! 4, which proto3 does not have (protobuf.dev, "Encoding").

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a Protocol Buffers message")]
pub(crate) struct NotAMessage;

/// A field's value, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], NotAMessage> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(NotAMessage),
        }
    }

    pub(crate) fn varint(self) -> Result<u64, NotAMessage> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Bytes(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(NotAMessage),
        }
    }
}

/// The fields of one message, in the order in which they stand. After an error it ends.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), NotAMessage> {
        let (tag, rest) = varint(self.0).ok_or(NotAMessage)?;
        let (number, value, rest) = match tag & 7 {
            0 => varint(rest).map(|(value, rest)| (tag >> 3, Value::Varint(value), rest)),
            1 => rest.split_first_chunk().map(|(value, rest)| (tag >> 3, Value::Fixed64(*value), rest)),
            2 => varint(rest).and_then(|(len, rest)| {
                let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                Some((tag >> 3, Value::Bytes(value), rest))
            }),
            5 => rest.split_first_chunk().map(|(value, rest)| (tag >> 3, Value::Fixed32(*value), rest)),
            _ => None,
        }
        .ok_or(NotAMessage)?;
        self.0 = rest;
        // protobuf.dev, "Encoding": the smallest number is 1.
        if number == 0 { Err(NotAMessage) } else { Ok((number, value)) }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), NotAMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The number at the start, and what follows it. `None`: cut, or more than 64 bits.
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7F);
        // Nine groups of seven bits and one bit more.
        if at == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn fields_are_what_prost_has_written() {
        let message = crate::kms::v2::DecryptRequest {
            ciphertext: bytes::Bytes::from(vec![7; 300]),
            uid: "uid".into(),
            key_id: "key".into(),
            annotations: std::collections::HashMap::new(),
        };
        let bytes = message.encode_to_vec();
        let fields: Result<Vec<_>, _> = Fields::new(&bytes).collect();
        let expected = [(1, Value::Bytes(&[7; 300][..])), (2, Value::Bytes(b"uid")), (3, Value::Bytes(b"key"))];
        assert_eq!(fields.unwrap(), expected);
        for cut in 1..bytes.len() {
            let read: Result<Vec<_>, _> = Fields::new(&bytes[..cut]).collect();
            // A cut between two fields is a message of its own; a longer frame finds that.
            assert!(read.is_err() || read.is_ok_and(|fields| fields.len() < 3), "{cut}");
        }
    }

    #[test]
    fn a_number_has_at_most_64_bits() {
        assert_eq!(varint(&[0x96, 0x01, 9]), Some((150, &[9][..])));
        let largest = [[0xFF; 9].as_slice(), &[1]].concat();
        assert_eq!(varint(&largest), Some((u64::MAX, &[][..])));
        assert_eq!(varint(&[[0xFF; 9].as_slice(), &[2]].concat()), None);
        assert_eq!(varint(&[0x80; 11]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn groups_and_the_number_zero_are_refused() {
        for bad in [&[0x0B][..], &[0x0C], &[0x00, 0x01], &[0x0E]] {
            assert_eq!(Fields::new(bad).next(), Some(Err(NotAMessage)), "{bad:?}");
        }
    }
}
