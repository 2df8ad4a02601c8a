//! Bytes as hexadecimal digits, in constant time, so that nobody need ask whether what is written so is a secret.

/// No text of pairs of hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not pairs of hexadecimal digits")]
pub struct HexError;

/// Two digits a byte, in lower case.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    base16ct::lower::encode_string(bytes.as_ref())
}

/// Digits of either case.
pub fn decode(text: impl AsRef<[u8]>) -> Result<Vec<u8>, HexError> {
    base16ct::mixed::decode_vec(text).map_err(|_| HexError)
}

/// As many bytes as there is room for, and no other number.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let mut bytes = [0; N];
    match base16ct::mixed::decode(text, &mut bytes) {
        Ok(decoded) if decoded.len() == N => Ok(bytes),
        Ok(_) | Err(_) => Err(HexError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_are_read_and_nothing_else() {
        assert_eq!(encode([0x00, 0x9f, 0xA0]), "009fa0");
        assert_eq!(decode("009fA0"), Ok(vec![0x00, 0x9f, 0xa0]));
        assert_eq!(decode(""), Ok(Vec::new()));
        for text in ["0", "0g", " 00", "00 ", "0x00", "\u{ff10}\u{ff10}"] {
            assert_eq!(decode(text), Err(HexError), "{text}");
        }
        assert_eq!(decode_array::<2>("00ff"), Ok([0x00, 0xff]));
        for text in ["", "00", "00ff00", "00f"] {
            assert_eq!(decode_array::<2>(text), Err(HexError), "{text}");
        }
    }
}
