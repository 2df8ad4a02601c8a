//! What a provider has to show before a reload lets it count: a key of no use there and back, and something that its key has made before.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::reload::ReloadError;
use super::remote::Opened;
use crate::keyring::rooted::Rooted;
use crate::provider::set::{Member, Owned, Role, Specimen};
use crate::provider::{ErrorKind, ProviderError};
use crate::types::{ClusterId, KekId, Key, random};

/// What the proof of one provider may take, login included.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_secs(15);

/// By each that is new. A login that may wrap may not open, and a server that tells a key may have another one of that name: so whoever tells a
/// key that has made something opens that too. Those that stay and share the key of one that leaves are looked at, as far as they answer.
pub(super) fn prove(
    opened: &Opened,
    before: Option<&Rooted>,
    specimens: &[Specimen],
    cluster: &ClusterId,
) -> Result<(), ReloadError> {
    let id = KekId::from_bytes(random::array().map_err(ReloadError::Random)?);
    let key = Arc::new(Key::random().map_err(ReloadError::Random)?);
    let members = opened.rooted.providers.members();
    for member in members {
        let is_new = opened.new.contains(member.name());
        if !is_new && !before.is_some_and(|before| takes_over(member, before, members)) {
            continue;
        }
        let provider = member.name().to_owned();
        let (member, specimens) = (member.clone(), specimens.to_vec());
        let (of, key) = (Owned { cluster: cluster.clone(), kek: id }, Arc::clone(&key));
        let proof = async move {
            let proved = if is_new { there_and_back(&member, &key, &of).await } else { Ok(()) };
            let opened = if proved.is_ok() { open_all(&member, &specimens).await } else { Ok(()) };
            // Of one that runs already, all but a refusal is left to its probes.
            proved.and(opened.or_else(|error| {
                if is_new || member.is_twin() || error.kind() == ErrorKind::Unfit { Err(error) } else { Ok(()) }
            }))
        };
        let (tell, answer) = channel();
        opened.rooted.runtime.spawn(async move { tell.send(proof.await) });
        match answer.recv_timeout(PROOF_TIMEOUT) {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(ReloadError::Proof { provider, source }),
            Err(_) => return Err(ReloadError::Late { provider }),
        }
    }
    Ok(())
}

/// Whether this one stays and another way to its key leaves.
fn takes_over(member: &Member, before: &Rooted, next: &[Member]) -> bool {
    let own = member.own_identity();
    let leaves = |old: &&Member| !next.iter().any(|next| next.is(old));
    let is_way = |old: &Member| old.kind() == member.kind() && own.is_some() && old.own_identity() == own;
    before.providers.members().iter().filter(leaves).any(is_way)
}

async fn there_and_back(member: &Member, key: &Key, of: &Owned) -> Result<(), ProviderError> {
    let end = tokio::time::Instant::now() + PROOF_TIMEOUT;
    // The first call logs in as well, and may take longer than an attempt for a text.
    member.probe(end).await?;
    match member.role() {
        Role::Required | Role::Optional => member.wrap_and_prove(key, of, PROOF_TIMEOUT, end).await.map(drop),
        Role::DecryptOnly => Ok(()),
    }
}

async fn open_all(member: &Member, specimens: &[Specimen]) -> Result<(), ProviderError> {
    let end = tokio::time::Instant::now() + PROOF_TIMEOUT;
    for specimen in specimens {
        member.open_specimen(specimen, end).await?;
    }
    Ok(())
}
