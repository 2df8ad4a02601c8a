//! The rewriter: bytes of a client in, bytes for h2 out, as many as came in. Pure, no IO.
//!
//! Follows the client's preface and frames (RFC 9113 §3.4, §4.1) and looks into HEADERS and CONTINUATION alone. Since
//! the header block keeps its length, frames, padding, priority and flags are the client's own, byte for byte.

use super::hpack::{self, Malformed, Names};
use std::borrow::Cow;
use std::ops::Range;

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113 §3.4). Not compared: h2 does, and ends what is not HTTP/2.
const PREFACE: usize = 24;
/// RFC 9113 §4.1.
const FRAME_HEADER: usize = 9;
/// SETTINGS_MAX_FRAME_SIZE is left at its default (RFC 9113 §6.5.2): h2 ends the connection on a longer frame.
const MAX_PAYLOAD: usize = 16_384;
/// All frames of one header block, their headers included, so that many empty CONTINUATIONs are bounded as well. Twice
/// the header list that h2 takes here (16 KiB): what is longer is going to be refused anyway.
const MAX_BLOCK: usize = 32 * 1024;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Stream dependency and weight (RFC 9113 §6.2).
const PRIORITY_FIELDS: usize = 5;

/// What became of the bytes of one [`Rewriter::feed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "`Changed` has put what shall be read into `out`"]
pub enum Fed {
    /// The input goes on as it is: nothing was written to `out`, nothing is held.
    Same,
    /// What goes on was appended to `out`: less than the input if an unfinished header block is held, more if one
    /// ended.
    Changed,
}

/// Rewrites `:authority` in what one client sends. The way the bytes are cut into feeds changes nothing.
///
/// Between frames it has no memory but itself; of an unfinished header block it holds at most 32 KiB.
#[derive(Debug)]
pub struct Rewriter {
    place: Place,
    /// An unfinished frame header, or an unfinished header block from its HEADERS on.
    held: Vec<u8>,
    /// How many bytes of an unfinished header block are whole frames. They are not looked at twice.
    scanned: usize,
    names: Names,
}

/// What the next byte that is not held belongs to.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// So many bytes that are not looked into: the preface, or the payload of a frame without a header block.
    Within(usize),
    /// A frame header, or a header block.
    Frame,
    /// A connection that h2 is about to end: bytes are not looked at any more.
    Lost,
}

/// The frames at the front of some bytes.
enum Front {
    /// They end too early; so many bytes of a header block are whole frames.
    Short(usize),
    /// A frame header, and a payload of this length that is not looked into.
    Other(usize),
    /// A whole header block, in so many bytes.
    Block(usize),
}

impl Default for Rewriter {
    fn default() -> Self {
        Self::new()
    }
}

impl Rewriter {
    /// At the start of a connection: the preface comes first.
    pub const fn new() -> Self {
        Self { place: Place::Within(PREFACE), held: Vec::new(), scanned: 0, names: Names::new() }
    }

