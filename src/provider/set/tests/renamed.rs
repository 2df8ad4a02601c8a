//! Names that stand for each other's keys since a restart, before anybody has told which key he has.

use super::*;

/// Opens what its own key has made.
struct Strict(&'static str);

impl Kek for Strict {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(async { Ok(KeyState { identity: identity(self.0), version: KeyVersion::new("1").unwrap() }) })
    }

    fn wrap_key<'a>(&'a self, _: &'a Key, _: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(async { Ok(wrap_of(self.0)) })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, _: Context<'a>) -> Answer<'a, Key> {
        Box::pin(async {
            match wrapped.identity == identity(self.0) {
                true => Ok(Key::copy_of(wrapped.text()).unwrap()),
                false => Err(ProviderError::new(ErrorKind::Text, "the wrap is of another key")),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_text_after_names_were_swapped_is_opened_by_those_who_have_its_keys() {
    for names in [&["a", "b"][..], &["a"]] {
        let swapped = |name: &&'static str| {
            let other = if *name == "a" { "b" } else { "a" };
            let member = Member::new(*name, Role::Required, Arc::new(Strict(other)));
            member.remember(identity(name));
            member
        };
        let providers = Providers::new(names.iter().map(swapped).collect(), Strategy::Ordered);
        let opened = providers.unwrap(&[wrap_of("a"), wrap_of("b")], &of(), is_right).await;
        assert!(opened.is_ok(), "{names:?}: {:?}", opened.err());
    }
}
