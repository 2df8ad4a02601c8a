//! prost's codec with an answer of ours to bytes that are no message: INVALID_ARGUMENT and a fixed sentence.
//!
//! prost's own error would reach the caller as INTERNAL, and with text about the content.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::status;

/// Bytes that are taken for each message before it is known how long it is: those of most. tonic takes 8 KiB, which an answer keeps for
/// as long as nobody takes it.
const USUAL_BYTES: usize = 512;
/// tonic's own.
const YIELD_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(USUAL_BYTES, YIELD_BYTES)
}

/// Named by the generated code.
pub(crate) struct KmsCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for KmsCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for KmsCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = KmsDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffers())
    }

    fn decoder(&mut self) -> Self::Decoder {
        KmsDecoder(PhantomData)
    }
}

/// See [`KmsCodec`].
pub(crate) struct KmsDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for KmsDecoder<U> {
    type Item = U;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|_| status::not_a_message())
    }
}
