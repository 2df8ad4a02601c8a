//! The file `state` in all its versions: frozen vectors, and what is refused.

use super::*;
use crate::keyring::epoch::{Epoch, Part, Record, Reported};
use crate::keyring::marks::Marks;
use crate::keyring::ring::Entry;
use crate::provider::observed::Observed;
use crate::provider::{KeyIdentity, KeyState, KeyVersion, ProviderKind};
use crate::types::hex;
fn key(byte: u8) -> Key {
    Key::copy_of(&[byte; 32]).unwrap()
}

fn entry(byte: u8) -> Entry {
    Entry { id: KekId::from_bytes([byte; 16]), created: u64::from(byte), uses_reserved: 65_536, shared: false }
}

fn state() -> State {
    let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
    State {
        generation: 3,
        written: 8,
        guard: Some(Guard { index: 0x0180_4E53, expected: 4 }),
        recipients: vec![RECIPIENT.parse().unwrap()],
        roots: roots(),
        ..State::bare(ring.with_pending(entry(3)).unwrap().all_shared())
    }
}

fn roots() -> ProviderMemory {
    let cluster = "c1".parse().unwrap();
    let key = |version: &str| KeyState {
        identity: KeyIdentity::new("transit/k@1").unwrap(),
        version: KeyVersion::new(version).unwrap(),
    };
    let epoch = |version: &str| {
        let KeyState { identity, version } = key(version);
        Reported::Epoch(Epoch { number: 0, parts: [Part { kind: ProviderKind::Vault, identity, version }].into() })
    };
    let observed = Observed::from_parts(key("2"), [("transit/k@1".to_owned(), "1".to_owned())]);
    let records = vec![Record { names: ["vault".to_owned()].into(), kind: ProviderKind::Vault, observed }];
    ProviderMemory { records, ..ProviderMemory::default() }.report(epoch("1"), &cluster).report(epoch("2"), &cluster)
}

/// The test key of age's specification.
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

const ROOT: RootId = RootId::from_bytes([9; 16]);

/// As release 0.1 wrote it.
const VERSION_1_BYTES: &str = "010909090909090909090909090909090900026331000000000000000300000000000000060202020202020202020202\
    020202020200000000000000020000000000010000000103030303030303030303030303030303000000000000000300\
    000000000100000001010101010101010101010101010101010000000000000001000000000001000000000000000000\
    06014acdaac2dbd21ed3397b4d08fd2fd730a7518a1c19fb46ef12f37508c71657d6";

#[test]
fn a_state_of_version_1_is_read() {
    let bytes = hex::decode(VERSION_1_BYTES).unwrap();
    let state = State::decode(1, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7)).unwrap();
    let ring = Ring::new(entry(1), 5).with_pending(entry(2)).unwrap().activate(&entry(2).id, 6).unwrap();
    let ring = ring.with_pending(entry(3)).unwrap();
    assert_eq!(state, State { generation: 3, ..State::bare(ring) });
}

#[test]
fn a_state_of_version_2_is_read() {
    let bytes = hex::decode(VERSION_2_BYTES).unwrap();
    let read = State::decode(2, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7));
    assert_eq!(read, Ok(State { roots: ProviderMemory::default(), ..state() }));
}

const VERSION_2_BYTES: &str = "010909090909090909090909090909090900026331000000000000000300000000000000080101804e53000000000000\
         000401003e616765317a766b7967326c717a726161326c6e6a7671656a33326e6b75753075657332733832687a727965\
         38363978656578766e37336571756e756a776a0000000000000006020202020202020202020202020202020000000000\
         000002000000000001000001000103030303030303030303030303030303000000000000000300000000000100000100\
         01010101010101010101010101010101010000000000000001000000000001000001000000000000000601e76df69fc1\
         ce7cd50ea76e09472c0dea61fc8886a7c6feda43af87903f101a10";

#[test]
fn a_state_of_version_3_is_read() {
    let bytes = hex::decode(VERSION_3_BYTES).unwrap();
    let expected = State { marks: Marks::of_unknown(&state().roots), ..state() };
    assert_eq!(State::decode(3, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7)), Ok(expected));
}

