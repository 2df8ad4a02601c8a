//! How many bytes a Huffman-coded string stands for (RFC 7541 §5.2, Appendix B), and a string of as many.
//!
//! The code is canonical: sorted by length and symbol, each code is its forerunner plus one. So the number of codes of
//! each length is enough to tell where one code ends and the next begins. Which symbol it was is not asked for here.

/// `COUNTS[n]`: how many of the 257 codes are `n` bits long (RFC 7541 Appendix B).
const COUNTS: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// End of string: the last of the 30-bit codes. RFC 7541 §5.2: inside of a string it is an error.
const EOS: u32 = 0x3fff_ffff;

/// The code of `X`: eight bits, so a run of it is a run of this byte.
const CODE_OF_X: u8 = 0b1111_1100;
/// The code of `b` in the upper six bits, then the first two of a `0`.
const CODE_OF_B: u8 = 0b1000_1100;
/// The code of `B` in the upper seven bits, then the first of a `0`.
const CODE_OF_UPPER_B: u8 = 0b1011_1010;
/// The code of `0` is five bits of zero, so a run of it is a run of this byte.
const CODE_OF_0: u8 = 0;

/// The bytes that `coded` stands for, or `None` where RFC 7541 §5.2 calls it an error.
pub(super) fn decoded_len(coded: &[u8]) -> Option<usize> {
    let mut symbols = 0_usize;
    // The bits of the code so far, how many they are, and the smallest code of that many bits. `code >= first` holds
    // throughout: a prefix below `first + COUNTS[bits]` ends here, any other is carried on with `first` moved to that
    // sum.
    let (mut code, mut bits, mut first) = (0_u32, 0_usize, 0_u32);
    for byte in coded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            first <<= 1;
            bits += 1;
            let count = *COUNTS.get(bits)?;
            if code - first < count {
                if code == EOS && bits == 30 {
                    return None;
                }
                symbols += 1;
                (code, bits, first) = (0, 0, 0);
            } else {
                first += count;
            }
        }
    }
    // RFC 7541 §5.2: what is left is padding, the most significant bits of EOS (all ones), and shorter than a byte.
    let padding_of_ones = bits < 8 && code == (1 << bits) - 1;
    padding_of_ones.then_some(symbols)
}

/// Fills `coded` with the code of `symbols` letters and digits, without a bit of padding. `false`, and nothing is
/// written, if `coded` is longer than `symbols` bytes: codes of letters and digits have eight bits at most.
///
/// No encoder with a choice sends such a string: RFC 7541 §5.2 lets it send the plain form, which is shorter.
pub(super) fn fill(coded: &mut [u8], symbols: usize) -> bool {
    // Bits left to spend when every symbol has the five of `0`: an `X` takes three of them, `b` one, `B` two. No
    // overflow: the string is within a header block.
    let Some(spare) = (coded.len() * 8).checked_sub(symbols * 5).filter(|_| coded.len() <= symbols) else {
        return false;
    };
    // `spare <= 3 * symbols`, so the symbols suffice. If `b` or `B` comes, then before the last symbol: a byte is left.
    let Some((head, tail)) = coded.split_at_mut_checked(spare / 3) else {
        return false;
    };
    head.fill(CODE_OF_X);
    tail.fill(CODE_OF_0);
    if let Some(byte) = tail.first_mut() {
        match spare % 3 {
            1 => *byte = CODE_OF_B,
            2 => *byte = CODE_OF_UPPER_B,
            _ => {}
        }
    }
    true
}
