//! Two servers that tell the same key, and have not the same: Vault tells births to the second, and one tool makes both keys.

use super::*;

/// Opens what it has wrapped itself, and nothing else.
struct Twin(u8);

impl Kek for Twin {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        let version = KeyVersion::new("1").unwrap();
        Box::pin(async { Ok(KeyState { identity: identity("transit/k@1764255600"), version }) })
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

fn twin(name: &str, pad: u8) -> Member {
    Member::new(name, Role::Required, Arc::new(Twin(pad)))
}

#[tokio::test(start_paused = true)]
async fn two_keys_that_are_told_as_one_have_a_copy_each_or_are_told() {
    for are_probed in [false, true] {
        let members = vec![twin("east", 3), twin("west", 5)];
        for member in members.iter().filter(|_| are_probed) {
            member.probe(Instant::now() + BUDGET).await.unwrap();
        }
        let providers = Providers::new(members, Strategy::Ordered);
        let outcome = providers.wrap_by(&key(), &of(), |_| true).await;
        let wraps: Vec<Wrapped> = outcome.wraps.iter().map(|(_, wrap)| wrap.clone()).collect();
        if !outcome.owed.is_empty() {
            continue;
        }
        for (name, pad) in [("east", 3), ("west", 5)] {
            // The other one is lost for good.
            let alone = Providers::new(vec![twin(name, pad)], Strategy::Ordered);
            let opened = alone.unwrap(&wraps, &of(), is_right).await;
            assert!(opened.is_ok(), "`{name}` is required, owes nothing, and opens no copy (probed: {are_probed})");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_that_refuses_once_is_asked_again_and_one_that_refuses_again_counts_for_nothing() {
    let (east, west) = (twin("east", 3), twin("west", 5));
    let end = || Instant::now() + BUDGET;
    for member in [&east, &west] {
        member.probe(end()).await.unwrap();
    }
    let wrap = east.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    let specimen = Specimen { wrap, of: of() };
    assert!(west.open_specimen(&specimen, end()).await.is_err() && !west.is_twin(), "it may be behind");
    assert!(west.is_probe_due(Duration::from_secs(3600)), "it is looked at soon");
    west.probe(end()).await.unwrap();
    assert!(west.is_twin() && west.health().failing == [Operation::Unwrap]);
    // Two keys, as whoever counts them has to know.
    let providers = Providers::new(vec![east.clone(), west.clone()], Strategy::Ordered);
    assert_eq!(providers.keys(|_| true).len(), 2);
    // What was put right is found out by the next probe.
    let own = west.wrap_and_prove(&key(), &of(), BUDGET, end()).await.unwrap();
    west.show(Specimen { wrap: own.clone(), of: of() });
    west.probe(end()).await.unwrap();
    assert!(!west.is_twin() && west.health().failing.is_empty());
}