#[test]
fn of_a_state_that_tells_no_marks_each_key_may_be_the_only_one_of_a_text() {
    let bytes = hex::decode(VERSION_3_BYTES).unwrap();
    let state = State::decode(3, &bytes, &"c1".parse().unwrap(), &ROOT, &key(7)).unwrap();
    let known: Vec<_> = state.roots.records.iter().map(|record| (record.kind, record.identity().clone())).collect();
    let direct: Vec<_> = state.marks.direct().cloned().collect();
    assert_eq!(direct, known, "what was written in mode direct before the upgrade has a key of its own");
}

const VERSION_3_BYTES: &str = "010909090909090909090909090909090900026331000000000000000300000000000000080101804e530000000000\
         00000401003e616765317a766b7967326c717a726161326c6e6a7671656a33326e6b75753075657332733832687a72\
         796538363978656578766e37336571756e756a776a0100000000000101000b7472616e7369742f6b40310001320001\
         002c6e73312d6631336638623363343138306463306233336438363035626234623166383430383864343266303800\
         0100057661756c7401000b7472616e7369742f6b40310001320001000b7472616e7369742f6b403100013100000000\
         0000000602020202020202020202020202020202000000000000000200000000000100000100010303030303030303\
         0303030303030303000000000000000300000000000100000100010101010101010101010101010101010100000000\
         000000010000000000010000010000000000000006014fb3e00fb7b46b9559d9159b05095e4c429e31f95f72390658\
         bc08a18d32ef90";

fn marks() -> Marks {
    let mut marks = Marks::default();
    let key = |identity| (ProviderKind::Vault, KeyIdentity::new(identity).unwrap());
    marks.put_direct(key("transit/k@1"));
    marks.put_copies(key("transit/k@1"));
    marks.give_up(key("transit/l@1"));
    marks
}

fn whole() -> State {
    let mark = |byte| Some(SealMark { generation: u64::from(byte), digest: [byte; 32] });
    let ring = state().ring.with_found(entry(5), 9);
    let mut given = Nodes::new();
    given.insert(NodeMark::of(b"storage key"), "cp-2");
    State {
        guard: None,
        guard_to_come: Some(0x0180_4E54),
        seal: mark(6),
        next_seal: mark(7),
        recovery: Some([8; 32]),
        sharers: Nodes::some().with(&given),
        given,
        pending_is_own: true,
        left_counters: [(0x0180_4E52, Some(7)), (0x0180_4E53, None)].into(),
        marks: marks(),
        key_id_began: KeyIdBegan { at: 9, after: FormerThen::UpTo(KekId::from_bytes([4; 16])) },
        awaits_bundle: true,
        ring,
        ..state()
    }
}

#[test]
fn frozen_vector_of_version_4() {
    let cluster = "c1".parse().unwrap();
    let bytes = whole().encode(&cluster, &ROOT, &key(7));
    assert_eq!(hex::encode(&bytes), VERSION_4_BYTES);
    assert_eq!(State::decode(4, &bytes, &cluster, &ROOT, &key(7)), Ok(whole()));
    let plain = state().encode(&cluster, &ROOT, &key(7));
    assert_eq!(State::decode(4, &plain, &cluster, &ROOT, &key(7)), Ok(state()));
    assert_eq!(State::decode(3, &plain, &cluster, &ROOT, &key(7)), Err(StateError::Mac), "the version is under it");
}

#[test]
fn each_form_of_the_beginning_of_a_key_id_is_read_back() {
    let cluster = "c1".parse().unwrap();
    for after in [FormerThen::Unknown, FormerThen::None, FormerThen::UpTo(KekId::from_bytes([4; 16]))] {
        let state = State { key_id_began: KeyIdBegan { at: 7, after }, ..state() };
        let bytes = state.encode(&cluster, &ROOT, &key(7));
        assert_eq!(State::decode(4, &bytes, &cluster, &ROOT, &key(7)), Ok(state));
    }
}

#[test]
fn what_ceased_to_be_active_under_a_key_id_is_under_it_wherever_another_nodes_ring_puts_what_was_found() {
    // KEK 5 was given up here and has served elsewhere; with it as the last one a key_id began, of KEK 1, which was replaced under it.
    let ring = Ring::new(entry(1), 0).with_found(Entry { shared: true, ..entry(5) }, 1);
    let began = KeyIdBegan::now(&ring, 2);
    let ring = ring.with_pending(entry(2)).unwrap().activate(&entry(2).id, 3).unwrap();
    assert!(!began.is_after(&entry(1).id, &ring));
    // It comes as one that the other node has left, and as the one that is active there, and is left here later.
    let left_there = Ring::new(entry(5), 0).with_pending(entry(2)).unwrap().activate(&entry(2).id, 9).unwrap();
    let adopted = ring.adopt(&left_there, 10).unwrap();
    assert!(!began.is_after(&entry(1).id, &adopted), "kube-apiserver may still write under it: {:?}", adopted.former());
    let active_there = Ring::new(entry(5), 0);
    let adopted = ring.adopt(&active_there, 10).unwrap();
    let adopted = adopted.with_pending(entry(6)).unwrap().activate(&entry(6).id, 11).unwrap();
    assert!(!began.is_after(&entry(1).id, &adopted), "kube-apiserver may still write under it: {:?}", adopted.former());
}

