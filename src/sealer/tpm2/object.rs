//! The sealed object: made, loaded, opened. Secrets go through the salted channel only.

use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Auth as TpmAuth, Digest, Private, Public, SensitiveData};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::blob::Blob;
use super::fault::{At, Failure, Step};
use super::pcr;
use super::policy::PolicyDigest;
use super::template;
use crate::seal::fault::FaultCode;
use crate::seal::protocol::Auth;
use crate::types::{Key, SealPolicy};

/// TPM2_Create: the public area and the encrypted private one.
pub(super) fn create(
    context: &mut Context,
    srk: KeyHandle,
    channel: AuthSession,
    policy: &PolicyDigest,
    auth: &Auth,
    secret: &Key,
) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let public = Public::unmarshall(&template::sealed(policy)).at(Step::Create)?;
    let auth = auth_value(auth, Step::Create)?;
    let secret = SensitiveData::try_from(secret.expose().as_slice()).at(Step::Create)?;
    let made = context.execute_with_session(Some(channel), |context| {
        context.create(srk, public, Some(auth), Some(secret), None, None).at(Step::Create)
    })?;
    Ok((made.out_public.marshall().at(Step::Create)?, made.out_private.value().to_vec()))
}

/// TPM2_Load, and the authValue for what follows.
pub(super) fn load(
    context: &mut Context,
    srk: KeyHandle,
    channel: AuthSession,
    blob: &Blob,
    auth: &Auth,
) -> Result<ObjectHandle, Failure> {
    let public = Public::unmarshall(&blob.public).at(Step::Load)?;
    let private = Private::try_from(blob.private.as_slice()).at(Step::Load)?;
    let object = context
        .execute_with_session(Some(channel), |context| context.load(srk, private, public).at(Step::Load))
        .map(ObjectHandle::from)?;
    context.tr_set_auth(object, auth_value(auth, Step::Load)?).at(Step::Load)?;
    Ok(object)
}

/// Brings the policy session to the digest that the object asks for, or says which registers stand in the way.
pub(super) fn satisfy(
    context: &mut Context,
    channel: AuthSession,
    session: PolicySession,
    blob: &Blob,
) -> Result<(), Failure> {
    if let SealPolicy::Pcr { bank, pcrs } = &blob.policy {
        let numbers: Vec<u8> = pcrs.numbers().collect();
        let selection = pcr::selection(*bank, &numbers)?;
        // An empty digest: whatever the registers hold now. TPM2_PolicyGetDigest then shows whether that is right.
        context.policy_pcr(session, Digest::default(), selection).at(Step::Policy)?;
    }
    context.policy_auth_value(session).at(Step::Policy)?;
    let reached =
        context.execute_with_session(Some(channel), |context| context.policy_get_digest(session).at(Step::Policy))?;
    if reached.value() == blob.policy_digest() {
        return Ok(());
    }
    let detail = match &blob.policy {
        SealPolicy::None => "the TPM computes another digest of the same policy".to_owned(),
        SealPolicy::Pcr { bank, pcrs } => pcr::differences(context, channel, *bank, *pcrs, &blob.pcr_values)?,
    };
    Err(Failure::refused(FaultCode::Policy, detail))
}

/// TPM2_Unseal, authorised by the policy session, its answer encrypted by the channel.
pub(super) fn unseal(
    context: &mut Context,
    object: ObjectHandle,
    session: PolicySession,
    channel: AuthSession,
) -> Result<Key, Failure> {
    let data = context.execute_with_sessions((Some(AuthSession::from(session)), Some(channel), None), |context| {
        context.unseal(object).at(Step::Unseal)
    })?;
    Key::copy_of(data.value()).ok_or_else(|| {
        Failure::refused(FaultCode::Foreign, format!("{} bytes were sealed, not {}", data.len(), Key::LEN))
    })
}

/// The authValue without trailing zero bytes: a TPM drops them (TPM 2.0 Part 1 §19.6.4.3), and tpm2-tss before 4.1.0 does not, so
/// that their HMACs would differ.
pub(super) fn auth_value(auth: &Auth, step: Step) -> Result<TpmAuth, Failure> {
    TpmAuth::try_from(trimmed(auth.expose())).at(step)
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    &bytes[..bytes.len() - zeros]
}

#[cfg(test)]
mod tests {
    use super::trimmed;

    #[test]
    fn trailing_zero_bytes_of_an_auth_value_are_dropped() {
        assert_eq!(trimmed(&[0, 1, 0, 2, 0, 0]), [0, 1, 0, 2]);
        assert_eq!(trimmed(&[0, 0]), [0; 0]);
        assert_eq!(trimmed(&[3]), [3]);
    }
}
