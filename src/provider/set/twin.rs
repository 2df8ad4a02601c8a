//! One of two imitated servers that tell the same key and have not the same. For tests.

use crate::provider::{
    Answer, Context, ErrorKind, Kek, KeyIdentity, KeyState, KeyVersion, ProviderError, ProviderKind, Wrapped,
};
use crate::types::Key;

/// Opens what it has wrapped itself, and nothing else.
pub(crate) struct Twin(pub(crate) u8);

impl Kek for Twin {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        let identity = KeyIdentity::new("transit/k@1764255600").unwrap();
        Box::pin(async { Ok(KeyState { identity, version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async {
            let KeyState { identity, version } = self.probe().await?;
            let text = key.expose().iter().map(|byte| byte ^ self.0).chain([self.0]).collect();
            Ok(Wrapped::new(ProviderKind::Vault, identity, version, text).unwrap())
        })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            match wrapped.text().split_last() {
                Some((own, text)) if *own == self.0 => {
                    Ok(Key::copy_of(&text.iter().map(|byte| byte ^ self.0).collect::<Vec<_>>()).unwrap())
                }
                _ => Err(ProviderError::new(ErrorKind::Text, "cipher: message authentication failed")),
            }
        })
    }
}