const VERSION_4_BYTES: &str = "01090909090909090909090909090909090002633100000000000000030000000000\
         0000080201804e5401003e616765317a766b7967326c717a726161326c6e6a7671656a33326e6b7575307565733273\
         3832687a72796538363978656578766e37336571756e756a776a0100000000000101000b7472616e7369742f6b4031\
         0001320001002c6e73312d663133663862336334313830646330623333643836303562623462316638343038386434\
         32663038000100057661756c7401000b7472616e7369742f6b40310001320001000b7472616e7369742f6b40310001\
         3101000000000000000606060606060606060606060606060606060606060606060606060606060606060100000000\
         0000000707070707070707070707070707070707070707070707070707070707070707070108080808080808080808\
         0808080808080808080808080808080808080808080803020000000000000000000000000000000000012d66217b96\
         51a2b9ead83fc44f2ba503e4000463702d320166217b9651a2b9ead83fc44f2ba503e4000463702d320201804e5201\
         000000000000000701804e5300000201000b7472616e7369742f6b40310301000b7472616e7369742f6c4031040104\
         0404040404040404040404040404040000000000000009000000000000000602020202020202020202020202020202\
         0000000000000002000000000001000001000103030303030303030303030303030303000000000000000300000000\
         0001000001000201010101010101010101010101010101000000000000000100000000000100000100000000000000\
         060105050505050505050505050505050505000000000000000500000000000100000000000000000000090416358e\
         a03c3cac3bc7f20b1523dfa7619cba033e93c875b1063595007fd96b2b";

#[test]
fn a_recipient_that_we_would_write_otherwise_is_refused() {
    let cluster = "c1".parse().unwrap();
    let bytes = state().encode(&cluster, &ROOT, &key(7));
    let at = bytes.windows(RECIPIENT.len()).position(|window| window == RECIPIENT.as_bytes()).unwrap();
    let mut body = bytes[..bytes.len() - MAC_BYTES].to_vec();
    body[at - 1] += 1;
    body.insert(at, b' ');
    let tag = mac(&key(7), &[LABEL, &[4], &body]).finalize();
    let refused = State::decode(4, &[&body[..], &tag].concat(), &cluster, &ROOT, &key(7));
    assert_eq!(refused, Err(StateError::Format(WireError::BadValue("recipient"))));
}

#[test]
fn a_state_of_another_cluster_or_root_is_named_and_a_changed_one_refused() {
    let (c1, c2): (ClusterId, ClusterId) = ("c1".parse().unwrap(), "c2".parse().unwrap());
    let bytes = state().encode(&c1, &ROOT, &key(7));
    assert_eq!(State::decode(4, &bytes, &c2, &ROOT, &key(7)), Err(StateError::Cluster("c1".into())));
    let other = RootId::from_bytes([8; 16]);
    assert_eq!(State::decode(4, &bytes, &c1, &other, &key(7)), Err(StateError::Root(ROOT)));
    assert_eq!(State::decode(4, &bytes, &c1, &ROOT, &key(6)), Err(StateError::Mac));
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(State::decode(4, &bad, &c1, &ROOT, &key(7)).is_err(), "bit {bit}");
    }
}

#[test]
fn however_many_keys_a_provider_tells_of_the_state_stays_one_that_is_read() {
    let mut marks = Marks::default();
    for number in 0..60_000 {
        // A server, or something before it, that tells the present moment as the birth of its key.
        marks.put_direct((
            ProviderKind::Vault,
            KeyIdentity::new(format!("transit/k@{}", 1_764_255_600 + number)).unwrap(),
        ));
    }
    let bytes = State { marks, ..state() }.encode(&"c1".parse().unwrap(), &ROOT, &key(7));
    assert!(bytes.len() <= 1 << 20, "{} bytes, which no start reads", bytes.len());
}
