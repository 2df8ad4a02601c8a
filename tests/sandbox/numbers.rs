//! Every line of the fatal files, and every call that stands in no file: what the kernel answers under the real filters.
//!
//! Most of these calls have no safe form. A probe makes a harmless one instead, and its parent, a debugger, puts another number in its
//! place before the filters see it. Registers have names by processor: on others than x86-64 the tests with safe calls are all.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::{Grounds, Tried, order};

const FATAL: &str = include_str!("../../src/sandbox/policy/fatal.json");
const PROGRAMS: &str = include_str!("../../src/sandbox/policy/programs.json");
const COMMON: &str = include_str!("../../src/sandbox/policy/common.json");
const DAEMON: &str = include_str!("../../src/sandbox/policy/nodeseald.json");
const LIBRARIES: &str = include_str!("../../src/sandbox/policy/libraries.json");

/// Beyond the last of Linux 6.18.
const NUMBERS: u64 = 480;
const ENOSYS: i64 = 38;
/// Of a descriptor that is none: the filter has let the call through.
const EBADF: i64 = 9;
/// uretprobe and uprobe: the kernel's own way out of a breakpoint that it has set (Linux 6.11 and 6.18), which no filter is asked about.
/// Made by anybody else they are an illegal instruction.
const PAST_ALL_FILTERS: [u64; 2] = [335, 336];

/// Of the probe.
pub(crate) const NAME: &str = "ask-for-parent";

/// The child's side: asks for its parent's id, which no policy allows and none ends the process for, until its parent ends it.
pub(crate) fn ask_for_parent() -> Tried {
    loop {
        let _ = std::os::unix::process::parent_id();
    }
}

/// The child's side, before its confinement, which would not let it.
pub(crate) fn be_traced() {
    ptrace::traceme().unwrap();
    nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
}

/// Names and numbers of a file's lines.
fn calls(file: &str) -> Vec<(String, u64)> {
    let lines: Vec<Value> = serde_json::from_str(file).unwrap();
    let here = lines.iter().filter(|line| line["only"].as_str().is_none_or(|only| only == std::env::consts::ARCH));
    here.map(|line| line["syscall"].as_str().unwrap()).map(|name| (name.to_owned(), number(name))).collect()
}

/// As seccompiler knows it: a filter of this call alone compares the processor first, and then the number.
fn number(name: &str) -> u64 {
    const JUMP_IF_EQUAL: u16 = 0x15;
    let filter = json!({ "one": { "mismatch_action": "allow", "match_action": "kill_process", "filter": [{ "syscall": name }] } });
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filters = seccompiler::compile_from_json(filter.to_string().as_bytes(), arch).unwrap();
    let compares = filters["one"].iter().filter(|instruction| instruction.code == JUMP_IF_EQUAL);
    u64::from(compares.map(|instruction| instruction.k).nth(1).unwrap())
}

/// A probe at its entry into the call that is replaced.
struct Traced {
    child: Child,
    /// Of the thread that asks.
    thread: Pid,
    _grounds: Grounds,
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// What the kernel returned.
    Returned(i64),
    /// The process was ended by this signal.
    Ended(Signal),
}

