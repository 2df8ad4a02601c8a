//! Uses of a KEK: never counted too low, and not eaten up by restarts.

use super::*;
use crate::keyring::RESERVED_BLOCK_USES;

#[test]
fn hundreds_of_clean_restarts_cost_few_uses() {
    const RESTARTS: u64 = 300;
    let mut node = Node::new();
    operations::grow(&mut node);
    let before = boot(&mut node).row("active").unwrap().uses;
    for _ in 0..RESTARTS {
        let running = node.start();
        running.first_attempt().unwrap();
        node.ledger.encrypt(&running);
    }
    let running = boot(&mut node);
    node.ledger.assert_holds(&running);
    let uses = running.row("active").unwrap().uses;
    assert!(
        uses <= before + RESTARTS + 4 * RESERVED_BLOCK_USES,
        "{RESTARTS} restarts have cost {} uses",
        uses - before
    );
}

#[test]
fn restarts_of_every_kind_never_count_less_than_was_handed_out() {
    let mut node = Node::new();
    operations::grow(&mut node);
    for round in 0..24_u64 {
        let running = boot(&mut node);
        node.ledger.assert_holds(&running);
        running.keyring.claim(round * round * 37 % 3000);
        if round % 5 == 4 {
            running.keyring.claim(RESERVED_BLOCK_USES);
        }
        node.ledger.encrypt(&running);
        let killed = node.disk.after_kill();
        drop(running);
        match round % 4 {
            // A clean stop.
            0 => {}
            1 => node.disk = killed,
            2 => node = without_newest_state(&node.on(killed), LOSSES[0]),
            _ => node = without_newest_state(&node, LOSSES[2]),
        }
    }
    drop(boot_and_read(&mut node));
}
