//! The objects of a token that are one wrapping key, and how the token wants to be asked with them.

use cryptoki::object::ObjectHandle;

/// The objects that are one wrapping key. Valid as long as the session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handles {
    Aes { key: ObjectHandle, iv: IvForm },
    Rsa { public: Option<ObjectHandle>, private: ObjectHandle, label: LabelForm },
    AesAndMac { aes: ObjectHandle, mac: ObjectHandle },
}

/// Who makes the IV of AES-GCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IvForm {
    /// We do.
    Given,
    /// The token does, and writes it where it was given zeros: AWS CloudHSM.
    Zeros,
    /// The token does, wants none, and writes it behind the text: Luna in FIPS mode.
    Absent,
}

impl IvForm {
    /// In the order in which they are tried.
    pub(super) const ALL: [Self; 3] = [Self::Given, Self::Zeros, Self::Absent];
}

/// How a token wants to be told that OAEP has no label. The text is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelForm {
    /// As data of no bytes: PKCS#11 v3.0 §2.1.8.
    Empty,
    /// As no source of data at all.
    Absent,
}

impl LabelForm {
    /// In the order in which they are tried.
    pub(super) const ALL: [Self; 2] = [Self::Empty, Self::Absent];
}
