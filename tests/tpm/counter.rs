//! The counter only grows, is used by its authValue alone, and nobody on the bus can lie about it.

use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::protocol::{Auth, CounterStep};
use nodeseal::sealer::Sealer;
use nodeseal::types::SealPolicy;
use test_support::swtpm::Swtpm;

use crate::interposed::swapped;
use crate::interposer::{
    Interposer, NV_DEFINE_SPACE, NV_INCREMENT, NV_READ, NV_READ_PUBLIC, NV_UNDEFINE_SPACE, READ_PUBLIC,
};
use crate::support::{another_auth, assert_nothing_left, auth, engine, engine_at, expect_fault, seal};
use crate::wire::{commands, leaks};

const INDEX: u32 = 0x0180_0001;
const ANOTHER: u32 = 0x0180_0002;

fn try_count_at(port: u16, step: CounterStep, index: u32, auth: &Auth) -> Result<u64, Fault> {
    engine_at(port).counters().unwrap().count(step, index, auth, None)
}

fn try_count(tpm: &Swtpm, step: CounterStep) -> Result<u64, Fault> {
    try_count_at(tpm.port(), step, INDEX, &auth())
}

fn make(tpm: &Swtpm) -> u64 {
    try_count(tpm, CounterStep::Make).unwrap()
}

fn read(tpm: &Swtpm) -> u64 {
    try_count(tpm, CounterStep::Read).unwrap()
}

fn advance(tpm: &Swtpm) -> u64 {
    try_count(tpm, CounterStep::Advance).unwrap()
}

fn indices(tpm: &Swtpm) -> String {
    tpm.tool("tpm2_getcap handles-nv-index").trim().to_owned()
}

#[test]
fn a_counter_is_made_read_advanced_and_removed_and_nothing_else_is_left_behind() {
    let tpm = Swtpm::start();
    let first = make(&tpm);
    assert_eq!(read(&tpm), first);
    assert_eq!(advance(&tpm), first + 1);
    assert_eq!(advance(&tpm), first + 2);
    assert_eq!(read(&tpm), first + 2);
    assert_eq!(indices(&tpm), "- 0x1800001");
    assert_nothing_left(&tpm);
    let shown = tpm.tool("tpm2_nvreadpublic 0x1800001");
    for line in ["friendly: authwrite|nt=0x1|authread|no_da|written", "size: 8", "friendly: sha256"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert_eq!(try_count(&tpm, CounterStep::Remove).unwrap(), 0);
    assert_eq!(indices(&tpm), "");
    assert_eq!(try_count(&tpm, CounterStep::Remove).unwrap(), 0, "one that is gone is fine");
    assert_nothing_left(&tpm);
}

#[test]
fn a_counter_survives_a_restart_and_a_power_cut() {
    let mut tpm = Swtpm::start();
    make(&tpm);
    let value = advance(&tpm);
    tpm.tool("tpm2_shutdown -c");
    tpm.restart();
    assert_eq!(read(&tpm), value);
    let value = advance(&tpm);
    tpm.restart();
    assert_eq!(read(&tpm), value);
    assert_eq!(advance(&tpm), value + 1);
}

#[test]
fn a_counter_that_was_removed_or_made_anew_never_goes_back() {
    let tpm = Swtpm::start();
    make(&tpm);
    let mut last = (0..4).map(|_| advance(&tpm)).next_back().unwrap();
    for remove in [
        |_: &Swtpm| {},
        |tpm: &Swtpm| assert_eq!(try_count(tpm, CounterStep::Remove).unwrap(), 0),
        |tpm: &Swtpm| drop(tpm.tool("tpm2_nvundefine -C o 0x1800001")),
    ] {
        remove(&tpm);
        let value = make(&tpm);
        assert!(value > last, "{value} after {last}");
        assert_eq!(read(&tpm), value);
        last = value;
    }
    // Nor does one at another index begin below what was removed; beside one that is there it may.
    try_count(&tpm, CounterStep::Remove).unwrap();
    let other = try_count_at(tpm.port(), CounterStep::Make, ANOTHER, &auth()).unwrap();
    assert!(other > last, "{other} after {last}");
}

#[test]
fn only_a_stored_copy_of_the_whole_software_tpm_brings_an_old_value_back() {
    let mut tpm = Swtpm::start();
    let old = make(&tpm);
    tpm.cut_power();
    let state = tpm.file("tpm2-00.permall");
    let copy = std::fs::read(&state).unwrap();
    tpm.power_on();
    assert!(advance(&tpm) > old);
    tpm.cut_power();
    std::fs::write(&state, copy).unwrap();
    tpm.power_on();
    // What this documents: no counter helps against that. A TPM of hardware has no such copy.
    assert_eq!(read(&tpm), old);
}

#[test]
fn a_wrong_auth_value_neither_reads_nor_advances_and_does_not_count_towards_lockout() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for step in [CounterStep::Read, CounterStep::Advance].repeat(5) {
        let result = try_count_at(tpm.port(), step, INDEX, &another_auth());
        let detail = expect_fault(result, FaultCode::CounterSpace);
        assert!(detail.contains("0x9a2"), "{detail}");
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.in_lockout), (0, false));
    assert_eq!(read(&tpm), value);
    assert_nothing_left(&tpm);
}

