use std::sync::Barrier;

use super::super::{ControlError, ask};
use super::*;

#[test]
fn values_are_counted_outside_of_strings_alone() {
    for (json, expected) in
        [(r#"{"verb":"status"}"#, 2), (r#"{"a":"[,:{\"["}"#, 2), (r#"[[[0,1]]]"#, 4), (r#""\\",["#, 2)]
    {
        assert_eq!(values(json.as_bytes()), expected, "{json}");
    }
}

#[test]
fn while_all_slow_questions_hang_the_status_is_answered_and_the_next_slow_one_is_told_busy() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let hanging = Arc::new(Barrier::new(SLOW_MAX + 1));
    let end = Arc::new(Barrier::new(SLOW_MAX + 1));
    let (hangs, ends, path) = (Arc::clone(&hanging), Arc::clone(&end), socket.clone());
    thread::spawn(move || {
        serve(&listener, &path, Door::Operator, move |request| {
            if request == (Request::KeysList {}) {
                hangs.wait();
                ends.wait();
            }
            Answer::Reloaded { pending: Vec::new() }
        });
    });
    let askers: Vec<_> = (0..SLOW_MAX)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || ask(&socket, &Request::KeysList {}))
        })
        .collect();
    hanging.wait();
    assert_eq!(ask(&socket, &Request::Status {}).unwrap(), Answer::Reloaded { pending: Vec::new() });
    match ask(&socket, &Request::KeysRotate {}) {
        Err(ControlError::Refused(refusal)) => assert!(refusal.error.contains("busy"), "{}", refusal.error),
        other => panic!("{other:?}"),
    }
    end.wait();
    assert!(askers.into_iter().all(|asker| asker.join().unwrap().is_ok()));
    assert!(ask(&socket, &Request::KeysRotate {}).is_ok(), "a place that was given back");
}

#[test]
fn a_question_that_comes_byte_by_byte_gives_its_place_back_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let path = socket.clone();
    thread::spawn(move || serve(&listener, &path, Door::Status, |_| Answer::Reloaded { pending: Vec::new() }));
    let begun = Instant::now();
    let drip = |stream: UnixStream| {
        while (&stream).write_all(b" ").is_ok() && begun.elapsed() < 4 * QUESTION_TIMEOUT {
            thread::sleep(QUESTION_TIMEOUT / 10);
        }
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS_MAX {
            let stream = UnixStream::connect(&socket).unwrap();
            scope.spawn(move || drip(stream));
        }
        while begun.elapsed() < 3 * QUESTION_TIMEOUT {
            if ask(&socket, &Request::Status {}).is_ok() {
                return;
            }
            thread::sleep(QUESTION_TIMEOUT / 20);
        }
        panic!("those who drip have kept all places for {:?}", begun.elapsed());
    });
}

#[test]
fn reloads_that_wait_leave_places_for_other_questions() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (tell, came) = std::sync::mpsc::channel();
    let end = Arc::new(Barrier::new(RELOADS_MAX + 1));
    let (ends, path) = (Arc::clone(&end), socket.clone());
    thread::spawn(move || {
        serve(&listener, &path, Door::Operator, move |request| {
            if matches!(request, Request::Reload { .. }) {
                tell.send(()).unwrap();
                ends.wait();
            }
            Answer::Reloaded { pending: Vec::new() }
        });
    });
    let askers: Vec<_> = (0..SLOW_MAX)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || {
                ask(&socket, &Request::Reload { abandon: false, without_scan: false, backups_before: None })
            })
        })
        .collect();
    // Those that wait are under way, and the others have their answer.
    (0..RELOADS_MAX).for_each(|_| came.recv().unwrap());
    let limit = Instant::now() + QUESTION_TIMEOUT;
    while askers.iter().filter(|asker| asker.is_finished()).count() < SLOW_MAX - RELOADS_MAX {
        assert!(Instant::now() < limit, "more than {RELOADS_MAX} reloads wait");
        thread::sleep(ACCEPT_PAUSE / 10);
    }
    assert!(ask(&socket, &Request::KeysList {}).is_ok());
    end.wait();
    let answers: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|error| format!("{error:?}").contains("reload")), "{answers:?}");
    assert_eq!(refused.count(), SLOW_MAX - RELOADS_MAX);
}

/// Bytes of memory that this process has had at most since the last look.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // proc(5): the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib * 1024
}

#[test]
fn whoever_may_ask_for_the_status_takes_no_memory_to_speak_of_whatever_he_sends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let path = socket.clone();
    thread::spawn(move || serve(&listener, &path, Door::Status, |_| Answer::Reloaded { pending: Vec::new() }));
    let nested = format!("{}0{}", "{\"\":".repeat(100), "}".repeat(100));
    let line = format!("[{}0]", format!("{nested},").repeat((1 << 20) / (nested.len() + 1) - 1));
    most_memory();
    let before = most_memory();
    let askers: Vec<_> = (0..CONNECTIONS_MAX).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    thread::scope(|scope| {
        for asker in &askers {
            // One that is cut short has been answered.
            scope.spawn(|| (&*asker).write_all(line.as_bytes()));
        }
    });
    for mut asker in &askers {
        let _ = asker.write_all(b"\n");
    }
    for mut asker in &askers {
        let _ = asker.read_to_end(&mut Vec::new());
    }
    // The unit has MemoryMax=512M, of which keys, calls and the control socket want their parts.
    let grown = most_memory().saturating_sub(before) >> 20;
    assert!(grown < 64, "{CONNECTIONS_MAX} questions have taken {grown} MiB");
}
