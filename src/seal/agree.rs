//! A key that two nodes agree on over a public channel: ephemeral ECDH on NIST P-256 (SP 800-56A Rev. 3 §5.7.1.2). Pure.
//!
//! Refuses points that are not on the curve. The group has no other points of small order, so that no check of the result is needed.

use p256::elliptic_curve::point::AffineCoordinates;
use p256::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};
use zeroize::{Zeroize, Zeroizing};

use super::duplicate::ScalarError;
use crate::types::Key;
use crate::types::wire::WireError;

/// Bytes of a public half: both coordinates.
pub const HALF_BYTES: usize = 64;

/// The public half that belongs to a secret one.
pub fn public_half(secret: &Key) -> Result<[u8; HALF_BYTES], ScalarError> {
    let scalar = scalar(secret)?;
    let scalar: &Scalar = (*scalar).as_ref();
    let point = (ProjectivePoint::GENERATOR * scalar).to_affine();
    let mut half = [0; HALF_BYTES];
    half[..Key::LEN].copy_from_slice(&point.x());
    half[Key::LEN..].copy_from_slice(&point.y());
    Ok(half)
}

/// What both sides get, each from its own secret half and the other's public one. To be derived from, not to be used as it is.
pub fn agree(secret: &Key, theirs: &[u8; HALF_BYTES]) -> Result<Key, WireError> {
    const BAD: WireError = WireError::BadValue("public half");
    let (x, y) = theirs.split_at(Key::LEN);
    let (x, y) = (FieldBytes::try_from(x).map_err(|_| BAD)?, FieldBytes::try_from(y).map_err(|_| BAD)?);
    let point: AffinePoint = Option::from(AffinePoint::from_coordinates(&x, &y)).ok_or(BAD)?;
    let scalar = scalar(secret).map_err(|_| BAD)?;
    let scalar: &Scalar = (*scalar).as_ref();
    let mut projective = ProjectivePoint::from(point) * scalar;
    let mut shared = projective.to_affine();
    projective.zeroize();
    let mut z = shared.x();
    shared.zeroize();
    let key = Key::copy_of(&z).ok_or(BAD);
    z.zeroize();
    key
}

fn scalar(secret: &Key) -> Result<Zeroizing<NonZeroScalar>, ScalarError> {
    let mut bytes = FieldBytes::from(*secret.expose());
    let scalar: Option<NonZeroScalar> = NonZeroScalar::from_repr(bytes).into();
    bytes.zeroize();
    scalar.map(Zeroizing::new).ok_or(ScalarError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_get_the_same_and_a_third_gets_another() {
        let [a, b, c] = [1, 2, 3].map(|byte| Key::copy_of(&[byte; 32]).unwrap());
        let shared = agree(&a, &public_half(&b).unwrap()).unwrap();
        assert_eq!(shared.expose(), agree(&b, &public_half(&a).unwrap()).unwrap().expose());
        assert_ne!(shared.expose(), agree(&c, &public_half(&a).unwrap()).unwrap().expose());
    }

    #[test]
    fn what_is_not_on_the_curve_is_refused() {
        let key = Key::copy_of(&[1; 32]).unwrap();
        let mut half = public_half(&key).unwrap();
        half[63] ^= 1;
        assert!(agree(&key, &half).is_err() && agree(&key, &[0; HALF_BYTES]).is_err());
    }
}