#[test]
fn a_counter_whose_auth_value_is_not_ours_is_neither_made_anew_nor_removed_until_the_operator_says_so() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    // Another installation of ours: all but the authValue is the same.
    for step in [CounterStep::Make, CounterStep::Remove] {
        let watched = Interposer::before(&tpm, |_, bytes, tpm| tpm(bytes));
        let result = try_count_at(watched.port(), step, INDEX, &another_auth());
        let detail = expect_fault(result, FaultCode::CounterSpace);
        assert!(detail.contains("0x9a2"), "{detail}");
        assert_eq!((watched.count(NV_UNDEFINE_SPACE), watched.count(NV_DEFINE_SPACE)), (0, 0), "{step:?}");
        assert_eq!(read(&tpm), value, "{step:?}");
    }
    let info = engine(&tpm).describe().unwrap();
    assert_eq!((info.lockout_counter, info.in_lockout), (0, false));
    assert!(FaultCode::CounterSpace.hint().contains("--replace-counter"));
    // After a recovery, or the loss of the state directory.
    let anew = try_count_at(tpm.port(), CounterStep::Replace, INDEX, &another_auth()).unwrap();
    assert!(anew > value, "{anew} after {value}");
    assert_eq!(try_count_at(tpm.port(), CounterStep::Read, INDEX, &another_auth()).unwrap(), anew);
    expect_fault(try_count(&tpm, CounterStep::Read), FaultCode::CounterSpace);
    // It needs none to be there.
    assert!(try_count_at(tpm.port(), CounterStep::Replace, ANOTHER, &auth()).is_ok());
    tpm.tool("tpm2_clear -Q -c p");
    assert!(try_count_at(tpm.port(), CounterStep::Make, INDEX, &another_auth()).is_ok());
    assert_nothing_left(&tpm);
}

#[test]
fn somebody_elses_index_is_named_and_left_as_it_is() {
    let tpm = Swtpm::start();
    seal(&tpm, &SealPolicy::None);
    tpm.tool("tpm2_startauthsession -S policy.ctx");
    tpm.tool("tpm2_policyauthvalue -Q -S policy.ctx -L policy");
    tpm.tool("tpm2_flushcontext policy.ctx");
    for theirs in [
        "-s 8 -a authread|authwrite|no_da",
        "-s 8 -a ownerread|ownerwrite|nt=counter|no_da",
        "-s 8 -a authread|authwrite|nt=counter",
        "-s 8 -a authread|authwrite|ownerread|nt=counter|no_da",
        "-s 8 -a authread|authwrite|nt=counter|no_da -L policy",
        "-s 8 -a authread|authwrite|nt=counter|no_da -g sha384",
    ] {
        tpm.tool(&format!("tpm2_nvdefine -Q -C o 0x1800001 {theirs}"));
        let before = tpm.tool("tpm2_nvreadpublic 0x1800001");
        for step in
            [CounterStep::Make, CounterStep::Replace, CounterStep::Read, CounterStep::Advance, CounterStep::Remove]
        {
            let detail = expect_fault(try_count(&tpm, step), FaultCode::CounterSpace);
            assert!(detail.contains("0x1800001") && detail.contains("attributes 0x"), "{detail}");
        }
        assert_eq!(tpm.tool("tpm2_nvreadpublic 0x1800001"), before);
        tpm.tool("tpm2_nvundefine -Q -C o 0x1800001");
    }
    assert_nothing_left(&tpm);
}

#[test]
fn an_index_that_is_not_the_owners_is_refused_before_the_tpm_is_asked() {
    let mut tpm = Swtpm::start();
    tpm.cut_power();
    for index in [0, 0x0100_0001, 0x017F_FFFF, 0x01C0_0002, 0x8100_0001, u32::MAX] {
        let detail = expect_fault(try_count_at(tpm.port(), CounterStep::Make, index, &auth()), FaultCode::CounterSpace);
        assert!(detail.contains(&format!("{index:#x}")) && detail.contains("0x1bfffff"), "{detail}");
    }
}

#[test]
fn an_owner_with_a_password_is_needed_to_make_and_remove_only() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    tpm.tool("tpm2_changeauth -Q -c o somebodys-password");
    assert_eq!(read(&tpm), value);
    assert_eq!(advance(&tpm), value + 1);
    for step in [CounterStep::Make, CounterStep::Remove] {
        expect_fault(try_count(&tpm, step), FaultCode::OwnerAuth);
        assert_eq!(read(&tpm), value + 1, "it is still there");
    }
    let result = try_count_at(tpm.port(), CounterStep::Make, ANOTHER, &auth());
    expect_fault(result, FaultCode::OwnerAuth);
    assert_nothing_left(&tpm);
}

