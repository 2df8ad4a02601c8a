//! Keys in base64, as the JSON of a provider carries them: never longer than they are, and in buffers that their owner wipes.

use base64ct::Encoding;
use zeroize::Zeroizing;

use super::{ErrorKind, ProviderError};
use crate::types::Key;

/// Bytes behind the longest text of a key: padding stands for what is missing of three.
const ROOM_BYTES: usize = Key::LEN.next_multiple_of(3);

/// Into a buffer of the caller's.
pub(super) fn encoded<'a, E: Encoding>(bytes: &[u8], into: &'a mut [u8]) -> Result<&'a str, ProviderError> {
    E::encode(bytes, into).map_err(|_| ProviderError::new(ErrorKind::Unfit, "base64"))
}

/// Exactly 32 bytes.
pub(super) fn key<E: Encoding>(text: &str) -> Option<Key> {
    if text.len() != E::encoded_len(&[0; Key::LEN]) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; ROOM_BYTES]);
    Key::copy_of(E::decode(text, &mut *bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Base64UrlUnpadded};

    use super::*;

    fn has_exactly_32_bytes<E: Encoding>(characters: usize) {
        assert_eq!(key::<E>(&E::encode_string(&[0xff; 32])).unwrap().expose(), &[0xff; 32]);
        for len in [0, 1, 16, 30, 31, 33, 34, 64] {
            assert!(key::<E>(&E::encode_string(&vec![9; len])).is_none(), "{len}");
        }
        assert!(key::<E>(&"!".repeat(characters)).is_none());
    }

    #[test]
    fn a_key_has_exactly_32_bytes_in_each_form_of_base64() {
        has_exactly_32_bytes::<Base64>(44);
        has_exactly_32_bytes::<Base64UrlUnpadded>(43);
    }
}
