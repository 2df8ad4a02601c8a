//! The two sessions of an operation. Both are salted to the storage root key, whose Name the caller has compared before: only
//! the TPM that holds that key can read or forge anything under them.
//!
//! Two and not three: PC Client TPMs promise room for three loaded sessions, and we are not alone.

use tss_esapi::Context;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::SymmetricDefinition;

use super::fault::{At, Failure, Step};

/// An HMAC session with AES-128-CFB parameter encryption in both directions (what every PC Client TPM has). It authorises the
/// use of the storage root key (empty authValue) and hides whatever goes in and comes out.
///
/// Not bound to the sealed object: the object's authValue is in the policy session's HMAC already, and tpm2-tss before 4.1.0
/// computes wrong HMACs for a bind object whose authValue ends in a zero byte.
pub(super) fn channel(context: &mut Context, srk: KeyHandle) -> Result<AuthSession, Failure> {
    let session = start(context, srk, SessionType::Hmac)?;
    hide(context, session)?;
    Ok(session)
}

/// Runs `inside` with the channel as an audit session: the first parameter of such a command or answer cannot be encrypted, but
/// the answer is authenticated, so that nobody on the bus can invent it.
pub(super) fn authentic<T>(
    context: &mut Context,
    channel: AuthSession,
    inside: impl FnOnce(&mut Context) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let audit = SessionAttributesBuilder::new().with_decrypt(false).with_encrypt(false).with_audit(true);
    set(context, channel, audit)?;
    let result = context.execute_with_session(Some(channel), inside);
    hide(context, channel)?;
    result
}

/// A policy session, salted as well: PolicyAuthValue makes its HMAC prove the authValue, and the salt keeps that HMAC from
/// being used to guess it.
pub(super) fn policy(context: &mut Context, srk: KeyHandle) -> Result<PolicySession, Failure> {
    let session = start(context, srk, SessionType::Policy)?;
    set(context, session, SessionAttributesBuilder::new())?;
    PolicySession::try_from(session).at(Step::StartSession)
}

fn start(context: &mut Context, srk: KeyHandle, kind: SessionType) -> Result<AuthSession, Failure> {
    context
        .start_auth_session(Some(srk), None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)
        .at(Step::StartSession)?
        .ok_or(Failure::Answer { step: Step::StartSession, rc: None })
}

fn hide(context: &mut Context, session: AuthSession) -> Result<(), Failure> {
    set(context, session, SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).with_audit(false))
}

fn set(context: &mut Context, session: AuthSession, attributes: SessionAttributesBuilder) -> Result<(), Failure> {
    let (attributes, mask) = attributes.with_continue_session(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).at(Step::StartSession)
}
