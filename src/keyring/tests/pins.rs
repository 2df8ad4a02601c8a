//! A PIN that the token refuses, where no sealer remembers that it did.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Answers each question as a token does whose PIN is wrong; gives how often it was asked.
fn refuse_all(listener: UnixListener) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            frame::read(&mut stream).unwrap().unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            frame::write(&mut stream, &Response::Fault(Fault::new(FaultCode::HsmPin, "")).encode()).unwrap();
        }
    });
    asked
}

#[test]
fn a_wrong_pin_is_given_to_a_token_once_and_the_next_one_at_once() {
    let node = Node::set_up();
    let socket = node.dir.path().join("token");
    let asked = refuse_all(UnixListener::bind(&socket).unwrap());
    let pin = node.dir.path().join("pin");
    std::fs::write(&pin, "0815").unwrap();
    let (keyring, handle, body) = keeper::new(Settings {
        disk: RealDisk,
        state_dir: node.state_dir(),
        cluster: cluster(),
        sealer: SealerClient::Socket(socket),
        max_age: MaxAge::DEFAULT,
        guard: None,
        pin_file: Some(pin.clone()),
        now: || 0,
        is_synchronised: || true,
    });
    let keeper = thread::spawn(body);
    let give_up = Instant::now() + Duration::from_secs(30);
    // Without the look at the file it would be asked twice before the first of these looks is due.
    for (tries, content) in [(1, "4711-4711"), (2, "right")] {
        while asked.load(Ordering::SeqCst) < tries {
            assert!(Instant::now() < give_up, "the PIN of try {tries} is not given");
            thread::sleep(Duration::from_millis(5));
        }
        let looked = Instant::now() + keeper::PIN_LOOK_EVERY + Duration::from_millis(500);
        while Instant::now() < looked {
            assert_eq!(asked.load(Ordering::SeqCst), tries, "the same PIN is given once");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(keyring.refusal().and_then(|refusal| refusal.waits_for), Some(pin.clone()), "status can say so");
        std::fs::write(&pin, content).unwrap();
    }
    while asked.load(Ordering::SeqCst) < 3 {
        assert!(Instant::now() < give_up, "the last PIN is not given");
        thread::sleep(Duration::from_millis(5));
    }
    handle.stop();
    keeper.join().unwrap();
}
