//! The node root: what the sealing device and the host secret give together, and the keys made from it.
//!
//! `root = HKDF-SHA256(salt = root id, ikm = device secret ‖ host secret)`; each purpose expands its own key. The device secret is
//! what the device sealed; `node/root.seal` holds the root id and the device's blob (docs/formats.md, "Node root").

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::client::{SealerClient, SealerError};
use super::host_secret::{self, HostSecret, LengthError};
use super::protocol::DeviceBlob;
use crate::store::{Disk, Generation, Kind, LoadError, StateDir, StoreError};
use crate::types::random::{self, RandomError};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Backend, Class, ClusterId, Explained, Key, RootId, SealPolicy, SealTo};

/// Inside of the state directory.
pub const FILE: &str = "node/root.seal";

/// HKDF-SHA256 over both halves.
const ALGORITHM: u8 = 1;

/// Keys of the node, for as long as one operation takes.
pub struct NodeRoot {
    sealed: SealedRoot,
    /// Boxed, so that a move leaves none of it behind.
    hkdf: Box<Hkdf<Sha256>>,
}

/// `node/root.seal`: which root, and what the device needs to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRoot {
    /// Salt of the derivation; the same for all seals of one root.
    pub id: RootId,
    /// Counts the seals of this root, for the operator.
    pub generation: u64,
    /// What it is bound to.
    pub policy: SealPolicy,
    /// The device's own bytes.
    pub blob: DeviceBlob,
}

