//! What a provider has to show before a reload lets it count: a key of no use there and back, and something that its key has made before.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::reload::error::{PROOF_TIMEOUT, ReloadError};
use super::remote::Opened;
use crate::keyring::rooted::Rooted;
use crate::provider::set::{Member, Role, Specimen, WrapContext};
use crate::provider::{ProviderError, ProviderKind};
use crate::types::{Chain, Class, ClusterId, Explained, KekId, Key, random};

/// What came of it.
pub(super) struct Proofs {
    /// Names of those that were new and have proved themselves.
    pub(super) proved: HashSet<String>,
    /// Names of those that may count as what is left to open something: they have opened what their key has made.
    pub(super) openers: HashSet<String>,
    /// Of those that were new.
    pub(super) refused: Vec<ReloadError>,
    /// Why those that stay do not count, for people.
    pub(super) silent: Vec<String>,
}

/// By each that is new; all are heard, since a login that serves once is spent by those that prove themselves as well. A login that may
/// wrap may not open, and a server that tells a key may have another one of that name: so whoever tells a key that has made something opens
/// that too. Where somebody leaves, those that stay are shown it as well: what they have not opened themselves keeps nobody from
/// being missed.
pub(super) fn prove(
    opened: &Opened,
    before: Option<&Rooted>,
    specimens: Vec<Specimen>,
    cluster: &ClusterId,
) -> Result<Proofs, ReloadError> {
    let of =
        WrapContext { cluster: cluster.clone(), kek: KekId::from_bytes(random::array().map_err(ReloadError::Random)?) };
    let key = Arc::new(Key::random().map_err(ReloadError::Random)?);
    let members = opened.rooted.providers.members();
    let olds = before.map_or(&[][..], |before| before.providers.members());
    let leavers: Vec<&Member> = olds.iter().filter(|old| !members.iter().any(|next| next.is(old))).collect();
    let mut all = specimens;
    for specimen in olds.iter().filter_map(Member::specimen) {
        if !all.iter().any(|known| known.wrap == specimen.wrap) {
            all.push(specimen);
        }
    }
    let end = Instant::now() + PROOF_TIMEOUT;
    let mut proofs =
        Proofs { proved: HashSet::new(), openers: HashSet::new(), refused: Vec::new(), silent: Vec::new() };
    let mut asked = Vec::new();
    for member in members {
        let is_new = opened.new.contains(member.name());
        if !is_new && leavers.is_empty() {
            proofs.openers.insert(member.name().to_owned());
            continue;
        }
        // Of two plugins under one name each opens what it has made itself, whether the name stands for one key or for two.
        let is_named_as = |leaver: &&Member| {
            member.kind() == ProviderKind::KmsPlugin
                && leaver.kind() == ProviderKind::KmsPlugin
                && leaver.own_identity() == member.own_identity()
        };
        let is_doubted = leavers.iter().any(is_named_as);
        let own = member.specimen();
        let is_of_others = |specimen: &&Specimen| {
            let is_it = |other: Option<Specimen>| other.is_some_and(|other| other.wrap == specimen.wrap);
            !is_doubted || !is_it(own.clone()) || olds.iter().any(|other| !other.is(member) && is_it(other.specimen()))
        };
        let shown: Vec<Specimen> = all.iter().filter(is_of_others).cloned().collect();
        let is_known = opened.refreshed.contains(member.name());
        let (member_asked, of, key) = (member.clone(), of.clone(), Arc::clone(&key));
        let proof = async move {
            let end = end.into();
            if is_new {
                there_and_back(&member_asked, &key, &of, end).await?;
                new_opens(&member_asked, &shown, is_known, end).await
            } else {
                if member_asked.told().is_none() {
                    // What it is to open hangs on the key that it tells. Who is away may have opened something before.
                    let _ = member_asked.probe(end).await;
                }
                let opens = staying_opens(&member_asked, &shown, is_doubted, end).await?;
                // Where nothing is known that its key has made, it makes something, as one that is new does.
                let makes = !opens && is_believed(&member_asked);
                if makes {
                    there_and_back(&member_asked, &key, &of, end).await?;
                    // It may have told another key by then.
                    open_all(&member_asked, &shown, end).await?;
                }
                Ok(opens || makes)
            }
        };
        let (tell, answer) = channel();
        opened.rooted.runtime.spawn(async move { tell.send(proof.await) });
        asked.push((member, is_new, answer));
    }
    for (member, is_new, answer) in asked {
        let provider = member.name().to_owned();
        match answer.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Ok(opens)) => {
                if !opens && !is_new {
                    let why =
                        "nothing is known here that its key has made, so it could open nothing to show that it does";
                    proofs.silent.push(format!("`{provider}`: {why}; a Decrypt that it answers is enough"));
                }
                proofs.openers.extend(opens.then(|| provider.clone()));
                proofs.proved.extend(is_new.then_some(provider));
            }
            Ok(Err(source)) if is_new => proofs.refused.push(ReloadError::Proof { provider, source }),
            Ok(Err(error)) => {
                proofs.silent.push(format!("`{provider}` does not open what its key has made: {}", Chain(&error)))
            }
            Err(_) if is_new => proofs.refused.push(ReloadError::Late { provider }),
            Err(_) => {
                proofs.silent.push(format!("`{provider}` has opened nothing within {} s", PROOF_TIMEOUT.as_secs()))
            }
        }
    }
    Ok(proofs)
}