    /// Takes the next bytes of the client. Constant time per byte, whatever they are.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Fed {
        let mut bytes = if self.held.is_empty() {
            Cow::Borrowed(input)
        } else {
            let mut held = std::mem::take(&mut self.held);
            // Twice the room, so that no byte is copied for each that follows; not more than can be held.
            let (len, needed) = (held.len(), held.len() + input.len());
            if needed > held.capacity() {
                held.reserve_exact(needed.max((2 * len).min(MAX_BLOCK + FRAME_HEADER)) - len);
            }
            held.extend_from_slice(input);
            Cow::Owned(held)
        };
        let ready = self.advance(&mut bytes);
        if matches!(bytes, Cow::Borrowed(_)) && ready == input.len() {
            return Fed::Same;
        }
        let mut bytes = bytes.into_owned();
        if ready == 0 {
            // Kept where it is: `split_off` would copy it.
            self.held = bytes;
        } else {
            self.held = bytes.split_off(ready.min(bytes.len()));
            out.append(&mut bytes);
        }
        Fed::Changed
    }

    /// The client has sent its last byte: appends what is held, unchanged.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.place = Place::Lost;
        out.append(&mut std::mem::take(&mut self.held));
    }

    /// Bytes of memory that it keeps between two feeds.
    pub fn held_capacity(&self) -> usize {
        self.held.capacity()
    }

    /// Rewrites the whole header blocks in `bytes`, which begin at `self.place`; how many of the bytes may go on.
    fn advance(&mut self, bytes: &mut Cow<'_, [u8]>) -> usize {
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.place {
                Place::Lost => return bytes.len(),
                Place::Within(left) => {
                    let step = left.min(rest.len());
                    at += step;
                    self.place = if step == left { Place::Frame } else { Place::Within(left - step) };
                }
                Place::Frame => match front(rest, self.scanned) {
                    Ok(Front::Short(scanned)) => {
                        self.scanned = scanned;
                        return at;
                    }
                    Ok(Front::Other(payload)) => {
                        at += FRAME_HEADER;
                        self.place = Place::Within(payload);
                    }
                    Ok(Front::Block(len)) => {
                        self.scanned = 0;
                        if self.block(bytes, at..at + len).is_err() {
                            self.place = Place::Lost;
                        }
                        at += len;
                    }
                    Err(Malformed) => self.place = Place::Lost,
                },
            }
        }
        at
    }

    /// Rewrites the whole header block that `frames` carry.
    fn block(&mut self, bytes: &mut Cow<'_, [u8]>, frames: Range<usize>) -> Result<(), Malformed> {
        let (first, next) = fragment(bytes, frames.start)?;
        let rewritten = if next == frames.end {
            hpack::rewrite(bytes.get(first).ok_or(Malformed)?, &mut self.names)?
        } else {
            hpack::rewrite(&joined(bytes, frames.clone())?, &mut self.names)?
        };
        let Some(rewritten) = rewritten else { return Ok(()) };
        let (mut rest, mut at) = (rewritten.as_slice(), frames.start);
        while at < frames.end {
            let (range, next) = fragment(bytes, at)?;
            let (piece, more) = rest.split_at_checked(range.len()).ok_or(Malformed)?;
            bytes.to_mut().get_mut(range).ok_or(Malformed)?.copy_from_slice(piece);
            (rest, at) = (more, next);
        }
        Ok(())
    }
}

/// Which frames `bytes` begin with, where the first `scanned` bytes are frames of an unfinished header block. The error
/// is one for which h2 ends the connection (RFC 9113 §4.2, §6.10), or a block that is too long.
fn front(bytes: &[u8], mut scanned: usize) -> Result<Front, Malformed> {
    let Some(first) = Head::read(bytes, 0) else {
        return Ok(Front::Short(0));
    };
    while let Some(head) = Head::read(bytes, scanned) {
        if head.payload > MAX_PAYLOAD {
            return Err(Malformed);
        }
        if scanned == 0 && head.kind != HEADERS && head.kind != CONTINUATION {
            return Ok(Front::Other(head.payload));
        }
        let due = if scanned == 0 { HEADERS } else { CONTINUATION };
        // No overflow: `scanned` is at most MAX_BLOCK.
        let end = scanned + FRAME_HEADER + head.payload;
        if head.kind != due || head.stream != first.stream || end > MAX_BLOCK {
            return Err(Malformed);
        }
        if end > bytes.len() {
            break;
        }
        scanned = end;
        if head.flags & END_HEADERS != 0 {
            return Ok(Front::Block(end));
        }
    }
    Ok(Front::Short(scanned))
}

/// The part of a header block in the frame that begins at `at`, without padding and priority (RFC 9113 §6.2, §6.10),
/// and where the next frame begins.
fn fragment(bytes: &[u8], at: usize) -> Result<(Range<usize>, usize), Malformed> {
    let head = Head::read(bytes, at).ok_or(Malformed)?;
    let (mut start, next) = (at + FRAME_HEADER, at + FRAME_HEADER + head.payload);
    let mut end = next;
    if head.kind == HEADERS && head.flags & PADDED != 0 {
        let padding = bytes.get(start).ok_or(Malformed)?;
        start += 1;
        end = end.saturating_sub(usize::from(*padding));
    }
    if head.kind == HEADERS && head.flags & PRIORITY != 0 {
        start += PRIORITY_FIELDS;
    }
    if start <= end { Ok((start..end, next)) } else { Err(Malformed) }
}

/// The header block in several frames.
fn joined(bytes: &[u8], frames: Range<usize>) -> Result<Vec<u8>, Malformed> {
    let mut block = Vec::with_capacity(frames.len());
    let mut at = frames.start;
    while at < frames.end {
        let (range, next) = fragment(bytes, at)?;
        block.extend_from_slice(bytes.get(range).ok_or(Malformed)?);
        at = next;
    }
    Ok(block)
}

/// A frame header (RFC 9113 §4.1).
struct Head {
    payload: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    /// `None`: the bytes end too early.
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.get(at..)?.first_chunk::<FRAME_HEADER>()?;
        let payload = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        // The upper bit is reserved and ignored.
        Some(Self { payload, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff })
    }
}