/// Why the node root cannot be opened or sealed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// `node/root.seal` does not parse.
    #[error("the sealed node root cannot be read")]
    Format(#[source] WireError),
    /// `node/host.key` does not parse.
    #[error("the host secret cannot be read")]
    HostSecret(#[source] LengthError),
    /// No randomness.
    #[error("no node root can be made")]
    Random(#[source] RandomError),
    /// The sealer or its device.
    #[error("the sealing device did not open the node root")]
    Sealer(#[source] SealerError),
    /// The state directory.
    #[error("the state directory cannot be used")]
    Store(#[source] StoreError),
    /// What was sealed does not come back.
    #[error("the new seal does not give the same node root; the old one was kept")]
    Verify,
}

impl Explained for RootError {
    fn class(&self) -> Class {
        match self {
            Self::Format(_) | Self::HostSecret(_) => Class::Corrupt,
            Self::Random(_) => Class::Unavailable,
            Self::Sealer(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Verify => Class::Internal,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Format(_) | Self::HostSecret(_) => {
                "restore the directory node/ from a backup of this node's state directory"
            }
            Self::Random(_) => "the kernel's random generator failed: reboot, and distrust the machine",
            Self::Sealer(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Verify => "do not rely on this device: update its firmware, or replace it",
        }
    }
}

impl NodeRoot {
    /// Makes a new root, seals it and writes both halves. For a node that is set up; the caller has made sure that nothing is lost.
    /// `pin` is a seal under the storage root key that is expected; a first setup has none.
    pub fn create<D: Disk>(
        dir: &StateDir<D>,
        sealer: &SealerClient,
        to: SealTo,
        pin: Option<&DeviceBlob>,
    ) -> Result<Self, RootError> {
        let fresh = FreshRoot::make(sealer, to, pin)?;
        fresh.save(dir)?;
        Ok(fresh.root)
    }

    /// Opens the root with the device, and names the files whose newest generation was damaged.
    pub fn open<D: Disk>(dir: &StateDir<D>, sealer: &SealerClient) -> Result<(Self, Vec<&'static str>), RootError> {
        let mut question = Question::load(dir)?;
        let fell_back = std::mem::take(&mut question.fell_back);
        question.open(sealer).map(|root| (root, fell_back))
    }

    /// Seals the same root anew, by any device, and replaces the file.
    pub fn reseal<D: Disk>(
        dir: &StateDir<D>,
        sealer: &SealerClient,
        to: SealTo,
        parent: Parent,
    ) -> Result<SealedRoot, RootError> {
        let sealed = Question::load(dir)?.reseal(sealer, to, parent)?;
        sealed.save(dir)?;
        Ok(sealed)
    }

    /// Whether the file is there, in any generation.
    pub fn exists<D: Disk>(dir: &StateDir<D>) -> Result<bool, StoreError> {
        dir.exists(FILE)
    }

    /// Which root this is.
    pub fn id(&self) -> RootId {
        self.sealed.id
    }

    /// The seal that it was opened from.
    pub fn sealed(&self) -> &SealedRoot {
        &self.sealed
    }

    /// Encrypts local KEKs on disk.
    pub fn kek_wrapping_key(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal local kek v1\0", cluster)
    }

    /// Encrypts credentials on disk.
    pub fn credential_key(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal credentials v1\0", cluster)
    }

    /// Authorises the counter that guards the state file.
    pub fn counter_auth(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal counter auth v1\0", cluster)
    }

    /// Signs the recovery file.
    pub fn recovery_signing_seed(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal recovery signing v1\0", cluster)
    }

    /// What this node's identity follows from, for the other nodes of the cluster.
    pub fn member_seed(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal member v1\0", cluster)
    }

    /// Authenticates the state file.
    pub fn state_mac_key(&self, cluster: &ClusterId) -> Key {
        self.purpose(b"nodeseal state mac v1\0", cluster)
    }

    fn purpose(&self, label: &[u8], cluster: &ClusterId) -> Key {
        let info = [label, cluster.as_str().as_bytes()].concat();
        host_secret::expand(&self.hkdf, &info)
    }
}

fn derive(id: &RootId, device_secret: &Key, host: &HostSecret) -> Box<Hkdf<Sha256>> {
    let mut ikm = Zeroizing::new([0; 2 * Key::LEN]);
    ikm[..Key::LEN].copy_from_slice(device_secret.expose());
    ikm[Key::LEN..].copy_from_slice(host.expose());
    Box::new(Hkdf::new(Some(id.as_bytes()), &*ikm))
}

/// A root that the device has sealed, and that is not on disk yet.
pub struct FreshRoot {
    /// Opened.
    pub root: NodeRoot,
    host: HostSecret,
}

impl FreshRoot {
    /// Both halves are drawn, and the device's is sealed. `pin` is a seal under the storage root key that is expected. Blocks for as
    /// long as the device takes, and writes nothing.
    pub fn make(sealer: &SealerClient, to: SealTo, pin: Option<&DeviceBlob>) -> Result<Self, RootError> {
        let host = HostSecret::random().map_err(RootError::Random)?;
        let id = RootId::from_bytes(random::array().map_err(RootError::Random)?);
        let device_secret = Key::random().map_err(RootError::Random)?;
        let hkdf = derive(&id, &device_secret, &host);
        let blob = sealer.seal(device_secret, host.auth(&id), to, pin).map_err(RootError::Sealer)?;
        let sealed = SealedRoot { id, generation: 1, policy: to.policy(), blob };
        Ok(Self { root: NodeRoot { sealed, hkdf }, host })
    }

    /// Writes both halves into a folder where nothing counts yet.
    pub fn save<D: Disk>(&self, dir: &StateDir<D>) -> Result<(), RootError> {
        self.host.save(dir).map_err(RootError::Store)?;
        self.root.sealed.save(dir)
    }
}

/// Which storage root key a new seal may be under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// That of the seal before, where both are of a TPM: another one is refused before it is given anything.
    Same,
    /// Whichever the TPM has: the operator says that it is to change.
    New,
}

/// Everything that a question to the device needs, read from disk. Can be asked on any thread: a device takes its time.
pub struct Question {
    host: HostSecret,
    sealed: SealedRoot,
    /// Files of which the generation before the newest was read.
    fell_back: Vec<&'static str>,
}

impl Question {
    /// Reads both halves.
    pub fn load<D: Disk>(dir: &StateDir<D>) -> Result<Self, RootError> {
        let host = HostSecret::load(dir).map_err(host_error)?;
        let sealed = SealedRoot::load(dir)?;
        let read = [(HostSecret::FILE, host.generation), (FILE, sealed.generation)];
        let fell_back = read.into_iter().filter(|(_, read)| *read == Generation::Previous).map(|(file, _)| file);
        Ok(Self { fell_back: fell_back.collect(), host: host.value, sealed: sealed.value })
    }

    /// The root. Blocks for as long as the device takes.
    pub fn open(self, sealer: &SealerClient) -> Result<NodeRoot, RootError> {
        let Self { host, sealed, .. } = self;
        let secret = sealer.unseal(sealed.blob.clone(), host.auth(&sealed.id)).map_err(RootError::Sealer)?;
        let hkdf = derive(&sealed.id, &secret, &host);
        Ok(NodeRoot { sealed, hkdf })
    }

    /// The seal that is asked about, which pins what else is asked of the device.
    pub fn blob(&self) -> &DeviceBlob {
        &self.sealed.blob
    }

    /// A new seal of the same root, opened once for proof and not yet saved. Blocks for as long as the device takes.
    pub fn reseal(self, sealer: &SealerClient, to: SealTo, parent: Parent) -> Result<SealedRoot, RootError> {
        let Self { host, sealed: old, .. } = self;
        let secret = sealer.unseal(old.blob.clone(), host.auth(&old.id)).map_err(RootError::Sealer)?;
        let copy = Zeroizing::new(*secret.expose());
        let pin = match parent {
            Parent::Same => Some(&old.blob),
            Parent::New => None,
        };
        let blob = sealer.seal(secret, host.auth(&old.id), to, pin).map_err(RootError::Sealer)?;
        let back = sealer.unseal(blob.clone(), host.auth(&old.id)).map_err(RootError::Sealer)?;
        if back.expose() != &*copy {
            return Err(RootError::Verify);
        }
        Ok(SealedRoot { id: old.id, generation: old.generation.saturating_add(1), policy: to.policy(), blob })
    }
}

impl SealedRoot {
    /// The kind of device that sealed it, if it is one of ours.
    pub fn backend(&self) -> Option<Backend> {
        self.blob.backend()
    }

    /// SHA-256 of the device's bytes: tells this seal from every other of the same root.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.blob.as_bytes()).into()
    }

    /// Reads `node/root.seal`.
    pub fn load<D: Disk>(dir: &StateDir<D>) -> Result<crate::store::Loaded<Self>, RootError> {
        dir.load(FILE, Kind::NodeRoot, |_, bytes| Self::decode(bytes)).map_err(|error| match error {
            LoadError::Content(source) => RootError::Format(source),
            LoadError::Store(source) => RootError::Store(source),
        })
    }

    /// Writes the file. The previous generation becomes a spare copy of this seal and not an older one: a seal under a policy that
    /// the operator left must not stay on the disk.
    pub fn save<D: Disk>(&self, dir: &StateDir<D>) -> Result<(), RootError> {
        dir.replace_both(FILE, Kind::NodeRoot, &self.encode()).map_err(RootError::Store)
    }

    /// The payload of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(ALGORITHM).raw(self.id.as_bytes()).u64(self.generation);
        self.policy.write(&mut writer);
        writer.bytes16(self.blob.as_bytes()).finish()
    }

    /// The mirror of [`SealedRoot::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("algorithm")? != ALGORITHM {
            return Err(WireError::BadValue("algorithm"));
        }
        let id = RootId::from_bytes(reader.array("root id")?);
        let generation = reader.u64("generation")?;
        let policy = SealPolicy::read(&mut reader)?;
        let blob = DeviceBlob::new(reader.bytes16("blob")?.to_vec()).ok_or(WireError::BadValue("blob"))?;
        reader.end()?;
        Ok(Self { id, generation, policy, blob })
    }
}

fn host_error(error: LoadError<LengthError>) -> RootError {
    match error {
        LoadError::Content(source) => RootError::HostSecret(source),
        LoadError::Store(source) => RootError::Store(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    #[test]
    fn a_sealed_root_is_read_back_as_written() {
        let sealed = SealedRoot {
            id: RootId::from_bytes([1; 16]),
            generation: 7,
            policy: SealPolicy::None,
            blob: DeviceBlob::new(vec![9; 300]).unwrap(),
        };
        assert_eq!(SealedRoot::decode(&sealed.encode()), Ok(sealed.clone()));
        // Frozen with release 0.1.
        assert_eq!(
            hex::encode(&sealed.encode()[..28]),
            format!("01{}0000000000000007{}{}", "01".repeat(16), "00", "012c")
        );
    }

    #[test]
    fn both_halves_the_root_id_and_the_cluster_decide_every_key() {
        let host = |byte| HostSecret::for_test(byte);
        let key = |byte| Key::copy_of(&[byte; 32]).unwrap();
        let (a, b): (ClusterId, ClusterId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (one, two) = (RootId::from_bytes([1; 16]), RootId::from_bytes([2; 16]));
        let root = |id, device: &Key, host: &HostSecret| {
            let blob = DeviceBlob::new(vec![9]).unwrap();
            let sealed = SealedRoot { id, generation: 1, policy: SealPolicy::None, blob };
            NodeRoot { hkdf: derive(&id, device, host), sealed }
        };
        let base = root(one, &key(1), &host(2));
        let keys = [
            base.kek_wrapping_key(&a),
            base.kek_wrapping_key(&b),
            base.state_mac_key(&a),
            root(two, &key(1), &host(2)).kek_wrapping_key(&a),
            root(one, &key(3), &host(2)).kek_wrapping_key(&a),
            root(one, &key(1), &host(3)).kek_wrapping_key(&a),
        ];
        for (i, left) in keys.iter().enumerate() {
            for right in &keys[i + 1..] {
                assert_ne!(left.expose(), right.expose());
            }
        }
    }
}