impl Traced {
    fn start(policy: &str) -> Self {
        let (mut command, grounds) = order(NAME, policy);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        // It stops itself when its parent may look on. That is a thread of the child, and a tracer is a thread, too.
        let thread = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => thread,
            other => panic!("{other:?}"),
        };
        let traced = Self { child, thread, _grounds: grounds };
        ptrace::setoptions(thread, Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD).unwrap();
        loop {
            assert_eq!(traced.to_stop(), None);
            if traced.is_at_question() {
                return traced;
            }
        }
    }

    /// To the next entry into or return from a call.
    fn to_stop(&self) -> Option<Signal> {
        let mut pass = None;
        loop {
            ptrace::syscall(self.thread, pass).unwrap();
            match waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::PtraceSyscall(_) => return None,
                WaitStatus::Stopped(_, signal) => pass = Some(signal),
                WaitStatus::Signaled(_, signal, _) => return Some(signal),
                other => panic!("{other:?}"),
            }
        }
    }

    /// At the entry into the call that is replaced.
    fn is_at_question(&self) -> bool {
        ptrace::syscall_info(self.thread).unwrap().op == nix::libc::PTRACE_SYSCALL_INFO_ENTRY
            && ptrace::getregs(self.thread).unwrap().orig_rax == nix::libc::SYS_getppid.cast_unsigned()
    }

    /// Makes this call with arguments that lead nowhere, and goes on to the next entry.
    fn call(&self, number: u64) -> Answer {
        self.call_with(number, [u64::MAX; 6])
    }

    fn call_with(&self, number: u64, arguments: [u64; 6]) -> Answer {
        let mut registers = ptrace::getregs(self.thread).unwrap();
        registers.orig_rax = number;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        ptrace::setregs(self.thread, registers).unwrap();
        // Also a call that ends the process is returned from, and then the signal comes.
        let mut stop = self.to_stop();
        let answer = ptrace::getregs(self.thread).map(|registers| registers.rax.cast_signed());
        while stop.is_none() && !self.is_at_question() {
            stop = self.to_stop();
        }
        stop.map_or_else(|| Answer::Returned(answer.unwrap()), Answer::Ended)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Its end is told to whoever traced it first, and only then that of its process.
        while waitpid(self.thread, Some(WaitPidFlag::__WALL))
            .is_ok_and(|status| !matches!(status, WaitStatus::Signaled(..)))
        {}
        let _ = self.child.wait();
    }
}

#[test]
fn every_line_of_the_fatal_files_ends_the_process() {
    for (policy, files) in [
        ("daemon", &[FATAL, PROGRAMS][..]),
        ("sealer", &[FATAL, PROGRAMS]),
        ("module", &[FATAL]),
        ("starter", &[FATAL]),
    ] {
        let calls: Vec<_> = files.iter().flat_map(|file| calls(file)).collect();
        assert!(calls.len() > 50, "{calls:?}");
        for (name, number) in calls {
            let answer = Traced::start(policy).call(number);
            assert_eq!(answer, Answer::Ended(Signal::SIGSYS), "{name} under {policy}");
        }
    }
}

#[test]
fn what_stands_in_no_file_is_unknown_as_on_a_kernel_that_has_it_not() {
    for (policy, files) in
        [("daemon", &[COMMON, DAEMON, FATAL, PROGRAMS][..]), ("sealer", &[COMMON, LIBRARIES, FATAL, PROGRAMS])]
    {
        let listed: BTreeSet<_> = files.iter().flat_map(|file| calls(file)).map(|(_, number)| number).collect();
        let traced = Traced::start(policy);
        let mut count = 0;
        for number in (0..NUMBERS).filter(|number| !listed.contains(number) && !PAST_ALL_FILTERS.contains(number)) {
            assert_eq!(traced.call(number), Answer::Returned(-ENOSYS), "{number} under {policy}");
            count += 1;
        }
        assert!(count > 250, "{count}");
    }
}

/// mmap(2) with a descriptor that is none: what the filter lets through, the kernel refuses for that.
#[test]
fn who_writes_files_maps_none_of_them_as_a_program() {
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    const EXECUTE: u64 = 4;
    const PRIVATE: u64 = 2;
    const SHARED: u64 = 1;
    let map = nix::libc::SYS_mmap.cast_unsigned();
    for (policy, of_a_library) in [("daemon", ENOSYS), ("sealer", EBADF)] {
        let traced = Traced::start(policy);
        let answer = |access, flags| traced.call_with(map, [0, 4096, access, flags, u64::from(u32::MAX), 0]);
        assert_eq!(answer(READ | WRITE, PRIVATE), Answer::Returned(-EBADF), "{policy}: the call itself is let through");
        for flags in [PRIVATE, SHARED] {
            assert_eq!(answer(READ | EXECUTE, flags), Answer::Returned(-of_a_library), "{policy}, {flags}");
            assert_eq!(answer(EXECUTE, flags), Answer::Returned(-of_a_library), "{policy}, {flags}");
            assert_eq!(answer(READ | WRITE | EXECUTE, flags), Answer::Returned(-ENOSYS), "{policy}, {flags}");
        }
    }
}
