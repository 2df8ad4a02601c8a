//! What proves an application to Entra ID: a token that the key of its certificate has signed. The SDK would sign it with OpenSSL; here rustls' key does.
//!
//! <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>: PS256, and the certificate named by its SHA-256.

use base64ct::{Base64UrlUnpadded as Base64, Encoding};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::http::Identity;
use super::super::{ErrorKind, ProviderError};
use crate::types::{hex, random};

/// Seconds. Entra ID advises 5 to 10 minutes.
const LIFETIME: u64 = 600;

/// A fresh assertion of `client`, for whoever listens at `audience`. `now` in seconds since 1970.
pub(super) fn made(identity: &Identity, client: &str, audience: &str, now: u64) -> Result<String, ProviderError> {
    let refused = |what: &str| ProviderError::new(ErrorKind::Login, what);
    let unique: [u8; 16] = random::array().map_err(|error| refused("no random number").because(error))?;
    let thumbprint = Base64::encode_string(&Sha256::digest(identity.certificate()));
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
    let claims = json!({
        "aud": audience, "iss": client, "sub": client, "jti": hex::encode(unique), "iat": now, "nbf": now, "exp": now + LIFETIME
    });
    let part = |json: serde_json::Value| Base64::encode_string(json.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = identity
        .sign_pss(signed.as_bytes())
        .ok_or_else(|| refused("the credential's key cannot sign: Entra ID takes certificates of RSA keys"))?;
    Ok(format!("{signed}.{}", Base64::encode_string(&signature)))
}