#[test]
fn a_counter_that_somebody_undefined_is_gone() {
    let tpm = Swtpm::start();
    make(&tpm);
    tpm.tool("tpm2_nvundefine -Q -C o 0x1800001");
    for step in [CounterStep::Read, CounterStep::Advance] {
        let detail = expect_fault(try_count(&tpm, step), FaultCode::CounterGone);
        assert!(detail.contains("0x1800001"), "{detail}");
    }
    assert_eq!(indices(&tpm), "", "it is not made by the way");
    assert_nothing_left(&tpm);
}

#[test]
fn a_power_cut_before_the_first_count_is_mended_by_making_it_again() {
    let mut tpm = Swtpm::start();
    let cut = Interposer::before(&tpm, |code, bytes, tpm| if code == NV_INCREMENT { Vec::new() } else { tpm(bytes) });
    expect_fault(try_count_at(cut.port(), CounterStep::Make, INDEX, &auth()), FaultCode::NoDevice);
    tpm.restart();
    assert_eq!(indices(&tpm), "- 0x1800001");
    for step in [CounterStep::Read, CounterStep::Advance] {
        let detail = expect_fault(try_count(&tpm, step), FaultCode::CounterGone);
        assert!(detail.contains("never counted"), "{detail}");
    }
    let value = make(&tpm);
    assert_eq!(read(&tpm), value);
}

#[test]
fn a_tpm_that_asks_to_wait_is_waited_for_and_counts_once() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for (turn, step) in (1..).zip([NV_READ_PUBLIC, NV_READ, NV_INCREMENT]) {
        let busy = Interposer::answering(&tpm, step, 0x920, 3);
        assert_eq!(try_count_at(busy.port(), CounterStep::Advance, INDEX, &auth()).unwrap(), value + turn);
    }
    let busy = Interposer::answering(&tpm, NV_DEFINE_SPACE, 0x920, 3);
    let anew = try_count_at(busy.port(), CounterStep::Make, INDEX, &auth()).unwrap();
    assert_eq!(read(&tpm), anew);
    assert_nothing_left(&tpm);
}

#[test]
fn a_count_whose_answer_was_lost_is_not_counted_twice() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for (turn, step) in (1..).zip([CounterStep::Advance, CounterStep::Make]) {
        let mut lost = false;
        let shaky = Interposer::before(&tpm, move |code, bytes, tpm| {
            let answer = tpm(bytes);
            if code == NV_INCREMENT && !std::mem::replace(&mut lost, true) { Vec::new() } else { answer }
        });
        assert_eq!(try_count_at(shaky.port(), step, INDEX, &auth()).unwrap(), value + turn);
        assert_eq!((shaky.count(NV_INCREMENT), read(&tpm)), (1, value + turn));
        tpm.tool("tpm2_flushcontext -l");
    }
}

#[test]
fn a_tpm_without_room_says_so() {
    let tpm = Swtpm::start();
    let full = Interposer::answering(&tpm, NV_DEFINE_SPACE, 0x14B, usize::MAX);
    expect_fault(try_count_at(full.port(), CounterStep::Make, INDEX, &auth()), FaultCode::CounterSpace);
    assert_eq!(full.count(NV_DEFINE_SPACE), 1, "it is asked once");
    assert_nothing_left(&tpm);
}

#[test]
fn every_flipped_bit_of_an_answer_is_noticed() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for (step, offsets) in [(NV_READ, 0..60), (NV_READ_PUBLIC, 0..70)] {
        for offset in offsets {
            let mut asked = 0;
            let liar = Interposer::before(&tpm, move |code, bytes, tpm| {
                let mut answer = tpm(bytes);
                // TPM2_NV_ReadPublic comes twice for a use: bare, and through the session.
                asked += u32::from(code == step);
                if code == step
                    && (step == NV_READ || asked == 2)
                    && let Some(byte) = answer.get_mut(10 + offset)
                {
                    *byte ^= 0x10;
                }
                answer
            });
            let Err(fault) = try_count_at(liar.port(), CounterStep::Read, INDEX, &auth()) else {
                panic!("{step:#x} with byte {offset} flipped was believed")
            };
            assert!(matches!(fault.code, FaultCode::Forged | FaultCode::Internal), "{step:#x}, byte {offset}: {fault}");
            // A session that the answer says is closed is not flushed by the library.
            tpm.try_tool("tpm2_flushcontext -l");
        }
    }
    assert_eq!(read(&tpm), value);
}