async fn there_and_back(
    member: &Member,
    key: &Key,
    of: &WrapContext,
    end: tokio::time::Instant,
) -> Result<(), ProviderError> {
    // The first call logs in as well, and may take longer than an attempt for a text.
    member.probe(end).await?;
    match member.role() {
        Role::Required | Role::Optional => member.wrap_and_prove(key, of, PROOF_TIMEOUT, end).await.map(drop),
        Role::DecryptOnly => Ok(()),
    }
}

/// Whether it counts as an opener of its key. Where nothing is known that this key has made, a key that its server tells is believed of
/// whoever opens what it wraps; one that the table names alone is not; and of a table that runs already nothing else is asked.
async fn new_opens(
    member: &Member,
    shown: &[Specimen],
    is_known: bool,
    end: tokio::time::Instant,
) -> Result<bool, ProviderError> {
    let opened = open_all(member, shown, end).await?;
    Ok(opened || is_known || is_believed(member))
}

/// Its server tells which key it has, and it opens what it wraps.
fn is_believed(member: &Member) -> bool {
    member.writes() && member.kind() != ProviderKind::KmsPlugin
}

/// The same of one that runs already. What it does not open is no reason to refuse it, and who is away has opened what it opened before.
async fn staying_opens(
    member: &Member,
    shown: &[Specimen],
    is_doubted: bool,
    end: tokio::time::Instant,
) -> Result<bool, ProviderError> {
    open_all(member, shown, end).await.or_else(|error| {
        let own = member.own_identity();
        let has_opened = |specimen: Specimen| own.is_some_and(|own| specimen.wrap.is_by(member.kind(), &own));
        let is_away = matches!(error.class(), Class::Unavailable | Class::Throttled);
        if is_away && !is_doubted && member.specimen().is_some_and(has_opened) { Ok(true) } else { Err(error) }
    })
}

/// All that are of its key. Whether there are any.
async fn open_all(member: &Member, shown: &[Specimen], end: tokio::time::Instant) -> Result<bool, ProviderError> {
    let own = member.own_identity();
    let is_of_its_key = |specimen: &&Specimen| own.as_ref().is_some_and(|own| specimen.wrap.is_by(member.kind(), own));
    let mut has_opened = false;
    for specimen in shown.iter().filter(is_of_its_key) {
        member.open_specimen(specimen, end).await?;
        has_opened = true;
    }
    Ok(has_opened)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;
    use crate::keyring::rooted::{OnOutage, Rules};
    use crate::provider::set::twin::Twin;
    use crate::provider::set::{Fingerprint, Providers, Strategy};

    #[test]
    fn whoever_stays_and_tells_its_key_in_the_proof_itself_opens_what_that_key_has_made() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let handle = runtime.handle().clone();
        let rules = Rules {
            local_kek: false,
            min_wraps: 1,
            epoch: crate::keyring::calendar::EpochRule::default(),
            on_outage: OnOutage::Coast,
            activation_delay: Duration::ZERO,
            probe_every: Duration::from_secs(60),
        };
        let of = |members: &[&Member]| {
            let members = members.iter().map(|member| (*member).clone()).collect();
            Rooted::new(handle.clone(), Providers::new(members, Strategy::Ordered), rules.clone())
        };
        let member = |name, pad| Member::new(name, Role::Required, Arc::new(Twin(pad)));
        // `west` was away since the start, and is back for the reload.
        let (east, west) = (member("east", 3), member("west", 5));
        let cluster: ClusterId = "c1".parse().unwrap();
        let owned = WrapContext { cluster: cluster.clone(), kek: KekId::from_bytes([1; 16]) };
        let key = Key::random().unwrap();
        let end = tokio::time::Instant::now() + PROOF_TIMEOUT;
        let wrap = runtime.block_on(east.wrap_and_prove(&key, &owned, PROOF_TIMEOUT, end)).unwrap();
        let specimen = Specimen::kept(wrap, owned, Fingerprint::of(&key));
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        let next = Opened::staying(of(&[&west]));
        let proofs = prove(&next, Some(&of(&[&east, &west])), vec![specimen], &cluster).unwrap();
        assert!(
            proofs.openers.is_empty(),
            "{:?} opens nothing that `east` has made: {:?}",
            proofs.openers,
            proofs.silent
        );
    }
}