#[test]
fn an_old_answer_is_not_believed_again() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for step in [NV_READ, NV_INCREMENT] {
        let mut recorded: Option<Vec<u8>> = None;
        let replaying = Interposer::before(&tpm, move |code, bytes, tpm| match &recorded {
            Some(answer) if code == step => answer.clone(),
            _ => {
                let answer = tpm(bytes);
                if code == step {
                    recorded = Some(answer.clone());
                }
                answer
            }
        });
        // It reads twice, and so meets its own first answer; counting meets it the next time.
        let first = try_count_at(replaying.port(), CounterStep::Advance, INDEX, &auth());
        let result =
            if step == NV_READ { first } else { try_count_at(replaying.port(), CounterStep::Advance, INDEX, &auth()) };
        expect_fault(result, FaultCode::Forged);
        // The library does not flush a session whose answer it did not believe; a resource manager would.
        tpm.tool("tpm2_flushcontext -l");
    }
    assert_eq!(read(&tpm), value + 2);
}

#[test]
fn an_attribute_or_index_that_somebody_invents_is_not_believed() {
    let tpm = Swtpm::start();
    make(&tpm);
    let older = try_count_at(tpm.port(), CounterStep::Make, ANOTHER, &auth()).unwrap();
    let newer = make(&tpm);
    assert!(newer > older);
    // The other counter of ours, with the same authValue, in place of this one.
    let swapped = Interposer::before(&tpm, |_, bytes, tpm| {
        let mut bytes = bytes.to_vec();
        while let Some(at) = bytes.windows(4).position(|four| four == INDEX.to_be_bytes()) {
            bytes[at..at + 4].copy_from_slice(&ANOTHER.to_be_bytes());
        }
        tpm(&bytes)
    });
    let steps = [CounterStep::Read, CounterStep::Advance, CounterStep::Remove, CounterStep::Make];
    for step in steps {
        let result = try_count_at(swapped.port(), step, INDEX, &auth());
        let fault = result.expect_err("another index was believed");
        assert!(matches!(fault.code, FaultCode::Forged | FaultCode::Internal), "{fault}");
        tpm.try_tool("tpm2_flushcontext -l");
    }
    assert_eq!((swapped.count(NV_UNDEFINE_SPACE), swapped.count(NV_INCREMENT)), (0, 0));
    // Somebody else's index dressed up as ours in the bare answer (TPMA_NV behind header, size, index and algorithm).
    tpm.tool("tpm2_nvdefine -Q -C o 0x1800003 -s 8 -a authread|authwrite|ownerread|nt=counter|no_da");
    let dressed = Interposer::before(&tpm, |code, bytes, tpm| {
        let mut answer = tpm(bytes);
        if code == NV_READ_PUBLIC && answer[..2] == [0x80, 0x01] && answer.len() > 22 {
            answer[18..22].copy_from_slice(&0x0204_0014_u32.to_be_bytes());
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&answer[12..26]);
            answer[30..62].copy_from_slice(&digest);
        }
        answer
    });
    let result = try_count_at(dressed.port(), CounterStep::Make, 0x0180_0003, &auth());
    expect_fault(result, FaultCode::Forged);
    assert_eq!(dressed.count(NV_UNDEFINE_SPACE), 0);
    assert_nothing_left(&tpm);
}

#[test]
fn a_storage_root_key_swapped_on_the_bus_gets_no_value_believed() {
    let tpm = Swtpm::start();
    let value = make(&tpm);
    for step in [CounterStep::Read, CounterStep::Advance, CounterStep::Remove] {
        let evil = Interposer::before(&tpm, |code, bytes, tpm| {
            let answer = tpm(bytes);
            if code == READ_PUBLIC { swapped(answer, true) } else { answer }
        });
        assert!(try_count_at(evil.port(), step, INDEX, &auth()).is_err(), "{step:?}");
        tpm.try_tool("tpm2_flushcontext -l");
    }
    assert_eq!(read(&tpm), value);
}

#[test]
fn no_byte_of_the_auth_value_is_on_the_wire() {
    let tpm = Swtpm::start();
    make(&tpm);
    advance(&tpm);
    read(&tpm);
    let _ = try_count_at(tpm.port(), CounterStep::Read, INDEX, &another_auth());
    make(&tpm);
    try_count(&tpm, CounterStep::Remove).unwrap();
    let log = tpm.log();
    let ours: Vec<_> = commands(&log).into_iter().map(|(code, _)| code).collect();
    for (code, least) in [(NV_DEFINE_SPACE, 2), (NV_UNDEFINE_SPACE, 2), (NV_INCREMENT, 3), (NV_READ, 6)] {
        let count = ours.iter().filter(|seen| **seen == code).count();
        assert!(count >= least, "the log holds {count} of {code:#x}: is it read right?");
    }
    assert_eq!(leaks(&log), Vec::<String>::new());
}
